"""`attrib evaluate`: methods against ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attrib.cli import evaluate_wsol
from attrib.cli.engine import Engine, WorkerCPUs, Workers, crew_of
from attrib.cli.options import DatasetName, JsonFile, Labels, Masks, Root, Split, write_json

__all__ = ["app"]

app = typer.Typer(help="Score methods against ground truth.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


app.command("wsol")(evaluate_wsol.run)


@app.command()
def seeds(
    folder: Annotated[Path, typer.Argument(help="What `attrib seeds --out` wrote, or files.")],
    dataset: DatasetName,
    root: Root,
    split: Split = None,
    labels: Labels = None,
    masks: Masks = None,
    classes: Annotated[
        str | None,
        typer.Option(help="For folder: comma-separated names in the order of the masks' values."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--format", help="npz, irn or label; the first there if left.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="The fixed background value.")] = 0.25,
    sweep: Annotated[
        str, typer.Option(help="Background values to try: first,last,step.")
    ] = "0.05,0.70,0.01",
    ignored: Annotated[
        str, typer.Option(help="255 in label images: dropped, or scored as wrong.")
    ] = "dropped",
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out pictures without a seed.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read npy files, which can run code.")
    ] = False,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst to show.")] = 20,
    html: Annotated[Path | None, typer.Option(help="Page of the worst to write.")] = None,
    engine: Engine = "local",
    workers: Workers = None,
    worker_cpus: WorkerCPUs = None,
    json_file: JsonFile = None,
) -> None:
    """Seeds against true masks: mIoU at every background value, by class, and the worst."""
    from attrib.cli.options import labelled_dataset
    from attrib.evaluate import evaluate_seeds
    from attrib.seeds import labels_of

    names = labels_of(folder) if classes is None else tuple(classes.split(","))
    data = labelled_dataset(dataset, root, split, labels, masks, names)
    result = evaluate_seeds(
        data,
        folder,
        kind=kind,
        threshold=threshold,
        thresholds=_range(sweep),
        ignored=ignored,  # type: ignore[arg-type]
        skip_missing=skip_missing,
        allow_pickle=allow_pickle,
        worst=worst,
        html=html,
        engine=crew_of(engine, workers=workers, cpus=worker_cpus),
        progress=None,
    )
    _print_seeds(result)
    write_json(result, json_file)
    if html is not None:
        typer.echo(f"wrote {html}")


def _print_seeds(result: dict[str, Any]) -> None:
    typer.echo(
        f"{result['dataset']}: {result['pictures']} pictures scored, {result['missing']} missing; "
        f"{result['format']}, 255 in seeds {result['ignored']}"
    )
    columns = [name for name in ("fixed", "oracle") if name in result]
    heads = {"fixed": "fixed background", "oracle": "oracle background"}
    for name in columns:
        scores, at = result[name], result[name]["threshold"]
        title = "label images" if at is None else f"{heads[name]} {at:g}"
        typer.echo(
            f"{title:24} mIoU {scores['miou']:.2f}  precision {scores['precision']:.2f}  "
            f"recall {scores['recall']:.2f}"
        )
    table = result[columns[-1]]["classes"]
    typer.echo(f"\n{'class':16}{'IoU':>8}{'precision':>11}{'recall':>8}")
    for name, row in table.items():
        values = ("-" if x is None else f"{x:.1f}" for x in row.values())
        typer.echo("{:16}{:>8}{:>11}{:>8}".format(name[:15], *values))


def _range(text: str) -> tuple[float, ...]:
    from attrib.errors import InputError

    try:
        first, last, step = (float(part) for part in text.split(","))
        count = round((last - first) / step) + 1
    except (ValueError, ZeroDivisionError):
        count = 0
    if not 1 <= count <= 10_000:
        raise InputError(f"--sweep takes first,last,step such as 0.05,0.70,0.01, got {text!r}")
    return tuple(round(first + i * step, 10) for i in range(count))
