"""`attrib explain`: pictures in, overlays and numbers out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

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

if TYPE_CHECKING:
    from attrib import Explanation

__all__ = ["run"]


def run(
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
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
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="The model has independent (sigmoid) outputs.")
    ] = False,
    device: Device = None,
    batch_size: BatchSize = 16,
) -> None:
    """Explain pictures: where did the model look, and how sure is it?"""
    import attrib

    suffixes = _suffixes(formats)
    loaded = attrib.load_model(model, weights=weights, num_classes=num_classes, device=device)
    explainer = attrib.Explainer(
        loaded,
        method,
        fit=fit,  # type: ignore[arg-type]
        multi_label=multi_label or None,
    )
    if explainer.classifier.note and explainer.method.needs_class_maps and not as_json:
        typer.echo(f"note: maps are approximate: {explainer.classifier.note}", err=True)
    classes = [int(t) if t.lstrip("-").isdigit() else t for t in target or []]
    targets = [classes] * len(images) if classes else None
    answers = explainer.explain(
        images,
        targets,
        threshold=threshold,
        rule=rule,  # type: ignore[arg-type]
        batch_size=batch_size,
    )
    found = cast("list[Explanation]", answers)
    if as_json:
        typer.echo(json.dumps([e.to_dict() for e in found], indent=2))
    for image, stem, explanation in zip(images, _stems(images), found, strict=True):
        if not as_json:
            _print(image, explanation)
        for suffix in suffixes if out is not None else ():
            path = explanation.save(Path(out or "") / f"{stem}{suffix}")
            if not as_json:
                typer.echo(f"  wrote {path}")


def _suffixes(formats: str) -> list[str]:
    from attrib.errors import InputError

    names = [name.strip() for name in formats.split(",") if name.strip()]
    for name in names:
        if name not in ("png", "json", "npz"):
            raise InputError(f"--format takes png, json and npz, got {name!r}")
    return [f".{name}" for name in names]


def _stems(images: list[Path]) -> list[str]:
    """Name the outputs after the pictures, numbered where two pictures share a name."""
    seen: dict[str, int] = {}
    stems = []
    for image in images:
        seen[image.stem] = seen.get(image.stem, 0) + 1
        count = seen[image.stem]
        stems.append(image.stem if count == 1 else f"{image.stem}-{count}")
    return stems


def _print(image: Path, explanation: Explanation) -> None:
    typer.echo(str(image))
    for i, label in enumerate(explanation.labels):
        box = explanation.boxes(i)[0]
        where = f"box {box[0]} {box[1]} {box[2]} {box[3]}" if box else "nothing to localise"
        typer.echo(f"  {label}  {explanation.scores[i]:.1%}  {where}")
