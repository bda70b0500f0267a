"""How a model lays its features out in memory, and the way to `[b, k, u, v]` and back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import SplitError

__all__ = ["Layout", "Levels", "Raw", "detect", "grid_shape"]

Raw = Tensor | list[Tensor] | tuple[Tensor, ...]
"""What a trunk returns: a feature map, a token sequence, or several of them."""

MAX_PREFIX = 16


@dataclass(frozen=True)
class Layout:
    """One feature map: channels first, channels last, or a sequence behind prefix tokens."""

    kind: Literal["nchw", "nhwc", "tokens"]
    prefix: int = 0

    def channels(self, raw: Tensor) -> int:
        """Return `k`."""
        return raw.shape[1 if self.kind == "nchw" else -1]

    def grid(self, raw: Tensor, input_size: tuple[int, int]) -> Float[Tensor, "b k u v"]:
        """Rearrange raw features to `[b, k, u, v]`, without prefix tokens."""
        if self.kind == "nchw":
            return raw
        if self.kind == "tokens":
            u, v = grid_shape(raw.shape[1] - self.prefix, input_size)
            raw = raw[:, self.prefix :].unflatten(1, (u, v))
        return raw.permute(0, 3, 1, 2)

    def constant(self, vectors: Float[Tensor, "m k"]) -> Tensor:
        """Make raw features whose every cell and token is the given vector."""
        if self.kind == "nchw":
            return vectors[:, :, None, None]
        if self.kind == "nhwc":
            return vectors[:, None, None, :]
        return vectors[:, None, :].expand(-1, self.prefix + 1, -1)


@dataclass(frozen=True)
class Levels:
    """Several feature maps side by side, as multi-scale transformers keep them.

    The grid has all their channels, brought to the size of the first.
    """

    levels: tuple[Layout, ...]
    widths: tuple[int, ...]

    def grid(self, raw: Raw, input_size: tuple[int, int]) -> Float[Tensor, "b k u v"]:
        """Rearrange each level, resize it bilinearly to the first, and stack the channels."""
        grids = [x.grid(part, input_size) for x, part in zip(self.levels, raw, strict=True)]
        size = grids[0].shape[2:]
        return torch.cat([F.interpolate(g, size=size, mode="bilinear") for g in grids], dim=1)

    def constant(self, vectors: Float[Tensor, "m k"]) -> list[Tensor]:
        """Make raw features of each level from its part of the vector."""
        parts = vectors.split(self.widths, dim=1)
        return [x.constant(part) for x, part in zip(self.levels, parts, strict=True)]


def _is_grid(u: int, v: int, input_size: tuple[int, int]) -> bool:
    """Tell whether cells are square to within one cell: strides round, they do not stretch."""
    h, w = input_size
    return u * v > 1 and u <= h and v <= w and abs(u * w - v * h) < max(h, w)


def grid_shape(cells: int, input_size: tuple[int, int]) -> tuple[int, int]:
    """Return the grid `(u, v)` of so many square cells over an input `(h, w)`.

    Raises:
        SplitError: there is none.
    """
    for u in range(1, cells + 1):
        if cells % u == 0 and _is_grid(u, cells // u, input_size):
            return u, cells // u
    raise SplitError(f"{cells} cells form no grid over a {input_size} input")


def detect(raw: object, input_size: tuple[int, int], prefix: int | None = None) -> Layout | None:
    """Tell how a tensor lays a grid over the input, or None if it does not.

    Args:
        raw: `[b, k, u, v]`, `[b, u, v, k]` or `[b, prefix + u v, k]`.
        input_size: `(h, w)` of the picture it was made from.
        prefix: Number of prefix tokens, if known; else the fewest that leave a grid.
    """
    if not isinstance(raw, Tensor) or not raw.is_floating_point():
        return None
    if raw.ndim == 4:
        if _is_grid(raw.shape[2], raw.shape[3], input_size):
            return Layout("nchw")
        if _is_grid(raw.shape[1], raw.shape[2], input_size):
            return Layout("nhwc")
    if raw.ndim == 3:
        for p in range(MAX_PREFIX + 1) if prefix is None else (prefix,):
            with suppress(SplitError):
                grid_shape(raw.shape[1] - p, input_size)
                return Layout("tokens", p)
    return None
