"""Raw maps to heatmaps: resampling from the feature grid to source pixels, and normalisation.

A map covers the model input exactly. Resampling it to the source picture is linear and separable,
so it is done as two small matrix products, one matrix per axis, which undo resize, crop, padding
and flip at once, batched and on any device.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attrib.errors import InputError
from attrib.types import Frame, MapStatus, Normalize

__all__ = [
    "STATUS",
    "Resize",
    "Window",
    "covered",
    "normalize",
    "status_code",
    "status_of",
    "to_source",
    "usable",
    "window",
]

Resize = Literal["bilinear", "bicubic", "nearest"]
Window = tuple[slice, slice]
"""Rows and columns of a picture."""

STATUS: tuple[MapStatus, ...] = ("ok", "constant", "negative", "nan")
"""Every status, in the order of its number on a device."""

FLAT = 1e-6
"""A map whose range is this small against its largest magnitude is constant but for rounding."""


def to_source(
    maps: Float[Tensor, "n u v"],
    frame: Frame,
    resize: Resize = "bilinear",
    within: Window = (slice(None), slice(None)),
) -> Float[Tensor, "n _H _W"]:
    """Resample maps to the source picture, or to a window of it.

    Without crop and padding this equals `torch.nn.functional.interpolate` with
    `align_corners=False`; beyond what the model saw, the edge value is repeated.
    """
    y, x = (at[part] for at, part in zip(_axes(frame, maps.device), within, strict=True))
    rows = _weights(y * maps.shape[1] / frame.tensor[0], maps.shape[1], resize).to(maps.dtype)
    cols = _weights(x * maps.shape[2] / frame.tensor[1], maps.shape[2], resize).to(maps.dtype)
    return rows @ maps @ cols.T


def window(frame: Frame) -> Window:
    """Tell which source rows and columns the model saw; empty ones if it saw nothing."""
    return _seen(frame, 0), _seen(frame, 1)


def _seen(frame: Frame, axis: int) -> slice:
    """Search for the ends, which asks no device and takes no time."""
    size, tensor = frame.source[axis], frame.tensor[axis]
    ratio, offset = frame.resized[axis] / size, frame.offset[axis]
    mirrored = frame.flip and axis == 1  # then from -tensor, which is outside, to 0, which is not
    start = float(-tensor if mirrored else 0)
    end = bisect_right if mirrored else bisect_left

    def at(i: int) -> float:
        return (i + 0.5) * ratio - offset + start

    return slice(end(range(size), start, key=at), end(range(size), start + tensor, key=at))


def covered(frame: Frame, device: torch.device) -> Bool[Tensor, "H W"] | None:
    """Tell which source pixels the model saw; None if it saw them all."""
    rows, cols = window(frame)
    if (rows, cols) == (slice(0, frame.source[0]), slice(0, frame.source[1])):
        return None
    seen = torch.zeros(frame.source, dtype=torch.bool, device=device)
    seen[rows, cols] = True
    return seen


def _axes(frame: Frame, device: torch.device) -> tuple[Float[Tensor, " H"], Float[Tensor, " W"]]:
    """Where the centre of each source row and column lies in the model input, in its pixels."""
    axes = []
    for axis in (0, 1):
        size = frame.source[axis]
        centre = torch.arange(size, dtype=torch.float64, device=device) + 0.5
        axes.append(centre * (frame.resized[axis] / size) - frame.offset[axis])
    y, x = axes
    return y, frame.tensor[1] - x if frame.flip else x


def _weights(at: Float[Tensor, " o"], cells: int, resize: Resize) -> Float[Tensor, "o i"]:
    """Interpolation weights of `cells` cells at continuous coordinates (cell i covers [i, i+1))."""
    if resize == "nearest":
        index, weight = at.floor()[:, None], torch.ones_like(at)[:, None]
    elif resize == "bilinear":
        low = (at - 0.5).clamp(0, cells - 1)
        index = torch.stack([low.floor(), low.floor() + 1], dim=1)
        weight = 1 - (low[:, None] - index).abs()
    elif resize == "bicubic":
        low = (at - 0.5).floor()
        index = low[:, None] + torch.arange(-1, 3, device=at.device)
        weight = _cubic((at - 0.5)[:, None] - index)
    else:
        raise InputError(f"resize is 'bilinear', 'bicubic' or 'nearest', got {resize!r}")
    out = at.new_zeros(len(at), cells)
    return out.scatter_add_(1, index.clamp(0, cells - 1).long(), weight)


def _cubic(distance: Tensor, a: float = -0.75) -> Tensor:
    """Keys' cubic kernel with the slope that PyTorch and OpenCV use."""
    d = distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0))


def normalize(
    maps: Float[Tensor, "n H W"],
    how: Normalize = "minmax",
    seen: Bool[Tensor, "H W"] | None = None,
) -> tuple[Float[Tensor, "n H W"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Bring each map to [0, 1] by `(map - low) / (high - low)`.

    Args:
        maps: Finite maps.
        how: See `attrib.types.Normalize`.
        seen: Pixels that count; the rest become 0. All, if None.

    Returns:
        The normalised maps, and `low` and `high` of each. A map without a range becomes 0.
    """
    if how not in ("minmax", "max"):
        raise InputError(f"normalize is 'minmax' or 'max', got {how!r}")
    if how == "max":
        maps = maps.relu()
    low, high = _range(maps, seen)
    if how == "max":
        low = torch.zeros_like(low)
    span = torch.where(high > low, high - low, torch.inf)
    out = ((maps - low[:, None, None]) / span[:, None, None]).clamp(0, 1)
    return (out if seen is None else out * seen), low, high


def _range(
    maps: Float[Tensor, "n H W"], seen: Bool[Tensor, "H W"] | None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Least and greatest seen value of each map; zeros if none is seen. Does not wait for a GPU."""
    if not maps.numel():
        return maps.new_zeros(len(maps)), maps.new_zeros(len(maps))
    if seen is None:
        return maps.amin((1, 2)), maps.amax((1, 2))
    low = torch.where(seen, maps, torch.inf).amin((1, 2))
    high = torch.where(seen, maps, -torch.inf).amax((1, 2))
    return low.where(seen.any(), 0), high.where(seen.any(), 0)


def status_of(maps: Float[Tensor, "n u v"]) -> tuple[MapStatus, ...]:
    """Tell of each raw map whether it can be localised, and if not, why.

    `nan` not finite everywhere; `constant` no place differs from another but for rounding;
    `negative` no place speaks for the class.
    """
    return tuple(STATUS[i] for i in status_code(maps).tolist()) if len(maps) else ()


def usable(maps: Float[Tensor, "n u v"]) -> Bool[Tensor, " n"]:
    """Tell of each raw map whether it can be localised, on its device; `status_of` says why not."""
    return status_code(maps) == STATUS.index("ok")


def status_code(maps: Float[Tensor, "n u v"]) -> Int[Tensor, " n"]:
    """Tell what `status_of` tells as an index into `STATUS`, on the maps' device."""
    flat = maps.flatten(1)
    high, low = flat.amax(1), flat.amin(1)
    bad = ~flat.isfinite().all(1)
    constant = (high - low) <= FLAT * torch.maximum(high.abs(), low.abs())
    return torch.where(bad, 3, torch.where(constant, 1, torch.where(high <= 0, 2, 0)))
