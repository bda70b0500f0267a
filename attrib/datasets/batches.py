"""Pictures of a data set or a folder, as a classifier wants them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from attrib import surgery
from attrib.datasets.folder import UnlabelledFolder
from attrib.datasets.labelled import LabelledDataset
from attrib.errors import InputError
from attrib.images import preprocess, read_image
from attrib.models import SpatialClassifier

__all__ = ["mean_colour", "picture_batches"]


def picture_batches(
    classifier: SpatialClassifier, pictures: str | Path | LabelledDataset, batch_size: int = 16
) -> Iterator[Float[Tensor, "_b _ h w"]]:
    """Read pictures for a classifier, batch by batch in their order; classes play no part.

    Args:
        classifier: Whose `spec` says how they are fed, on whose device and in whose type they come.
        pictures: A data set, or a folder, shards or a URL as for `UnlabelledFolder`.
        batch_size: Pictures per batch; the last may have fewer.

    Raises:
        InputError: less than one picture per batch, or no pictures or one that cannot be read.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is 1 or more, got {batch_size}")
    data = UnlabelledFolder(pictures) if isinstance(pictures, str | Path) else pictures
    starts = range(0, len(data), batch_size)
    return (_batch(classifier, data, range(i, min(i + batch_size, len(data)))) for i in starts)


def _batch(
    classifier: SpatialClassifier, data: LabelledDataset, index: range
) -> Float[Tensor, "_b _ h w"]:
    images, _ = preprocess(
        [read_image(data[i].picture) for i in index],
        classifier.spec,
        device=classifier.device,
        dtype=surgery.dtype_of(classifier.model),
    )
    return images


def mean_colour(
    classifier: SpatialClassifier, pictures: str | Path | LabelledDataset
) -> Float[Tensor, " k"]:
    """Return the mean of each channel over all pixels that the classifier is fed, in [0, 1].

    Args:
        classifier: As for `picture_batches`.
        pictures: Likewise.

    Raises:
        InputError: no pictures, or one that cannot be read.
    """
    spec, count, total = classifier.spec, 0, torch.zeros(len(classifier.spec.mean)).double()
    for images in picture_batches(classifier, pictures):
        count, total = count + len(images), total + images.double().mean((2, 3)).sum(0).cpu()
    if not count:
        raise InputError("the mean colour of no pictures; give one or more")
    std, mean = (torch.tensor(values).double() for values in (spec.std, spec.mean))
    return (total / count * std + mean).float()
