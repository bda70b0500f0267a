"""What every protocol of weakly supervised localisation is fed, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from attrib.errors import InputError
from attrib.localize import covered, normalize, to_source
from attrib.localize.heatmap import Resize
from attrib.types import Frame, Normalize

__all__ = [
    "ResumableProtocol",
    "WsolBatch",
    "WsolProtocol",
    "need_boxes",
    "rank_of",
    "score_maps",
    "square_boxes",
    "square_masks",
]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class WsolBatch:
    """Maps of the labelled objects of some pictures, and where those objects are.

    Args:
        ids: Of the pictures, for messages.
        maps: Raw, one per picture, of its true class.
        frames: One per picture.
        boxes: Per picture, its true boxes: half-open `x0 y0 x1 y1`, source pixels; may be empty
            where there is a mask.
        masks: Per picture, its true mask, or None: 0 background, 1 object, 255 ignored. It covers
            the source picture, at any resolution.
        rank: How many classes the model finds more likely than the true one; None if unknown.
        normalize: How the maps are brought to [0, 1].
    """

    ids: tuple[str, ...]
    maps: Float[Tensor, "n u v"]
    frames: tuple[Frame, ...]
    boxes: tuple[Float[Tensor, "_m 4"], ...]
    masks: tuple[UInt8[Tensor, "_H _W"] | None, ...]
    rank: Int[Tensor, " n"] | None = None
    normalize: Normalize = "minmax"
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = {len(x) for x in (self.ids, self.maps, self.frames, self.boxes, self.masks)}
        if len(sizes) > 1 or (self.rank is not None and len(self.rank) not in sizes):
            raise InputError(f"a WsolBatch has one of each per picture, got {sorted(sizes)}")
        if not self.ids or len({frame.tensor for frame in self.frames}) > 1:
            raise InputError("a WsolBatch has one picture or more, all of one model input size")
        bad = (~self.maps.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        if bad:
            raise InputError(
                f"the map of picture {self.ids[bad[0]]} holds NaN or infinity; such a map has no "
                "score: look for the model's or the method's overflow"
            )

    def within(self, top: int) -> Bool[Tensor, " n"] | None:
        """Tell where the true class is among the `top` most likely; None if unknown."""
        return None if self.rank is None else self.rank < top

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Make what several protocols ask of a batch for the first of them; others share it.

        Args:
            key: Says what is made, with all options. What it stands for is not to be changed.
            make: Makes it.
        """
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made


@runtime_checkable
class WsolProtocol(Protocol):
    """A named way to score maps against objects. Fed batch by batch, it gives its figures."""

    @property
    def name(self) -> str:
        """As on the command line."""

    def update(self, batch: WsolBatch) -> object:
        """Score one batch.

        Raises:
            InputError: a picture lacks the boxes or the mask that the protocol needs.
        """

    def result(self, validation: Any = None) -> dict[str, Any]:
        """Return the figures so far.

        Args:
            validation: The same protocol, fed with other pictures, to choose thresholds by.
        """


@runtime_checkable
class ResumableProtocol(WsolProtocol, Protocol):
    """A protocol whose counts can be kept in a file, and added up; also a dataclass of options."""

    def add(self, other: Any) -> None:
        """Add what the same protocol counted on other pictures."""

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted so far, as plain JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count what `state_dict` of the same protocol returned, and nothing else."""


def rank_of(logits: Float[Tensor, "b c"], label: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Count the classes that are more likely; of equals the one of lower index is."""
    own = logits.gather(1, label[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < label[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(1)


def need_boxes(batch: WsolBatch, protocol: str) -> None:
    """Raise `InputError` if a picture has no true box."""
    for name, boxes in zip(batch.ids, batch.boxes, strict=True):
        if not len(boxes):
            raise InputError(f"{protocol} scores boxes, and picture {name} has none")


def score_maps(
    batch: WsolBatch, size: int = 224, resize: Resize = "bicubic"
) -> Float[Tensor, "n size size"]:
    """Bring raw maps to the whole picture squashed to a square, each to [0, 1] as the batch says.

    In double precision. What the model did not see of a picture is 0, and so is a constant map.
    Made once per batch; not to be written to.
    """
    return batch.once(("score maps", size, resize), lambda: _score_maps(batch, size, resize))


def _score_maps(batch: WsolBatch, size: int, resize: Resize) -> Float[Tensor, "n size size"]:
    groups: dict[Frame, list[int]] = {}
    for row, frame in enumerate(batch.frames):
        groups.setdefault(replace(frame, source=(size, size), orientation=1), []).append(row)
    out = torch.zeros(len(batch.maps), size, size, dtype=torch.float64, device=batch.maps.device)
    for frame, rows in groups.items():
        planes = to_source(batch.maps[rows].detach().double(), frame, resize)
        out[rows] = normalize(planes, batch.normalize, covered(frame, planes.device))[0]
    return out


def square_boxes(
    boxes: Float[Tensor, "m 4"], source: tuple[int, int], size: int
) -> Float[Tensor, "m 4"]:
    """Scale boxes from a source picture to the square and cut their fractions off."""
    height, width = source
    sides = torch.tensor([width, height, width, height], dtype=torch.float64, device=boxes.device)
    return (boxes.double() * size / sides).trunc()


def square_masks(
    masks: Sequence[UInt8[Tensor, "_H _W"]], size: int, device: torch.device
) -> UInt8[Tensor, "n size size"]:
    """Bring masks to the square by nearest pixels, as OpenCV's `INTER_NEAREST` does."""
    rows = [mask[_nearest(mask, 0, size)] for mask in masks]
    return torch.stack([mask[:, _nearest(mask, 1, size)] for mask in rows]).to(device)


def _nearest(mask: Tensor, axis: int, size: int) -> Int[Tensor, " size"]:
    side = mask.shape[axis]
    at = torch.arange(size, dtype=torch.float64, device=mask.device) * (1 / (size / side))
    return at.floor().long().clamp(max=side - 1)
