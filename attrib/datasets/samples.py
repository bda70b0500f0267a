"""What every data set with located objects gives: a picture, its class, its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from attrib.errors import InputError
from attrib.images import PictureLike
from attrib.metrics import WsolBatch
from attrib.types import Frame, Normalize

__all__ = ["BoxDataset", "BoxSample", "batch_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxSample:
    """One picture with one of its classes and where the objects of that class are.

    Args:
        id: Unique in the data set.
        picture: Anything `attrib.read_image` takes.
        label: Class index.
        boxes: Half-open `x0 y0 x1 y1`, source pixels; empty if only a mask is known.
        mask: 0 background, 1 object, 255 ignored; covers the picture, at any resolution.
    """

    id: str
    picture: PictureLike
    label: int
    boxes: Float[Tensor, "m 4"]
    mask: UInt8[Tensor, "_H _W"] | None = None

    def __post_init__(self) -> None:
        ordered = self.boxes[:, :2] <= self.boxes[:, 2:]
        if not (self.boxes.isfinite().all() and ordered.all()):
            raise InputError(
                f"a box of {self.id} is finite with x0 <= x1 and y0 <= y1, "
                f"got {self.boxes.tolist()[:3]}"
            )


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


def batch_of(
    samples: Sequence[BoxSample],
    maps: Float[Tensor, "n u v"],
    frames: Sequence[Frame],
    rank: Int[Tensor, " n"] | None,
    normalize: Normalize = "minmax",
) -> WsolBatch:
    """Put maps beside what is known of their pictures."""
    return WsolBatch(
        ids=tuple(sample.id for sample in samples),
        maps=maps.detach(),
        frames=tuple(frames),
        boxes=tuple(sample.boxes for sample in samples),
        masks=tuple(sample.mask for sample in samples),
        rank=rank,
        normalize=normalize,
    )
