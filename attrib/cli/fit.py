"""`attrib fit`: classifiers, attention and mask networks for them, and networks from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attrib.cli.fit_attached import aib, ib_mask
from attrib.cli.fit_network import aib_network
from attrib.cli.options import (
    Bfloat16,
    Data,
    Device,
    Epochs,
    FitDatasetName,
    FitRoot,
    Labels,
    Readers,
    Split,
    StepSize,
    TensorBoard,
    Weights,
    labelled_dataset,
    source,
)
from attrib.fit import FitConfig

__all__ = ["app"]

app = typer.Typer(help="Train models.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def classifier(
    model: Annotated[str, typer.Option("--model", "-m", help="timm name or local-dir:FOLDER.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; what is begun there goes on.")],
    data: Data = None,
    dataset: FitDatasetName = None,
    root: FitRoot = None,
    split: Split = None,
    labels: Labels = None,
    validation: Annotated[
        str | None, typer.Option(help="Part to score after each epoch, such as VOC's val.")
    ] = None,
    validation_labels: Annotated[
        Path | None, typer.Option(help="Its file of classes, if not that of --labels.")
    ] = None,
    output_stride: Annotated[
        int | None,
        typer.Option(help="8, 16 or 32 pixels per cell, where the architecture can; 16 for seeds."),
    ] = None,
    pretrained: Annotated[bool, typer.Option(help="Start from the published weights.")] = True,
    weights: Weights = None,
    epochs: Epochs = FitConfig.epochs,
    batch_size: StepSize = FitConfig.batch_size,
    lr: Annotated[
        float, typer.Option(help="First learning rate; often 0.01 or less.")
    ] = FitConfig.lr,
    head_factor: Annotated[
        float, typer.Option(help="Learning rate of the head, as a multiple.")
    ] = FitConfig.head_factor,
    weight_decay: Annotated[float, typer.Option(help="On every weight.")] = FitConfig.weight_decay,
    momentum: Annotated[
        float, typer.Option(help="Of SGD; the authors' is 1e-4.")
    ] = FitConfig.momentum,
    power: Annotated[float, typer.Option(help="Of the rate's decay.")] = FitConfig.power,
    long_side: Annotated[
        tuple[int, int], typer.Option(help="Least and greatest long side, in pixels.")
    ] = FitConfig.long_side,
    crop: Annotated[int, typer.Option(help="Side of the crops, in pixels.")] = FitConfig.crop,
    flip: Annotated[bool, typer.Option(help="Mirror every other picture.")] = FitConfig.flip,
    loss: Annotated[
        str, typer.Option(help="soft-margin, or cross-entropy for one class per picture.")
    ] = FitConfig.loss,
    seed: Annotated[int, typer.Option(help="Of order, crops and new weights.")] = FitConfig.seed,
    readers: Readers = FitConfig.readers,
    adl: Annotated[
        str,
        typer.Option(help="Attention-based dropout after modules A,B,...; default for its own."),
    ] = "",
    adl_p: Annotated[float, typer.Option(help="How often it hides cells.")] = FitConfig.adl_p,
    adl_gamma: Annotated[
        float, typer.Option(help="Hides from this fraction of the maximum; 0.9 for a ResNet.")
    ] = FitConfig.adl_gamma,
    train_norm: Annotated[
        bool, typer.Option(help="Update the running statistics of batch norm.")
    ] = FitConfig.train_norm,
    bfloat16: Bfloat16 = False,
    tensorboard: TensorBoard = False,
    device: Device = None,
) -> None:
    """Train a classifier on pictures and their classes, as IRN and RIB train theirs."""
    import torch

    from attrib.fit import fit_classifier, timm_classifier

    kind, place = source(data, dataset, root)
    train, judged = labelled_dataset(kind, place, split, labels), None
    if validation is not None or validation_labels is not None:
        judged = labelled_dataset(
            kind, place, validation, validation_labels or labels, classes=train.labels
        )
    made, model_args = timm_classifier(
        model,
        len(train.labels),
        output_stride=output_stride,
        pretrained=pretrained,
        weights=weights,
        seed=seed,
    )
    config = FitConfig(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        head_factor=head_factor,
        weight_decay=weight_decay,
        momentum=momentum,
        power=power,
        long_side=long_side,
        crop=crop,
        flip=flip,
        loss=loss,  # type: ignore[arg-type]
        seed=seed,
        readers=readers,
        bfloat16=bfloat16,
        adl=_places(made, adl),
        adl_p=adl_p,
        adl_gamma=adl_gamma,
        train_norm=train_norm,
    )
    made.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    report = fit_classifier(
        made,
        train,
        out=out,
        config=config,
        validation=judged,
        model_args=model_args,
        tensorboard=tensorboard,
    )
    _print(report)
    typer.echo(f"wrote {out}; use it as --model local-dir:{out}")


def _places(model: Any, adl: str) -> tuple[str, ...]:
    from attrib.models import adl_places

    return adl_places(model) if adl == "default" else tuple(filter(None, adl.split(",")))


def _print(report: dict[str, Any]) -> None:
    for number, epoch in enumerate(report["history"], 1):
        score = epoch.get("mean_average_precision")
        judged = "" if score is None else f"   mAP {score:.4f}"
        typer.echo(f"epoch {number:3}   loss {epoch['loss']:.4f}{judged}")
    for label, score in report["history"][-1].get("average_precision", {}).items():
        typer.echo(f"  {label:20}{'no picture' if score is None else f'{score:.4f}'}")


app.command("aib")(aib)
app.command("ib-mask")(ib_mask)
app.command("aib-network")(aib_network)
