"""`attrib fit aib` and `attrib fit ib-mask`: what is trained on top of a finished classifier."""

from __future__ import annotations

from typing import Annotated

import typer

from attrib.cli.options import (
    Bfloat16,
    Data,
    Device,
    Epochs,
    FirstRate,
    FitDatasetName,
    FitRoot,
    Labels,
    ModelName,
    NumClasses,
    Objective,
    Readers,
    ResultFolder,
    Seed,
    Split,
    StepSize,
    TensorBoard,
    Weights,
    labelled_dataset,
    print_terms,
    source,
)
from attrib.fit import AttentionConfig, MaskConfig

__all__ = ["aib", "ib_mask"]


def aib(
    model: ModelName,
    out: ResultFolder,
    data: Data = None,
    dataset: FitDatasetName = None,
    root: FitRoot = None,
    split: Split = None,
    labels: Labels = None,
    epochs: Epochs = AttentionConfig.epochs,
    batch_size: StepSize = AttentionConfig.batch_size,
    lr: FirstRate = AttentionConfig.lr,
    beta: Annotated[float, typer.Option(help="Price of information.")] = AttentionConfig.beta,
    objective: Objective = AttentionConfig.objective,
    lambda_q: Annotated[
        float, typer.Option(help="Price of the anchors' distance to the scores.")
    ] = AttentionConfig.lambda_q,
    lambda_c: Annotated[
        float, typer.Option(help="Price of the scores' distance to the anchors.")
    ] = AttentionConfig.lambda_c,
    units: Annotated[
        str | None, typer.Option(help="nats or bits; those of the objective if left.")
    ] = AttentionConfig.units,
    distance: Annotated[
        str, typer.Option(help="mean or sum: squared distances over the cells of a map.")
    ] = AttentionConfig.distance,
    anchors: Annotated[
        int, typer.Option(help="Values that attention is rounded to; 0 for none.")
    ] = AttentionConfig.anchors,
    anchor_ratio: Annotated[
        float, typer.Option(help="Learning rate of those values, as a multiple.")
    ] = AttentionConfig.anchor_ratio,
    layer: Annotated[
        str, typer.Option(help="Module on whose output attention sits; the feature map if left.")
    ] = AttentionConfig.layer,
    modulation: Annotated[
        str, typer.Option(help="residual: features times 1 + a; gate: features times a.")
    ] = AttentionConfig.modulation,
    seed: Seed = AttentionConfig.seed,
    readers: Readers = AttentionConfig.readers,
    weights: Weights = None,
    num_classes: NumClasses = None,
    bfloat16: Bfloat16 = False,
    tensorboard: TensorBoard = False,
    device: Device = None,
) -> None:
    """Train IB attention on top of a classifier, which stays as it is."""
    import attrib
    from attrib.fit import fit_attention
    from attrib.fit.attention import FILE

    config = AttentionConfig(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        beta=beta,
        objective=objective,  # type: ignore[arg-type]
        lambda_q=lambda_q,
        lambda_c=lambda_c,
        units=units,  # type: ignore[arg-type]
        distance=distance,  # type: ignore[arg-type]
        anchors=anchors,
        anchor_ratio=anchor_ratio,
        layer=layer,
        modulation=modulation,  # type: ignore[arg-type]
        bfloat16=bfloat16,
        seed=seed,
        readers=readers,
    )
    loaded = attrib.load_model(model, weights=weights, num_classes=num_classes, device=device)
    split_model = attrib.split(loaded)
    kind, place = source(data, dataset, root)
    train = labelled_dataset(kind, place, split, labels, classes=split_model.spec.labels)
    report = fit_attention(split_model, train, out=out, config=config, tensorboard=tensorboard)
    print_terms(report)
    typer.echo(f"""explain with --method "aib(weights='{out / FILE}')\"""")


