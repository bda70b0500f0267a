"""`attrib evaluate wsol`: where the labelled object is, by several protocols at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attrib.cli.box_data import BOX_DATASETS, BoxSource
from attrib.cli.engine import (
    Engine,
    WorkerCPUs,
    WorkerGPUs,
    Workers,
    crew_of,
    loading_device,
)
from attrib.cli.options import (
    BatchSize,
    Decode,
    Device,
    FitOption,
    JsonFile,
    MethodSpec,
    NumClasses,
    Weights,
    Work,
    write_json,
)

if TYPE_CHECKING:
    from attrib import Explainer

__all__ = ["run"]


def run(
    dataset: Annotated[str, typer.Option(help=", ".join(BOX_DATASETS) + ".")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="As for explain; not with --maps.")
    ] = None,
    method: MethodSpec = "infocam+",
    root: Annotated[
        str | None,
        typer.Option(
            help="Folder of the data set; for boxes also 'DIR/*.tar', 'DIR/*.parquet', or the URL "
            "of any of them."
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="imagenet: folder of XML files; metadata: folder of lists per split; boxes: CSV "
            "file; coco: its instances JSON, if elsewhere."
        ),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks: for metadata, and for voc to use them.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Part of it; the usual one if left.")] = None,
    val_split: Annotated[
        str | None,
        typer.Option(help="Another part, to choose thresholds by; for boxes another CSV file."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(help="infocam, maxboxacc, maxboxaccv2, pointing, pxap; with commas; or all."),
    ] = "all",
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="The fixed one; 0.2 if left.")
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(help="Between thresholds; 0.01 for boxes and 0.001 for pxap if left."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Of pointing, in pixels; 15 if left.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="bilinear or bicubic, for all protocols.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Only every n-th picture.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Folder of maps to score instead: ID.npz or ID.npy.")
    ] = None,
    val_maps: Annotated[Path | None, typer.Option(help="Those of --val-split.")] = None,
    save_maps: Annotated[Path | None, typer.Option(help="Folder to write the maps to.")] = None,
    work: Work = None,
    json_file: JsonFile = None,
    fit: FitOption = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    decode: Decode = "pillow",
    device: Device = None,
    batch_size: BatchSize = 16,
    engine: Engine = "local",
    workers: Workers = None,
    worker_cpus: WorkerCPUs = None,
    worker_gpus: WorkerGPUs = None,
) -> None:
    """Weakly supervised localisation: the true class's map against true boxes and masks.

    A threshold that was chosen on the scored pictures is called the oracle's.

    With --work FOLDER repeat the command after any interruption, with --engine ray or without: what
    was counted is kept, and the figures are those of a run that was never stopped.
    """
    from attrib.errors import InputError
    from attrib.evaluate import evaluate_saved_maps, evaluate_wsol
    from attrib.metrics import wsol_protocols

    _check(model, maps, val_maps, save_maps, work, val_split)
    crew = crew_of(engine, workers=workers, cpus=worker_cpus, gpus=worker_gpus)
    if maps is not None and crew is not None:
        raise InputError("--engine ray is for maps that --model makes; --maps are scored here")
    explainer = None
    if maps is None:
        place = loading_device(engine, device)
        explainer = _explainer(str(model), method, weights, num_classes, place, fit, decode)
    classes = explainer.classifier.spec.labels or None if explainer else None
    source = BoxSource(
        name=dataset, root=root, annotations=annotations, masks=masks, classes=classes
    )
    data = source.open(split)
    other = None if val_split is None else source.open(val_split)
    first = data[0]
    protocols = wsol_protocols(
        protocol,
        boxes=len(first.boxes) > 0,
        masks=first.mask is not None,
        threshold=threshold,
        interval=interval,
        tolerance=tolerance,
        resize=resize,
    )
    common: dict[str, Any] = {
        "batch_size": batch_size, "limit": limit, "every": every, "progress": None
    }  # fmt: skip
    if explainer is not None:
        result = evaluate_wsol(
            explainer,
            data,
            protocols,
            validation=other,
            save_maps=save_maps,
            work=work,
            engine=crew,
            **common,
        )
    else:
        pair = None if other is None or val_maps is None else (val_maps, other)
        result = evaluate_saved_maps(str(maps), data, protocols, validation=pair, **common)
    _print(result)
    write_json(result, json_file)


def _check(
    model: str | None,
    maps: Path | None,
    val_maps: Path | None,
    save_maps: Path | None,
    work: Path | None,
    val_split: str | None,
) -> None:
    from attrib.errors import InputError

    if (model is None) == (maps is None):
        raise InputError("give --model, to make maps, or --maps, to score those of a folder")
    if save_maps is not None and maps is not None:
        raise InputError("--save-maps is for maps that --model makes; --maps has them in files")
    if work is not None and maps is not None:
        raise InputError("--work is for maps that --model makes; those of --maps are scored anew")
    if maps is not None and (val_split is None) != (val_maps is None):
        raise InputError("--maps takes --val-split and --val-maps together, or neither")
    if maps is None and val_maps is not None:
        raise InputError("--val-maps goes with --maps; --model makes the maps of --val-split too")


def _explainer(
    model: str,
    method: str,
    weights: Path | None,
    num_classes: int | None,
    device: str | None,
    fit: str | None,
    decode: str,
) -> Explainer:
    import attrib

    loaded = attrib.load_model(model, weights=weights, num_classes=num_classes, device=device)
    return attrib.Explainer(loaded, method, fit=fit, decode=decode)  # type: ignore[arg-type]


def _print(result: dict[str, Any]) -> None:
    what = [result["model"] or "saved maps", result["method"] or ""]
    every = "" if result["every"] == 1 else f", one in {result['every']}"
    typer.echo(f"{result['dataset']}: {result['images']} pictures{every}; {' '.join(what).strip()}")
    if "top1_acc" in result:
        typer.echo(f"accuracy: top-1 {result['top1_acc']:.2f}, top-5 {result['top5_acc']:.2f}")
    for name, figures in result["protocols"].items():
        for line in _lines(name, figures):
            typer.echo(line)
    typer.echo(f"{result['seconds_per_image']:.4f} seconds per picture")


def _lines(name: str, figures: dict[str, Any]) -> list[str]:
    """Put one protocol's figures into lines, the fixed threshold's before the oracle's."""
    if name == "infocam":
        return [f"{name:12} fixed threshold {figures['threshold']:g}: {_locations(figures)}"]
    if name == "pointing":
        return [f"{name:12} hits {figures['hits']:.2f} (within {figures['tolerance']:g} pixels)"]
    if name == "pxap":
        lines = [f"{name:12} PxAP {figures['pxap']:.2f}"]
        for kind, row in figures["piou"].items():
            lines.append(f"{'':12} {kind} threshold {row['threshold']:g}: PIoU {row['iou']:.2f}")
        return lines
    lines = []
    for kind in ("fixed", "validated", "oracle"):
        if kind in figures:
            lines.append(f"{name:12} {kind} thresholds: {figures[kind][name]:.2f}")
            for row in figures[kind]["ious"]:
                at = f"IoU {row['iou']:g}, {kind} threshold {row['threshold']:g}"
                lines.append(f"{'':14}{at}: {_locations(row)}")
    return lines


def _locations(row: dict[str, Any]) -> str:
    names = {"gt_known_loc": "GT-known", "top1_loc": "Top-1", "top5_loc": "Top-5"}
    return "  ".join(f"{text} {row[key]:.2f}" for key, text in names.items() if key in row)
