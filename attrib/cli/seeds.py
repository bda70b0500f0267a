"""`attrib seeds`: the seeds of a data set, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attrib.cli.engine import Engine, WorkerCPUs, WorkerGPUs, Workers, engine_of, loading_device
from attrib.cli.options import (
    DatasetName,
    Decode,
    Device,
    Labels,
    MethodSpec,
    ModelName,
    MultiLabel,
    NumClasses,
    Root,
    Split,
    Weights,
)
from attrib.cli.shard import part_of

if TYPE_CHECKING:
    from attrib.seeds import SeedReport

__all__ = ["run"]

SHOWN = 10


def run(
    dataset: DatasetName,
    root: Root,
    model: ModelName,
    out: Annotated[Path, typer.Option(help="Folder for the results of this one job.")],
    split: Split = None,
    labels: Labels = None,
    method: MethodSpec = "cam",
    formats: Annotated[
        str,
        typer.Option("--format", help="Comma-separated: label, affinity, irn, npz, rle, boxes."),
    ] = "label",
    scales: Annotated[
        str | None,
        typer.Option(help="Comma-separated fractions; 1,0.5,1.5,2 if left. rib has its own."),
    ] = None,
    flip: Annotated[
        bool | None, typer.Option(help="See mirror images too; as the method says if left.")
    ] = None,
    fit: Annotated[
        str, typer.Option(help="native, or squash for models that take one size only.")
    ] = "native",
    threshold: Annotated[float, typer.Option(help="Background value of label images.")] = 0.25,
    alpha: Annotated[
        float | None, typer.Option(help="Background (1 - max)^alpha instead of --threshold.")
    ] = None,
    foreground: Annotated[float, typer.Option(help="Of affinity labels: confident above.")] = 0.30,
    background: Annotated[float, typer.Option(help="Of affinity labels: none up to.")] = 0.05,
    refine: Annotated[str | None, typer.Option(help="pamr: follow colour edges.")] = None,
    saliency: Annotated[
        Path | None, typer.Option(help="Folder of masks ID.png; disagreement is ignored.")
    ] = None,
    shard: Annotated[
        str,
        typer.Option(help="i/n: every n-th picture from the i-th on; auto: as torchrun says."),
    ] = "1/1",
    pack: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures per tar and format; a file per picture if left."),
    ] = None,
    readers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Threads that read ahead, in each process; if left 2, or 0 where the model takes "
            "all cores.",
        ),
    ] = None,
    engine: Engine = "local",
    workers: Workers = None,
    worker_cpus: WorkerCPUs = None,
    worker_gpus: WorkerGPUs = None,
    multi_label: MultiLabel = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    decode: Decode = "pillow",
    device: Device = None,
) -> None:
    """Make the seeds of a data set for weakly supervised segmentation, or go on making them.

    Repeat the command after any interruption: what is done is kept. The exit status is 0 when
    every picture is done, 1 when some failed, 2 when the job cannot be run as asked, 130 after
    Ctrl-C. With --shard auto it is 0 also when some failed, as torchrun would end the others.
    """
    import torch

    import attrib
    from attrib.cli.options import labelled_dataset
    from attrib.seeds import SeedOptions, make_seeds

    options = SeedOptions(
        scales=None if scales is None else _numbers(scales),
        flip=flip,
        fit=fit,  # type: ignore[arg-type]
        formats=tuple(name.strip() for name in formats.split(",") if name.strip()),
        threshold=threshold,
        alpha=alpha,
        foreground=foreground,
        background=background,
        refine=refine,  # type: ignore[arg-type]
        saliency=saliency,
    )
    where = engine_of(engine, readers, workers=workers, cpus=worker_cpus, gpus=worker_gpus)
    part = part_of(shard, loading_device(engine, device))
    loaded = attrib.load_model(model, weights=weights, num_classes=num_classes, device=part.device)
    loaded = loaded.to(memory_format=torch.channels_last)  # what convolutions like, CPU or GPU
    explainer = attrib.Explainer(
        loaded,
        method,
        multi_label=multi_label,
        decode=decode,  # type: ignore[arg-type]
    )
    classes = explainer.classifier.spec.labels
    data = labelled_dataset(dataset, root, split, labels, classes=classes)
    place = f"shard {part.index}/{part.count}, into {out}"
    typer.echo(f"{data.name}: {len(data)} pictures, {place}", err=True)
    report = make_seeds(
        explainer,
        data,
        out,
        options,
        shard=(part.index, part.count),
        pack=pack,
        engine=where,
        progress=None,
    )
    _print(report, out)
    raise typer.Exit(1 if report.failed and not part.launched else 0)


def _print(report: SeedReport, out: Path) -> None:
    rate = report.made / max(report.seconds, 1e-9)
    typer.echo(
        f"made {report.made}, kept {report.kept}, failed {len(report.failed)}; "
        f"{report.seconds:.1f} s, {rate:.2f} pictures/s"
    )
    for seed_id, message in list(report.failed.items())[:SHOWN]:
        typer.echo(f"  failed: {seed_id}: {message}")
    if len(report.failed) > SHOWN:
        typer.echo(f"  ... and {len(report.failed) - SHOWN} more, in {out / 'journal'}")
    if not report.complete:
        typer.echo("other shards are not done yet")


def _numbers(text: str) -> tuple[float, ...]:
    from attrib.errors import InputError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--scales takes numbers like 1,0.5,1.5, got {text!r}") from None
