"""`--engine`: where a long job is worked on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from attrib.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from attrib import seeds

__all__ = [
    "Engine",
    "WorkerCPUs",
    "WorkerGPUs",
    "Workers",
    "crew_of",
    "engine_of",
    "loading_device",
]

Engine = Annotated[
    str,
    typer.Option(
        help="local: this process; ray: workers of a Ray cluster. Of attrib seeds, attrib evaluate "
        "wsol and attrib evaluate seeds; all other commands run in their own process."
    ),
]
Workers = Annotated[int | None, typer.Option(help="Of ray: copies of the model; 1 if left.")]
WorkerCPUs = Annotated[
    int | None, typer.Option("--worker-cpus", help="Of ray: cores per worker; 1 if left.")
]
WorkerGPUs = Annotated[
    float | None, typer.Option("--worker-gpus", help="Of ray: GPUs per worker, 0 to 1; 0 if left.")
]


def engine_of(
    name: str, readers: int | None, *, workers: int | None, cpus: int | None, gpus: float | None
) -> seeds.Engine:
    """Return the engine that the options of a job name.

    Raises:
        UnknownNameError: neither `local` nor `ray`.
        InputError: options of workers without workers, or out of their range.
    """
    from attrib.seeds import Local

    crew = crew_of(name, workers=workers, cpus=cpus, gpus=gpus)
    if crew is None:
        return Local(readers=readers)
    return crew if readers is None else replace(crew, readers=readers)


def crew_of(
    name: str, *, workers: int | None, cpus: int | None, gpus: float | None = None
) -> seeds.OnRay | None:
    """Return the workers that the options name, or None for this process.

    Raises:
        UnknownNameError: neither `local` nor `ray`.
        InputError: options of workers without workers, or out of their range.
    """
    from attrib.seeds import OnRay

    given = {"workers": workers, "cpus": cpus, "gpus": gpus}
    wanted = {key: value for key, value in given.items() if value is not None}
    if name == "ray":
        return OnRay(**wanted)  # type: ignore[arg-type]
    if name != "local":
        raise UnknownNameError("engine", name, ["local", "ray"])
    if wanted:
        raise InputError("--workers, --worker-cpus and --worker-gpus are for --engine ray")
    return None


def loading_device(name: str, device: str | None) -> str | None:
    """Return where this process loads the model: for workers, to where it is sent to them from.

    Raises:
        InputError: another device of this process is named for the workers.
    """
    if name != "ray":
        return device
    if device not in (None, "cpu"):
        raise InputError(
            f"--device {device} is of this process; with --engine ray give --worker-gpus 1"
        )
    return "cpu"
