"""The interpretability score of AIB: do maps stay where predictions stay, for any method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError
from attrib.localize import normalize
from attrib.metrics.base import ordered
from attrib.registry import check_fields

__all__ = ["THETAS", "Consistency", "Frequencies", "Looks", "Window", "agreement", "consistency",
           "looks_of"]  # fmt: skip

THETAS = (0.85, 0.9, 0.95)
"""How alike two maps must be, by the cosine."""

FLAT = 1e-3
"""A channel that ranges over less, in grey levels, is constant but for rounding."""

Look = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of pictures `[b, 3, H, W]`, 8-bit, makes a map `[b, u, v]` and a prediction `[b]` for each."""
Modify = Callable[[Tensor], Tensor]
"""Of pictures `[m, 3, H, W]`, 8-bit, makes pictures like them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """Where a method says that a model looked, and what the model saw.

    Args:
        maps: One per picture, of any range.
        predictions: Class indices.
    """

    maps: Float[Tensor, "m u v"]
    predictions: Int[Tensor, " m"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Consistency:
    """How many of the pictures with the same prediction have nearly the same map.

    Args:
        scores: Per threshold, in percent; NaN if no prediction stayed.
        thetas: The thresholds, cosines.
        cosines: Per picture, of the two maps; 0 if one of them is constant or not finite.
        same: Which predictions stayed.
        unusable: How many pictures of those have a map that is constant or not finite.
    """

    scores: tuple[float, ...]
    thetas: tuple[float, ...]
    cosines: Float[Tensor, " m"]
    same: Bool[Tensor, " m"]
    unusable: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Cover one square window per picture, at a uniformly drawn place within it.

    Args:
        size: Side in pixels, 4 to 16 for 32-pixel pictures in the paper.
        fill: Pictures, one of which is drawn and resized for each window; None takes a uniformly
            drawn colour.
        seed: Of all that is drawn.
    """

    size: int
    fill: UInt8[Tensor, "k 3 h w"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"a window is 1 pixel wide or more, got {self.size}")
        if self.fill is not None and not len(self.fill):
            raise InputError("fill holds no pictures; pass some, or None for colours")

    def __call__(self, pictures: UInt8[Tensor, "m 3 H W"]) -> UInt8[Tensor, "m 3 H W"]:
        """Cover a window of each picture.

        Raises:
            InputError: the pictures are smaller than the window.
        """
        m, _, height, width = pictures.shape
        if self.size > min(height, width):
            raise InputError(f"a window of {self.size} pixels does not fit {(height, width)}")
        generator = torch.Generator().manual_seed(self.seed)
        side = torch.arange(self.size)
        row, column = (
            torch.randint(0, length - self.size + 1, (m, 1, 1, 1), generator=generator)
            for length in (height, width)
        )
        patch = self._patch(m, generator).to(pictures.device)
        where = torch.arange(m)[:, None, None, None], torch.arange(3)[:, None, None]
        at = (*where, row + side[:, None], column + side)
        out = pictures.clone()
        out[tuple(index.to(pictures.device) for index in at)] = patch
        return out

    def _patch(self, m: int, generator: torch.Generator) -> UInt8[Tensor, "m 3 _p _p"]:
        if self.fill is None:
            return torch.randint(0, 256, (m, 3, 1, 1), dtype=torch.uint8, generator=generator)
        chosen = torch.randint(0, len(self.fill), (m,), generator=generator)
        values = self.fill[chosen.to(self.fill.device)].float()
        size = (self.size, self.size)
        resized = F.interpolate(values, size, mode="bilinear", antialias=True)
        return resized.round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """Keep the low or the high frequencies of each channel, then stretch it to 0 to 255.

    A frequency is low if it lies less than `radius` from the middle of the shifted spectrum. Each
    channel of each picture is brought to [0, 1] by its own range and rounded to 8 bits.

    Args:
        radius: In cycles per picture; the paper keeps high ones from 4 and low ones below 12, of
            32-pixel pictures.
        keep: Which.
    """

    name: ClassVar[str] = "frequencies"

    radius: float
    keep: Literal["low", "high"]

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.radius < math.inf:
            raise InputError(f"radius is a positive number of cycles, got {self.radius}")

    def __call__(self, pictures: UInt8[Tensor, "m 3 H W"]) -> UInt8[Tensor, "m 3 H W"]:
        """Filter pictures; a channel that becomes constant is black."""
        spectrum = torch.fft.fftshift(torch.fft.fft2(pictures.double()), dim=(2, 3))
        y, x = (
            torch.arange(length, device=pictures.device) - length / 2
            for length in pictures.shape[2:]
        )
        low = y.square()[:, None] + x.square() < self.radius**2
        kept = spectrum * (low if self.keep == "low" else ~low)
        values = torch.fft.ifft2(torch.fft.ifftshift(kept, dim=(2, 3))).real
        return _stretched(values)