def ib_mask(
    model: ModelName,
    out: ResultFolder,
    data: Data = None,
    dataset: FitDatasetName = None,
    root: FitRoot = None,
    split: Split = None,
    labels: Labels = None,
    epochs: Epochs = MaskConfig.epochs,
    batch_size: StepSize = MaskConfig.batch_size,
    lr: FirstRate = MaskConfig.lr,
    control: Annotated[
        str, typer.Option(help="How the price follows V: adaptive, gate or fixed.")
    ] = MaskConfig.control,
    beta: Annotated[
        float, typer.Option(help="Price of what is seen, to begin with.")
    ] = MaskConfig.beta,
    target: Annotated[
        float, typer.Option(help="Goal for V in nats; more shows more.")
    ] = MaskConfig.target,
    reads: Annotated[
        str, typer.Option(help="What the mask network reads: features or pixels.")
    ] = MaskConfig.reads,
    stride: Annotated[int, typer.Option(help="Pixels per cell of the mask.")] = MaskConfig.stride,
    width: Annotated[
        int, typer.Option(help="Channels of the mask network's first layer.")
    ] = MaskConfig.width,
    halvings: Annotated[
        int, typer.Option(help="Of the grid, reading pixels: how far a cell sees.")
    ] = MaskConfig.halvings,
    conditional: Annotated[
        bool, typer.Option("--conditional", help="A mask per class, not one for all.")
    ] = MaskConfig.conditional,
    fill: Annotated[
        str,
        typer.Option(help="What hidden pixels show: mean (the model's), data-mean or blur."),
    ] = MaskConfig.fill,
    signal: Annotated[
        str,
        typer.Option(
            help="Classes that masks keep: label or prediction, for which any pictures will do."
        ),
    ] = MaskConfig.signal,
    others: Annotated[
        float, typer.Option(help="Share of conditional masks asked for another class.")
    ] = MaskConfig.others,
    randomise: Annotated[
        bool, typer.Option(help="Show a random rectangle too.")
    ] = MaskConfig.randomise,
    variance: Annotated[float, typer.Option(help="Of a priced pixel.")] = MaskConfig.variance,
    normalised: Annotated[
        bool, typer.Option(help="Price pixels by the Gaussian's constant too.")
    ] = MaskConfig.normalised,
    seed: Seed = MaskConfig.seed,
    readers: Readers = MaskConfig.readers,
    weights: Weights = None,
    num_classes: NumClasses = None,
    bfloat16: Bfloat16 = False,
    tensorboard: TensorBoard = False,
    device: Device = None,
) -> None:
    """Train an IB mask network for a classifier, which stays as it is."""
    import attrib
    from attrib.datasets import LabelledDataset, UnlabelledFolder
    from attrib.fit import fit_mask
    from attrib.fit.mask import FILE

    config = MaskConfig(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        control=control,  # type: ignore[arg-type]
        beta=beta,
        target=target,
        reads=reads,  # type: ignore[arg-type]
        stride=stride,
        width=width,
        halvings=halvings,
        conditional=conditional,
        fill=fill,  # type: ignore[arg-type]
        signal=signal,  # type: ignore[arg-type]
        others=others,
        randomise=randomise,
        variance=variance,
        normalised=normalised,
        bfloat16=bfloat16,
        seed=seed,
        readers=readers,
    )
    loaded = attrib.load_model(model, weights=weights, num_classes=num_classes, device=device)
    need = "class_maps" if config.reads == "features" else "features"
    split_model = attrib.split(loaded, need=need)  # type: ignore[arg-type]
    kind, place = source(data, dataset, root)
    train: LabelledDataset
    if (config.signal, kind, labels) == ("prediction", "folder", None):
        train = UnlabelledFolder(place)
    else:
        train = labelled_dataset(kind, place, split, labels, classes=split_model.spec.labels)
    report = fit_mask(split_model, train, out=out, config=config, tensorboard=tensorboard)
    print_terms(report)
    typer.echo(f"""explain with --method "ib-mask(weights='{out / FILE}')\"""")
