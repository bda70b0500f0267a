"""What is alike wherever something is trained on top of a classifier that stays as it is."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib import surgery
from attrib.datasets.labelled import LabelledDataset, LabelledSample, digest
from attrib.errors import InputError
from attrib.fit.loading import ahead, batches, generator_of, labelled_samples, multi_hot
from attrib.images import preprocess, read_image
from attrib.models import SpatialClassifier, identity
from attrib.targets import check_labels

__all__ = ["bare_samples", "fitting_samples", "follow_cosine", "mirrored_batches", "settings_of"]


def fitting_samples(classifier: SpatialClassifier, train: LabelledDataset) -> list[LabelledSample]:
    """List the pictures, once it is clear that their classes are the classifier's.

    Raises:
        InputError: other classes than the model's or more of them, or a picture without exactly
            one class for a model whose classes exclude each other.
    """
    check_labels(classifier, train.name, train.labels)
    return labelled_samples(train, exclusive=not classifier.spec.multi_label)


def bare_samples(train: LabelledDataset) -> list[LabelledSample]:
    """List the pictures without the classes that they may have.

    Raises:
        InputError: there are none.
    """
    samples = [replace(train[i], labels=()) for i in range(len(train))]
    if not samples:
        raise InputError(f"{train.name} has no pictures to learn from")
    return samples


def settings_of(
    schema: str,
    classifier: SpatialClassifier,
    train: LabelledDataset,
    samples: list[LabelledSample],
    config: Any,
) -> dict[str, Any]:
    """Say all that decides a training's outcome."""
    return {
        "schema": schema,
        **identity(classifier),
        "dataset": train.name,
        "digest": digest(samples),
        "config": asdict(config),
    }


def mirrored_batches(
    classifier: SpatialClassifier,
    samples: list[LabelledSample],
    *,
    batch_size: int,
    flip: bool,
    seed: int,
    epoch: int,
    readers: int,
) -> Generator[tuple[Float[Tensor, "b _ h w"], Bool[Tensor, "b c"]], None, None]:
    """Give an epoch's pictures, with `flip` every other one mirrored, and the classes of each.

    Everything follows from seed and epoch; `readers` threads read ahead and change nothing.
    """
    generator = generator_of(seed, epoch)
    order = batches(len(samples), batch_size, generator)
    read = ahead(lambda i: read_image(samples[i].picture), order, readers)
    with closing(read) as pictures:
        for index, batch in zip(order, pictures, strict=True):
            images, _ = preprocess(
                batch,
                classifier.spec,
                device=classifier.device,
                dtype=surgery.dtype_of(classifier.model),
            )
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            if flip:
                images[mirrored] = images[mirrored].flip(3)
            labels = multi_hot([samples[i] for i in index], classifier.num_classes)
            yield images, labels.to(images.device)


def follow_cosine(optimizer: torch.optim.Optimizer, lr: float, step: int, steps: int) -> None:
    """Let the rate, times a group's `lr_ratio`, fall to nothing along half a cosine."""
    for group in optimizer.param_groups:
        first = lr * group.get("lr_ratio", 1.0)
        group["lr"] = first * 0.5 * (1 + math.cos(math.pi * step / steps))
