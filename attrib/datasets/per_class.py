"""A data set of several classes per picture, seen once per picture and class."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from attrib.datasets.labelled import IGNORE, LabelledDataset
from attrib.datasets.samples import BoxSample

__all__ = ["BoxedDataset", "PerClass"]


@runtime_checkable
class BoxedDataset(LabelledDataset, Protocol):
    """A labelled data set that has boxes too, such as `VOC` and `COCO`."""

    def boxes(self, index: int) -> dict[int, Float[Tensor, "m 4"]]:
        """Return the boxes of each class in a picture."""


class PerClass:
    """Each picture of a data set once for each class it holds, with all objects of that class.

    An id is the picture's, then `#` and the class's name.

    Args:
        dataset: Pictures with several classes and boxes.
        masks: Give the masks of the classes too.
    """

    def __init__(self, dataset: BoxedDataset, *, masks: bool = False) -> None:
        self.name, self.labels = dataset.name, dataset.labels
        self._dataset, self._masks = dataset, masks
        self._boxes = [dataset.boxes(i) for i in range(len(dataset))]
        self._pairs = [(i, label) for i, found in enumerate(self._boxes) for label in found]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> BoxSample:
        i, label = self._pairs[index]
        sample = self._dataset[i]
        return BoxSample(
            id=f"{sample.id}#{self.labels[label]}",
            picture=sample.picture,
            label=label,
            boxes=self._boxes[i][label],
            mask=_of_class(self._dataset.mask(i), label) if self._masks else None,
        )


def _of_class(mask: UInt8[Tensor, "H W"], label: int) -> UInt8[Tensor, "H W"]:
    """Turn a mask of class numbers into one of a single class, 255 as it was."""
    return torch.where(mask == IGNORE, mask, (mask == label + 1).to(torch.uint8))
