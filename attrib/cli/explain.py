"""`attrib explain`: pictures in, overlays and numbers out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from attrib.cli.options import (
    BatchSize,
    Decode,
    Device,
    FitOption,
    MethodSpec,
    ModelName,
    MultiLabel,
    NumClasses,
    Weights,
)
from attrib.cli.pictures import listed, tell_left_out

if TYPE_CHECKING:
    from concurrent.futures import Future

    from attrib import Explainer, Explanation
    from attrib.images import Picture

__all__ = ["run"]


def run(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, and folders of them.")],
    model: ModelName,
    method: MethodSpec = "infocam+",
    target: Annotated[
        list[str] | None,
        typer.Option(help="Class index or label to explain, repeatable; else the most likely."),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Where heatmaps are cut.")] = 0.2,
    rule: Annotated[
        str, typer.Option(help="fraction, percentile, otsu or absolute: how --threshold is read.")
    ] = "fraction",
    out: Annotated[Path | None, typer.Option(help="Folder to write files to.")] = None,
    formats: Annotated[
        str, typer.Option("--format", help="Comma-separated: png, json, npz.")
    ] = "png",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    fit: FitOption = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    multi_label: MultiLabel = None,
    decode: Decode = "pillow",
    device: Device = None,
    batch_size: BatchSize = 16,
) -> None:
    """Explain pictures: where did the model look, and how sure is it?

    Of a folder every picture that lies in it, batch by batch. One that cannot be read is named and
    left out; the exit status is then 1, and 2 where none can be read.
    """
    import attrib
    from attrib.errors import InputError
    from attrib.progress import progress_bar

    suffixes = _suffixes(formats)
    paths = listed(pictures)
    loaded = attrib.load_model(model, weights=weights, num_classes=num_classes, device=device)
    explainer = attrib.Explainer(
        loaded,
        method,
        fit=fit,  # type: ignore[arg-type]
        multi_label=multi_label,
        decode=decode,  # type: ignore[arg-type]
    )
    if explainer.classifier.note and explainer.method.needs_class_maps and not as_json:
        typer.echo(f"note: maps are approximate: {explainer.classifier.note}", err=True)
    classes = [int(t) if t.lstrip("-").isdigit() else t for t in target or []]
    options = {"threshold": threshold, "rule": rule}
    answers = _explained(explainer, paths, classes, options, batch_size)
    found: list[dict[str, Any]] = []
    done = 0
    with progress_bar(len(paths), None if as_json else False) as bar:  # text shows how far it is
        for path, stem, explanation in answers:
            done += 1
            files = [] if out is None else [explanation.save(out / f"{stem}{s}") for s in suffixes]
            if as_json:
                found.append(explanation.to_dict())
            else:
                _print(path, explanation, files)
            bar.update()
    if not done:
        raise InputError(f"none of {len(paths)} pictures could be read")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    raise typer.Exit(0 if done == len(paths) else 1)


def _explained(
    explainer: Explainer,
    paths: Sequence[Path],
    classes: list[int | str],
    options: dict[str, Any],
    batch_size: int,
) -> Iterator[tuple[Path, str, Explanation]]:
    """Read and explain a batch at a time; give with each answer its path and the stem of its files.

    Pictures that cannot be read are named and left out; a single one is an error.
    """
    places = zip(paths, _stems(paths), strict=True)
    reads = explainer.reader().ahead(places, itemgetter(0), depth=batch_size)
    while pairs := list(islice(reads, batch_size)):
        read = _readable(pairs, alone=len(paths) == 1)
        targets = [classes] * len(read) if classes else None
        batch = [picture for _, picture in read]
        answers = explainer.explain(batch, targets, progress=False, **options) if batch else []
        for (place, _), answer in zip(read, cast("list[Explanation]", answers), strict=True):
            yield *place, answer


def _readable(
    pairs: Sequence[tuple[tuple[Path, str], Future[Picture]]], *, alone: bool
) -> list[tuple[tuple[Path, str], Picture]]:
    from attrib.errors import InputError, in_one_line

    read, failed = [], {}
    for place, found in pairs:
        try:
            read.append((place, found.result()))
        except InputError as error:
            if alone:
                raise
            failed[str(place[0])] = in_one_line(error)
    tell_left_out(failed)
    return read


def _suffixes(formats: str) -> list[str]:
    from attrib.errors import InputError

    names = [name.strip() for name in formats.split(",") if name.strip()]
    for name in names:
        if name not in ("png", "json", "npz"):
            raise InputError(f"--format takes png, json and npz, got {name!r}")
    return [f".{name}" for name in names]


def _stems(paths: Sequence[Path]) -> list[str]:
    """Name the outputs after the pictures, numbered where two pictures share a name."""
    taken: dict[str, int] = {}
    stems = []
    for path in paths:
        stem = path.stem
        while stem in taken:
            taken[path.stem] += 1
            stem = f"{path.stem}-{taken[path.stem]}"
        taken[stem] = 1
        stems.append(stem)
    return stems


def _print(path: Path, explanation: Explanation, files: Sequence[Path]) -> None:
    typer.echo(str(path))
    for i, label in enumerate(explanation.labels):
        box = explanation.boxes(i)[0]
        where = f"box {box[0]} {box[1]} {box[2]} {box[3]}" if box else "nothing to localise"
        typer.echo(f"  {label}  {explanation.scores[i]:.1%}  {where}")
    for file in files:
        typer.echo(f"  wrote {file}")