def _stretched(values: Float[Tensor, "m 3 H W"]) -> UInt8[Tensor, "m 3 H W"]:
    least, most = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    span = most - least
    span = torch.where(span > FLAT, span, torch.inf)
    return ((values - least) / span).mul(255).round().to(torch.uint8)


def consistency(
    look: Look,
    pictures: UInt8[Tensor, "m 3 H W"],
    modify: Modify,
    thetas: Sequence[float] = THETAS,
    *,
    batch_size: int = 32,
) -> Consistency:
    """Score a method by how its maps stand a modification that leaves the prediction as it was.

    Args:
        look: The method and its model; preprocessing included, as pictures are modified first.
        pictures: Of one size.
        modify: A `Window`, `Frequencies`, or any function of all pictures.
        thetas: See `agreement`.
        batch_size: Pictures per call of `look`.
    """
    before, after = (looks_of(look, p, batch_size) for p in (pictures, modify(pictures)))
    return agreement(before, after, thetas)


def looks_of(look: Look, pictures: UInt8[Tensor, "m 3 H W"], batch_size: int = 32) -> Looks:
    """Look at pictures batch by batch.

    Raises:
        InputError: there are no pictures, or `look` does not give a map and a class for each.
    """
    if not len(pictures) or batch_size < 1:
        raise InputError(
            f"pictures and batch_size are 1 or more, got {len(pictures)} and {batch_size}"
        )
    parts = []
    for batch in pictures.split(batch_size):
        maps, predictions = look(batch)
        if maps.ndim != 3 or not len(maps) == len(batch) == len(predictions):
            raise InputError(
                f"of {len(batch)} pictures look gives maps [b, u, v] and predictions [b], got "
                f"{tuple(maps.shape)} and {tuple(predictions.shape)}"
            )
        parts.append((maps.detach(), predictions.detach()))
    maps, predictions = (torch.cat(column) for column in zip(*parts, strict=True))
    return Looks(maps=maps, predictions=predictions)


def agreement(before: Looks, after: Looks, thetas: Sequence[float] = THETAS) -> Consistency:
    r"""Compare what a method says before and after pictures were modified.

    $$100 \cdot \frac{\#\{\hat y = \hat y' \wedge \cos(A, A') \ge \theta\}}
        {\#\{\hat y = \hat y'\}}$$

    Lai et al., section 4.4. Ours, as the paper does not say: each map is brought to [0, 1] by its
    range; the thresholds; and a map without a range, which is consistent with none.

    Args:
        before: Of the pictures.
        after: Of the same pictures, modified.
        thetas: Cosines in [0, 1].

    Raises:
        InputError: the two are of other pictures or grids, or a threshold is out of range.
    """
    if before.maps.shape != after.maps.shape:
        raise InputError(
            f"maps before and after are of the same pictures and grid, got "
            f"{tuple(before.maps.shape)} and {tuple(after.maps.shape)}"
        )
    if not thetas or not all(0 <= theta <= 1 for theta in thetas):
        raise InputError(f"thetas are cosines in [0, 1], got {tuple(thetas)}")
    same = before.predictions == after.predictions
    usable = ordered(before.maps) & ordered(after.maps)
    a, b = (normalize(looks.maps.double())[0].flatten(1) for looks in (before, after))
    cosines = torch.where(usable, F.cosine_similarity(a, b), 0.0)
    return Consistency(
        scores=tuple(_percent(cosines[same] >= theta) for theta in thetas),
        thetas=tuple(thetas),
        cosines=cosines,
        same=same,
        unusable=int((same & ~usable).sum()),
    )


def _percent(hits: Bool[Tensor, " n"]) -> float:
    return 100 * float(hits.double().mean()) if len(hits) else math.nan
