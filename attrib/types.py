"""The nouns that are plain values: what travels between a picture and its explanation.

Axes are named alike everywhere: `b` images, `n` (image, class) pairs, `c` classes, `k` channels,
`H W` source picture, `h w` model input, `u v` feature grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attrib.errors import InputError, TargetError
from attrib.transfer import to_host

__all__ = [
    "Attribution",
    "Fit",
    "Frame",
    "Localization",
    "MapStatus",
    "ModelSpec",
    "TargetRule",
    "Targets",
]

Fit = Literal["crop", "squash", "pad"]
"""How a picture is brought to the model's input size: resize the short side and cut the middle
(`crop`), resize both sides independently (`squash`), or resize the long side and fill (`pad`)."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What travels with a model's weights: how to feed it and what its outputs are called.

    Args:
        name: For people and for provenance.
        input_size: `(h, w)` in pixels.
        mean: Per channel, on a scale where white is 1.
        std: Per channel, on the same scale.
        fit: How a picture is brought to `input_size`.
        crop: Fraction of the resized picture that `fit="crop"` keeps, in (0, 1].
        interpolation: `"bilinear"`, `"bicubic"` or `"nearest"`; antialiased but for the last.
        labels: One name per class, or empty if unknown.
        multi_label: True when outputs are independent (sigmoid), not exclusive (softmax).
    """

    name: str = "model"
    input_size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    fit: Fit = "crop"
    crop: float = 0.875
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    labels: tuple[str, ...] = ()
    multi_label: bool = False

    def __post_init__(self) -> None:
        if min(self.input_size) < 1:
            raise InputError(f"input_size must be positive (h, w), got {self.input_size}")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise InputError(f"mean {self.mean} and std {self.std} must match, std positive")
        if not 0 < self.crop <= 1:
            raise InputError(f"crop is a fraction in (0, 1], got {self.crop}")

    def label_of(self, index: int) -> str:
        """Name a class; its index as text where the model has no name for it."""
        return self.labels[index] if index < len(self.labels) else str(index)

    def probabilities(self, logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Softmax, or sigmoid for a multi-label model, in float32 at least."""
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return exact.sigmoid() if self.multi_label else exact.softmax(-1)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the pixels of one model input lie in their source picture.

    The source (`H x W`, upright) was resized to `resized`, then a window of `tensor` size whose
    top left corner is at `offset` was cut out of it (a negative offset is padding), then mirrored
    left-right if `flip`. Coordinates are continuous, with pixel `i` covering `[i, i + 1)`.

    Args:
        source: `(H, W)` of the upright source picture.
        resized: `(h', w')` after resizing.
        offset: `(top, left)` of the window in the resized picture.
        tensor: `(h, w)` of the model input.
        flip: Mirrored left-right, last.
        orientation: EXIF orientation (1 to 8) that was undone to make the source upright.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int] = (0, 0)
    tensor: tuple[int, int]
    flip: bool = False
    orientation: int = 1

    def __post_init__(self) -> None:
        if min(*self.source, *self.resized, *self.tensor) < 1:
            raise InputError(f"a Frame needs positive sizes, got {self}")
        if self.orientation not in range(1, 9):
            raise InputError(f"EXIF orientation is 1 to 8, got {self.orientation}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Which class to explain on which image: `n` pairs over a batch.

    An image can have many classes or none. Calling the object with logits checks the pairs against
    them and returns them, so that fixed targets and rules such as `argmax` are used alike.

    Args:
        image: Index of the image in the batch, ascending.
        label: Index of the class.
    """

    image: Int[Tensor, " n"]
    label: Int[Tensor, " n"]

    def __post_init__(self) -> None:
        if self.image.shape != self.label.shape or self.image.ndim != 1:
            raise TargetError(
                "targets are two index vectors of equal length, "
                f"got {tuple(self.image.shape)} and {tuple(self.label.shape)}"
            )

    def __len__(self) -> int:
        return self.image.shape[0]

    def __call__(self, logits: Float[Tensor, "b c"]) -> Targets:
        """Check the pairs against a batch of logits and bring them to its device.

        Raises:
            TargetError: an image or a class outside the batch, or images out of order.
        """
        if len(self):
            image, label = (index.tolist() for index in to_host(self.image, self.label))
            _check_range("image", image, logits.shape[0])
            _check_range("class", label, logits.shape[1])
            if any(after < before for before, after in pairwise(image)):
                raise TargetError("the images of targets are in ascending order; sort the pairs")
        device, ahead = logits.device, logits.is_cuda  # the copies are queued, not awaited
        if self.image.device == self.label.device == device:
            return self
        return Targets(
            image=self.image.to(device, non_blocking=ahead),
            label=self.label.to(device, non_blocking=ahead),
        )


def _check_range(what: str, index: list[int], size: int) -> None:
    low, high = min(index), max(index)
    if low < 0 or high >= size:
        bad = low if low < 0 else high
        raise TargetError(f"{what} {bad} is out of range; there are {size}, numbered from 0")


TargetRule = Callable[[Tensor], Targets]
"""Chooses targets once the logits are known: a `Targets` itself, or e.g. the argmax."""


Normalize = Literal["minmax", "max"]
"""`minmax` maps the range of a map to [0, 1]; `max` cuts negative values off first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """Raw maps, as a method made them: signed, not normalised, on the feature grid.

    Args:
        maps: One map per (image, class) pair.
        targets: The pairs.
        logits: Of the whole batch.
        method: The spec that made the maps, e.g. `"infocam(region=4)"`.
        unit: What a map value measures: `"logits"`, `"bits"`, ...
        exact: The maps follow the method's equation; False on heads where it is approximated.
        input_size: `(h, w)` of the model input the grid covers.
        frames: One per image, where the input lies in its source picture; empty for bare tensors.
        normalize: How the maps are brought to [0, 1], unless a user says otherwise: `"max"` where
            0 says that a place does nothing, so that only what speaks for the class is localised.
    """

    maps: Float[Tensor, "n u v"]
    targets: Targets
    logits: Float[Tensor, "b c"]
    method: str
    unit: str
    exact: bool
    input_size: tuple[int, int]
    frames: tuple[Frame, ...] = ()
    normalize: Normalize = "minmax"

    def __post_init__(self) -> None:
        if len(self.maps) != len(self.targets):
            raise InputError(f"{len(self.maps)} maps for {len(self.targets)} targets")
        if self.frames and len(self.frames) != len(self.logits):
            raise InputError(f"{len(self.frames)} frames for {len(self.logits)} images")


MapStatus = Literal["ok", "constant", "negative", "nan"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Localization:
    """Heatmaps, masks and boxes in source pixels, for `n` maps and `t` thresholds.

    A map without a usable maximum has a status other than `"ok"`, an empty mask and no box row.

    Args:
        heatmaps: Per map, in [0, 1], at the source picture's size.
        masks: Per map and threshold, the kept component.
        boxes: Half-open `x0 y0 x1 y1`, source pixels, one row per box found.
        map_index: Which map a box row belongs to.
        threshold_index: Which threshold a box row belongs to.
        areas: Pixels in the box's component.
        thresholds: Heatmap value at and above which a pixel was kept, per map and threshold.
        status: Per map, `"ok"` or why there is nothing to localise.
    """

    heatmaps: tuple[Float[Tensor, "_H _W"], ...]
    masks: tuple[Bool[Tensor, "t _H _W"], ...]
    boxes: Int[Tensor, "m 4"]
    map_index: Int[Tensor, " m"]
    threshold_index: Int[Tensor, " m"]
    areas: Int[Tensor, " m"]
    thresholds: Float[Tensor, "n t"]
    status: tuple[MapStatus, ...]

    def __post_init__(self) -> None:
        if not len(self.heatmaps) == len(self.masks) == len(self.status) == len(self.thresholds):
            raise InputError("a Localization has one heatmap, mask stack and status per map")
