"""`attrib compare` and `attrib evaluate faithfulness`: methods side by side."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrib.cli.box_data import BOX_DATASETS, SCORED, BoxSource
from attrib.cli.options import (
    BatchSize,
    Decode,
    Device,
    FitOption,
    JsonFile,
    Labels,
    ModelName,
    MultiLabel,
    NumClasses,
    Weights,
    Work,
)
from attrib.cli.pictures import listed, tell_left_out

if TYPE_CHECKING:
    from torch import nn

    from attrib import Comparison
    from attrib.compare import Estimate, MethodRow

__all__ = ["faithfulness", "run"]

DEFAULT = "cam,infocam+,gradcam,layercam"
LABELLED = ("voc", "coco", "cub", "folder")
"""Data sets of pictures with classes; all others are known by their objects."""
CLASS_FOLDERS = ", or with one folder per class say --dataset folder --root {folder}"

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
        "gt-known, top-1, maxboxacc, maxboxaccv2, pointing, pxap. Empty: maps and seconds alone."
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
Split = Annotated[
    str | None,
    typer.Option(
        help="Part of it; if left the one that is usually scored, whatever the metrics: "
        + ", ".join(f"{name} {part}" for name, part in SCORED.items())
        + "."
    ),
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
    decode: Decode = "pillow",
    device: Device = None,
    batch_size: BatchSize = 8,
) -> None:
    """Compare methods on pictures: a table of scores, and a page of their maps.

    A picture that cannot be read is named and left out; the exit status is then 1, and 2 where none
    can be read.
    """
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
        decode=decode,  # type: ignore[arg-type]
    )
    tell_left_out(found.failed)
    _print(found)
    for path in [*(out or []), *([json_file] if json_file else [])]:
        typer.echo(f"wrote {found.save(path)}")
    raise typer.Exit(1 if found.failed else 0)


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
    decode: Decode = "pillow",
    device: Device = None,
    batch_size: BatchSize = 8,
) -> None:
    """Faithfulness: what becomes of the class as the pixels that a map points at go or come."""
    from attrib.errors import InputError

    if not _specs(metrics):
        raise InputError("--metrics names no metric; for maps without scores run attrib compare")
    run(
        model,
        pictures,
        methods,
        metrics,
        shown=0,
        targets=targets,
        dataset=dataset,
        root=root,
        split=split,
        labels=labels,
        every=every,
        limit=limit,
        work=work,
        json_file=json_file,
        fit=fit,
        multi_label=multi_label,
        weights=weights,
        num_classes=num_classes,
        decode=decode,
        device=device,
        batch_size=batch_size,
    )


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
        return listed(pictures or [], CLASS_FOLDERS)
    if _needs_objects(metrics) or source.name not in LABELLED:
        if labels is not None:
            raise InputError(f"--labels is not for --dataset {source.name} with true objects")
        return replace(source, classes=classes or None).open(split)
    if source.root is None:
        raise InputError(f"--dataset {source.name} needs --root FOLDER")
    if source.annotations or source.masks:
        raise InputError("--annotations and --masks are for metrics of true objects")
    part = split or SCORED.get(source.name)
    return labelled_dataset(source.name, source.root, part, labels, classes=classes)


def _needs_objects(metrics: list[str]) -> bool:
    from attrib.metrics import ObjectMetric, resolve_score

    return any(isinstance(resolve_score(metric), ObjectMetric) for metric in metrics)


def _print(found: Comparison) -> None:
    typer.echo(f"{found.extent}, class {found.targets}")
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
