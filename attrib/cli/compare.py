"""`attrib compare` and `attrib evaluate faithfulness`: methods side by side."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrib.cli.box_data import BOX_DATASETS, BoxSource
from attrib.cli.options import (
    BatchSize,
    Device,
    FitOption,
    JsonFile,
    Labels,
    ModelName,
    NumClasses,
    Split,
    Weights,
)

if TYPE_CHECKING:
    from torch import nn

    from attrib import Comparison
    from attrib.compare import Estimate, MethodRow

__all__ = ["faithfulness", "run"]

DEFAULT = "cam,infocam+,gradcam,layercam"
LABELLED = ("voc", "coco", "cub", "folder")
"""Data sets of pictures with classes; all others are known by their objects."""

Pictures = Annotated[
    list[Path] | None, typer.Argument(help="Pictures, and folders of them; or --dataset.")
]
Methods = Annotated[
    str, typer.Option("--methods", "--method", help="Comma-separated names or specs.")
]
Metrics = Annotated[
    str,
    typer.Option(
        help="Comma-separated names or specs: deletion, insertion, road, infidelity, "
        "max-sensitivity, sparseness, randomisation; and, with --dataset and --targets true, "
        "gt-known, top-1, maxboxacc, maxboxaccv2, pointing, pxap."
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Instead of pictures: voc, coco, cub or folder; for metrics that need true objects "
        + ", ".join(BOX_DATASETS)
        + ".",
    ),
]
Root = Annotated[
    str | None, typer.Option(help="Folder of the data set; of folder also shards or a URL.")
]
Annotations = Annotated[
    Path | None, typer.Option(help="File or folder of true boxes, as for `attrib evaluate wsol`.")
]
Masks = Annotated[Path | None, typer.Option(help="Folder of true masks, likewise.")]
Classes = Annotated[
    str, typer.Option("--targets", help="Which class to explain: predicted, or a data set's true.")
]
Every = Annotated[int, typer.Option(min=1, help="Only every n-th picture.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many.")]
Work = Annotated[
    Path | None, typer.Option(help="Folder that keeps what is done; repeat the command to go on.")
]
MultiLabel = Annotated[
    bool | None, typer.Option(help="The model has independent outputs; as it says if left.")
]


def run(
    model: ModelName,
    pictures: Pictures = None,
    methods: Methods = DEFAULT,
    metrics: Metrics = "deletion,insertion",
    out: Annotated[
        list[Path] | None,
        typer.Option(help="File to write, by its suffix: .html, .png, .pdf, .json, .tex."),
    ] = None,
    shown: Annotated[int, typer.Option(min=0, help="Pictures whose maps are kept.")] = 12,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Where boxes are cut.")] = 0.2,
    targets: Classes = "predicted",
    dataset: Dataset = None,
    root: Root = None,
    split: Split = None,
    labels: Labels = None,
    annotations: Annotations = None,
    masks: Masks = None,
    every: Every = 1,
    limit: Limit = None,
    work: Work = None,
    json_file: JsonFile = None,
    fit: FitOption = None,
    multi_label: MultiLabel = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    device: Device = None,
    batch_size: BatchSize = 8,
) -> None:
    """Compare methods on pictures: a table of scores, and a page of their maps."""
    import attrib

    loaded = attrib.load_model(model, weights=weights, num_classes=num_classes, device=device)
    source = BoxSource(name=dataset or "", root=root, annotations=annotations, masks=masks)
    found = attrib.compare(
        loaded,
        _pictures(pictures, source, split, labels, loaded, _specs(metrics)),
        _specs(methods),
        targets,
        metrics=_specs(metrics),
        every=every,
        limit=limit,
        shown=shown,
        threshold=threshold,
        batch_size=batch_size,
        work=work,
        fit=fit,  # type: ignore[arg-type]
        multi_label=multi_label,
    )
    _print(found)
    for path in [*(out or []), *([json_file] if json_file else [])]:
        typer.echo(f"wrote {found.save(path)}")


def faithfulness(
    model: ModelName,
    pictures: Pictures = None,
    methods: Methods = DEFAULT,
    metrics: Metrics = "deletion,insertion,road,sparseness",
    targets: Classes = "predicted",
    dataset: Dataset = None,
    root: Root = None,
    split: Split = None,
    labels: Labels = None,
    every: Every = 1,
    limit: Limit = None,
    work: Work = None,
    json_file: JsonFile = None,
    fit: FitOption = None,
    multi_label: MultiLabel = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    device: Device = None,
    batch_size: BatchSize = 8,
) -> None:
    """Faithfulness: what becomes of the class as the pixels that a map points at go or come."""
    run(**locals(), out=None, shown=0, threshold=0.2, annotations=None, masks=None)


def _specs(text: str) -> list[str]:
    """Split at commas that no parenthesis encloses."""
    parts, depth = [""], 0
    for c in text:
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts if part.strip()]


def _pictures(
    pictures: list[Path] | None,
    source: BoxSource,
    split: str | None,
    labels: Path | None,
    model: nn.Module,
    metrics: list[str],
) -> Any:
    from attrib.cli.options import labelled_dataset
    from attrib.errors import InputError
    from attrib.models import spec_of

    classes = spec_of(model).labels
    if bool(pictures) == bool(source.name):
        raise InputError("name pictures, or a data set with --dataset and --root; one of the two")
    if not source.name:
        return [path for given in pictures or [] for path in _files(given)]
    if _needs_objects(metrics) or source.name not in LABELLED:
        if labels is not None:
            raise InputError(f"--labels is not for --dataset {source.name} with true objects")
        return replace(source, classes=classes or None).open(split)
    if source.root is None:
        raise InputError(f"--dataset {source.name} needs --root FOLDER")
    if source.annotations or source.masks:
        raise InputError("--annotations and --masks are for metrics of true objects")
    return labelled_dataset(source.name, source.root, split, labels, classes=classes)


def _needs_objects(metrics: list[str]) -> bool:
    from attrib.metrics import ObjectMetric, resolve_score

    return any(isinstance(resolve_score(metric), ObjectMetric) for metric in metrics)


def _files(path: Path) -> list[Path]:
    from attrib.datasets.stores.places import SUFFIXES
    from attrib.errors import InputError

    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(
            f"{path} holds no pictures itself; name the folders in it that do, or with one folder "
            f"per class say --dataset folder --root {path}"
        )
    return found


def _print(found: Comparison) -> None:
    typer.echo(f"{len(found.pictures)} pictures of {found.name}, class {found.targets}")
    lines = [[*found.metrics, "s/picture"], *map(_cells, found.rows)]
    width = max(len("method"), *map(len, found.methods)) + 2
    sizes = [max(map(len, column)) + 2 for column in zip(*filter(None, lines), strict=True)]
    for method, cells in zip(("method", *found.methods), lines, strict=True):
        line = "".join(f"{cell:>{size}}" for cell, size in zip(cells, sizes, strict=False))
        typer.echo(f"{method:{width}}{line}")
    _print_troubles(found)


def _cells(row: MethodRow) -> list[str]:
    """Write a row's scores and seconds; nothing for a method that explained no picture."""
    if row.seconds is None:
        return []
    return [*map(_cell, row.scores.values()), f"{row.seconds:.3g}"]


def _cell(cell: Estimate) -> str:
    if math.isnan(cell.mean):
        return "none"
    spread = "" if math.isnan(cell.low) else f" ({cell.low:.3f} to {cell.high:.3f})"
    oracle = " oracle " + " ".join(f"{t:.2f}" for t in cell.oracle) if cell.oracle else ""
    return f"{cell.mean:.3f}{spread}{oracle}"


def _print_troubles(found: Comparison) -> None:
    for row in found.rows:
        for metric, reason in row.notes.items():
            typer.echo(f"{row.method}, {metric}: {reason}")
        if row.failures:
            typer.echo(f"{row.method} failed on {row.failures} pictures: {row.error}")
    for key, reason in found.failed.items():
        typer.echo(f"{key} was left out: {reason}")
