"""What every data set with boxes gives: a picture, its class, its objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from attrib.images import PictureLike

__all__ = ["BoxDataset", "BoxSample"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxSample:
    """One picture with its class and the boxes of its objects.

    Args:
        id: Unique in the data set.
        picture: Anything `attrib.read_image` takes.
        label: Class index.
        boxes: Half-open `x0 y0 x1 y1`, source pixels.
    """

    id: str
    picture: PictureLike
    label: int
    boxes: Float[Tensor, "m 4"]


@runtime_checkable
class BoxDataset(Protocol):
    """A sequence of `BoxSample`s with a name and label names."""

    @property
    def name(self) -> str:
        """For reports."""

    @property
    def labels(self) -> tuple[str, ...]:
        """One per class index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> BoxSample: ...
