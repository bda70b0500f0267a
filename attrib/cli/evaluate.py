"""`attrib evaluate`: methods against ground truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from attrib.cli.options import (
    BatchSize,
    Device,
    FitOption,
    MethodSpec,
    ModelName,
    NumClasses,
    Weights,
)

__all__ = ["app"]

app = typer.Typer(help="Score methods against ground truth.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def wsol(
    dataset: Annotated[str, typer.Option(help="cub or scenes.")],
    model: ModelName,
    method: MethodSpec = "infocam+",
    root: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    split: Annotated[str, typer.Option(help="Part of the data set.")] = "test",
    protocol: Annotated[str, typer.Option(help="How boxes are made and scored: infocam.")] = (
        "infocam"
    ),
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Fraction of the range.")] = 0.2,
    resize: Annotated[str, typer.Option(help="bilinear or bicubic, from map to input.")] = (
        "bilinear"
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write this file.")] = None,
    fit: FitOption = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    device: Device = None,
    batch_size: BatchSize = 16,
) -> None:
    """Weakly supervised localisation: boxes of the true class's map against the true boxes."""
    import attrib
    from attrib.errors import UnknownNameError
    from attrib.evaluate import evaluate_wsol
    from attrib.metrics import InfoCAMProtocol
    from attrib.report import replacing

    if protocol != "infocam":
        raise UnknownNameError("protocol", protocol, ["infocam"])
    data = _dataset(dataset, root, split)
    loaded = attrib.load_model(model, weights=weights, num_classes=num_classes, device=device)
    explainer = attrib.Explainer(loaded, method, fit=fit)  # type: ignore[arg-type]
    result = evaluate_wsol(
        explainer,
        data,
        InfoCAMProtocol(threshold=threshold, resize=resize),  # type: ignore[arg-type]
        batch_size=batch_size,
        limit=limit,
        progress=None,
    )
    for key, value in result.items():
        typer.echo(f"{key:18}{value:.4f}" if isinstance(value, float) else f"{key:18}{value}")
    if json_file is not None:
        with replacing(json_file) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _dataset(name: str, root: Path | None, split: str) -> Any:
    from attrib.datasets import CUB, ScenesWithBoxes
    from attrib.errors import InputError, UnknownNameError

    if name == "scenes":
        return ScenesWithBoxes()
    if name != "cub":
        raise UnknownNameError("data set", name, ["cub", "scenes"])
    if root is None:
        raise InputError("--dataset cub needs --root FOLDER, the folder CUB_200_2011")
    return CUB(root, split)  # type: ignore[arg-type]
