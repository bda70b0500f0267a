"""`attrib fit aib-network`: the AIB paper's networks from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attrib.cli.options import (
    Bfloat16,
    Device,
    Epochs,
    FitRoot,
    Objective,
    Readers,
    Seed,
    StepSize,
    TensorBoard,
    print_terms,
    source,
)
from attrib.fit import NetworkConfig

__all__ = ["aib_network"]


def aib_network(
    out: Annotated[Path, typer.Option(help="Folder for the network; what is begun there goes on.")],
    data: Annotated[
        str | None,
        typer.Option(help="Folder or zip of SPLIT/CLASS/NAME: short for --dataset splits --root."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="cifar10, cifar100, svhn, stl10, cub, or splits: SPLIT/CLASS/NAME."),
    ] = None,
    root: FitRoot = None,
    network: Annotated[
        str, typer.Option(help="vgg32, wrn28_10 or cub_vgg16.")
    ] = NetworkConfig.network,
    variant: Annotated[
        str, typer.Option(help="plain, dvib (no attention), aib, or aib-qt (rounded attention).")
    ] = NetworkConfig.variant,
    width: Annotated[
        float, typer.Option(help="Factor on the channels; 1 as published.")
    ] = NetworkConfig.width,
    latent: Annotated[
        int | None, typer.Option(help="Length of the latent vector; as published if left.")
    ] = NetworkConfig.latent,
    anchors: Annotated[
        int | None, typer.Option(help="Of aib-qt; as published if left.")
    ] = NetworkConfig.anchors,
    features: Annotated[
        Path | None, typer.Option(help="Weights of features to begin with, such as VGG-16's.")
    ] = None,
    split: Annotated[str, typer.Option(help="To learn from.")] = "train",
    test: Annotated[str, typer.Option(help="To test with; none if empty.")] = "test",
    epochs: Epochs = NetworkConfig.epochs,
    batch_size: StepSize = NetworkConfig.batch_size,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; the recipe's if left.")
    ] = NetworkConfig.lr,
    beta: Annotated[float, typer.Option(help="Price of information.")] = NetworkConfig.beta,
    objective: Objective = NetworkConfig.objective,
    test_samples: Annotated[
        tuple[int, int], typer.Option(help="Attention maps per picture, latent vectors per map.")
    ] = NetworkConfig.test_samples,
    seed: Seed = NetworkConfig.seed,
    readers: Readers = NetworkConfig.readers,
    bfloat16: Bfloat16 = False,
    tensorboard: TensorBoard = False,
    device: Device = None,
) -> None:
    """Train a network of the AIB paper from scratch, with attention or without."""
    import torch

    from attrib.bottleneck.aib_classifier import PREFIX
    from attrib.datasets import picture_set
    from attrib.fit import fit_network
    from attrib.fit.networks import NETWORK

    config = NetworkConfig(
        network=network,  # type: ignore[arg-type]
        variant=variant,  # type: ignore[arg-type]
        width=width,
        latent=latent,
        anchors=anchors,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        beta=beta,
        objective=objective,  # type: ignore[arg-type]
        test_samples=test_samples,
        bfloat16=bfloat16 or None,
        seed=seed,
        readers=readers,
    )
    kind, place = source(data, dataset, root, folder="splits")
    _, report = fit_network(
        picture_set(kind, place, split),
        out=out,
        config=config,
        test=picture_set(kind, place, test) if test else None,
        features=features,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        tensorboard=tensorboard,
    )
    print_terms(report)
    if report["error"] is not None:
        typer.echo(f"top-1 error {report['error']:.2f} %")
    typer.echo(f"wrote {out}; use it as --model {PREFIX}{out / NETWORK}")
