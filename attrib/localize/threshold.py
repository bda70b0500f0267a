"""Where to cut a heatmap: a fraction of its range, a percentile, Otsu's value, a map value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError
from attrib.transfer import to_device

__all__ = ["Rule", "cut_values", "otsu"]

Rule = Literal["fraction", "percentile", "otsu", "absolute"]
"""`fraction`: of the heatmap's range. `percentile`: of its pixels, 0 to 100. `otsu`: the value
that best parts two groups of pixels; takes no number. `absolute`: in the raw map's unit."""

BINS = 256


def cut_values(
    heatmaps: Float[Tensor, "n H W"],
    low: Float[Tensor, " n"],
    high: Float[Tensor, " n"],
    threshold: float | Sequence[float],
    rule: Rule = "fraction",
) -> Float[Tensor, "n t"]:
    """Return, per map and threshold, the heatmap value at and above which a pixel is kept.

    Args:
        heatmaps: In [0, 1].
        low: Raw value that became 0.
        high: Raw value that became 1.
        threshold: One or several numbers, read as `rule` says.
        rule: See `Rule`.
    """
    values = [float(t) for t in (threshold if isinstance(threshold, Sequence) else [threshold])]
    _check(values, rule)
    wanted = to_device(values, heatmaps.device, heatmaps.dtype)
    if rule == "fraction":
        return wanted.expand(len(heatmaps), -1)
    if rule == "absolute":
        span = torch.where(high > low, high - low, 1)
        return (wanted - low[:, None]) / span[:, None]
    if rule == "otsu":
        return otsu(heatmaps.flatten(1))[:, None]
    return _percentiles(heatmaps, values)


def _percentiles(heatmaps: Float[Tensor, "n H W"], values: list[float]) -> Float[Tensor, "n t"]:
    """Return the smallest pixel that so many per cent do not exceed."""
    ordered = heatmaps.flatten(1).sort(1).values
    count = ordered.shape[1]
    if not count:
        return heatmaps.new_zeros(len(heatmaps), len(values))
    ranks = [max(1, round(t / 100 * count)) for t in values]
    return ordered[:, to_device(ranks, heatmaps.device) - 1]


def _check(values: list[float], rule: str) -> None:
    if rule not in ("fraction", "percentile", "otsu", "absolute"):
        raise InputError(f"rule is 'fraction', 'percentile', 'otsu' or 'absolute', got {rule!r}")
    if not values:
        raise InputError("threshold is empty; give one number or several")
    top = {"fraction": 1.0, "percentile": 100.0}.get(rule)
    for value in values:
        if top is not None and not 0 <= value <= top:
            raise InputError(f"a {rule} threshold lies in [0, {top:g}], got {value}")


def otsu(pixels: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
    """Return the value in [0, 1] that leaves most variance between the pixels below and above it.

    Otsu, *A threshold selection method from gray-level histograms*, over 256 grey levels.

    Args:
        pixels: In [0, 1].
    """
    level = (pixels * (BINS - 1)).round().long()
    counts = pixels.new_zeros(len(pixels), BINS, dtype=torch.float64)
    counts.scatter_add_(1, level, torch.ones_like(level, dtype=torch.float64))
    below = counts.cumsum(1)
    mass = (counts * torch.arange(BINS, device=pixels.device)).cumsum(1)
    above = below[:, -1:] - below
    gap = mass / below.clamp(min=1) - (mass[:, -1:] - mass) / above.clamp(min=1)
    between = torch.where((below > 0) & (above > 0), below * above * gap**2, -1)
    return ((between.argmax(1) + 0.5) / (BINS - 1)).to(pixels.dtype)
