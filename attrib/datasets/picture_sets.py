"""Pictures of one size with one class each, read by their indices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.datasets.labelled import LabelledDataset, digest
from attrib.errors import InputError
from attrib.images import preprocess, read_image
from attrib.types import ModelSpec

__all__ = ["SAME_CLASS", "InMemory", "PictureSet", "Squashed", "matched", "resized"]

SAME_CLASS = {"car": "automobile"}
"""What STL-10 calls a class, and what CIFAR-10 does."""
SAMPLE = 4096
"""So many pictures, spread evenly, tell the mean and deviation of all."""


@runtime_checkable
class PictureSet(Protocol):
    """Pictures of one size, each of one class, that are read by their indices."""

    @property
    def name(self) -> str:
        """For reports, with the split."""

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per class index."""

    @property
    def classes(self) -> Int[Tensor, " m"]:
        """Class index of each picture."""

    @property
    def spec(self) -> ModelSpec:
        """Size, mean and deviation of the pictures, and the labels."""

    @property
    def digest(self) -> str:
        """16 hex digits that change when the pictures or classes do."""

    def __len__(self) -> int: ...

    def read(self, index: Sequence[int]) -> UInt8[Tensor, "b 3 h w"]:
        """Return pictures as they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InMemory:
    """A `PictureSet` whose pixels are held in memory.

    Args:
        name: For reports, with the split.
        labels: One name per class index.
        pixels: RGB.
        classes: Class index of each picture.

    Raises:
        InputError: no pictures, or classes that are not one index per picture.
    """

    name: str
    labels: tuple[str, ...]
    pixels: UInt8[Tensor, "m 3 h w"]
    classes: Int[Tensor, " m"]

    def __post_init__(self) -> None:
        found, classes = len(self.pixels), self.classes
        if not found or len(classes) != found:
            raise InputError(f"{self.name} has {found} pictures and {len(classes)} classes")
        if not 0 <= int(classes.min()) <= int(classes.max()) < len(self.labels):
            raise InputError(
                f"classes of {self.name} are 0 to {len(self.labels) - 1}, got "
                f"{int(classes.min())} to {int(classes.max())}"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: Sequence[int]) -> UInt8[Tensor, "b 3 h w"]:
        """Return pictures as they are."""
        return self.pixels[torch.as_tensor(index)]

    @cached_property
    def spec(self) -> ModelSpec:
        """Size, labels, and mean and deviation per channel of all pixels, or of many pictures'."""
        step = -(-len(self.pixels) // SAMPLE)
        values = self.pixels[::step].double() / 255
        std, mean = torch.std_mean(values, (0, 2, 3))
        return ModelSpec(
            name=self.name,
            input_size=(self.pixels.shape[2], self.pixels.shape[3]),
            mean=tuple(round(m, 4) for m in mean.tolist()),
            std=tuple(max(round(s, 4), 1e-4) for s in std.tolist()),
            fit="squash",
            labels=self.labels,
        )

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change when the pictures or classes do."""
        found = hashlib.sha256(self.pixels.cpu().contiguous().numpy().tobytes())
        found.update(self.classes.cpu().long().numpy().tobytes())
        return found.hexdigest()[:16]


class Squashed:
    """A `PictureSet` of any pictures with one class each, resized as they are read.

    Both sides are resized independently. Mean and deviation are ImageNet's.

    Args:
        dataset: Whose pictures have exactly one class each.
        size: `(h, w)` in pixels.

    Raises:
        InputError: a picture with another number of classes.
    """

    def __init__(self, dataset: LabelledDataset, size: tuple[int, int]) -> None:
        samples = [dataset[i] for i in range(len(dataset))]
        other = [s.id for s in samples if len(s.labels) != 1]
        if other or not samples:
            which = f"{other[0]!r} has another number" if other else "there are none"
            raise InputError(f"pictures of {dataset.name} need one class each; {which}")
        self.name, self.labels = dataset.name, tuple(dataset.labels)
        self.classes = torch.tensor([s.labels[0] for s in samples])
        self.spec = ModelSpec(name=self.name, input_size=size, fit="squash", labels=self.labels)
        self.digest = digest(samples)
        self._plain = ModelSpec(
            input_size=size, fit="squash", mean=(0.0,) * 3, std=(1 / 255,) * 3, crop=1.0
        )
        self._paths = [s.picture for s in samples]

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: Sequence[int]) -> UInt8[Tensor, "b 3 h w"]:
        """Read and resize pictures."""
        pictures = [read_image(self._paths[i]) for i in index]
        values, _ = preprocess(pictures, self._plain)
        return values.round().clamp(0, 255).to(torch.uint8)


def matched(
    pictures: InMemory, labels: Sequence[str], same: Mapping[str, str] = SAME_CLASS
) -> InMemory:
    """Keep the pictures whose class is among other labels, and number them as those.

    So a network trained on CIFAR-10 is tested on the 9 of STL-10's classes that it knows.

    Args:
        pictures: To choose from.
        labels: The network's.
        same: Other names for them.

    Raises:
        InputError: no class is among them.
    """
    names = [same.get(label, label) for label in pictures.labels]
    new = torch.tensor([labels.index(n) if n in labels else -1 for n in names])[pictures.classes]
    kept = new >= 0
    if not bool(kept.any()):
        raise InputError(f"none of {pictures.labels} is among {tuple(labels)}")
    return InMemory(
        name=pictures.name,
        labels=tuple(labels),
        pixels=pictures.pixels[kept],
        classes=new[kept],
    )


def resized(pictures: InMemory, size: tuple[int, int]) -> InMemory:
    """Resize both sides of pictures independently, bilinear and antialiased, to 8 bits again.

    Args:
        pictures: Of any size.
        size: `(h, w)` in pixels.
    """
    parts = [
        F.interpolate(part.float(), size, mode="bilinear", antialias=True)
        for part in pictures.pixels.split(SAMPLE)
    ]
    pixels = torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])
    return replace(pictures, pixels=pixels)
