"""Other pictures for RIB, taken from a data set."""

from __future__ import annotations

import torch

from attrib.datasets.crops import random_crop
from attrib.datasets.labelled import LabelledDataset
from attrib.errors import InputError
from attrib.images import read_image
from attrib.methods.rib import Pool, RIBOptions
from attrib.models import SpatialClassifier

__all__ = ["pool_of"]


def pool_of(
    dataset: LabelledDataset,
    classifier: SpatialClassifier,
    options: RIBOptions,
    *,
    expected: bool = False,
) -> Pool:
    """Take some of a data set's pictures, in random order, as others for RIB.

    Each is cropped at random once, as classifiers for seeds are trained. Pictures without a class
    or that cannot be read are left out.

    Args:
        dataset: Pictures with classes.
        classifier: The model that the crops are for.
        options: How many, how large, and the seed.
        expected: See `Pool`.

    Raises:
        InputError: no picture is left.
    """
    generator = torch.Generator().manual_seed(options.seed)
    long_side = (min(options.pool_long_side), max(options.pool_long_side))
    crops, rows = [], []
    for index in torch.randperm(len(dataset), generator=generator).tolist():
        sample = dataset[index]
        if not sample.labels:
            continue
        try:
            picture = read_image(sample.picture)
        except InputError:
            continue
        crops.append(random_crop(picture, classifier.spec, options.pool_size, long_side, generator))
        rows.append(sample.labels)
        if len(crops) == options.pool_pictures:
            break
    if not crops:
        raise InputError(f"{dataset.name} has no readable picture with a class for the pool")
    labels = torch.zeros(len(rows), classifier.num_classes, dtype=torch.bool)
    for row, classes in enumerate(rows):
        labels[row, list(classes)] = True
    return Pool(images=torch.stack(crops), labels=labels, expected=expected)
