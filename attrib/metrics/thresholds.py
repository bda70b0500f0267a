"""Grids of thresholds, and the honest choice among them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError

__all__ = ["counts_like", "grid", "grid_index", "per_cent"]


def grid(interval: float) -> Float[Tensor, " t"]:
    """Return 0, `interval`, ... below 1 in double precision, as NumPy's `arange` rounds them."""
    if not 0 < interval <= 1:
        raise InputError(f"the interval between thresholds lies in (0, 1], got {interval}")
    return torch.from_numpy(np.arange(0, 1, interval))


def grid_index(threshold: float, thresholds: Float[Tensor, " t"]) -> int:
    """Find a threshold in a grid.

    Raises:
        InputError: it is none of them.
    """
    gap, index = (thresholds - threshold).abs().min(0)
    if float(gap) > 1e-9:
        step = float(thresholds[1]) if len(thresholds) > 1 else 1.0
        raise InputError(
            f"threshold {threshold} is none of the thresholds 0, {step:g}, ... below 1; choose one "
            "of them or another interval"
        )
    return int(index)


def per_cent(count: float, total: float) -> float:
    """Return a share in per cent; NaN of nothing."""
    return 100 * count / total if total else float("nan")


def counts_like(values: Any, like: Int[Tensor, "*d"]) -> Int[Tensor, "*d"]:
    """Read back whole numbers that were written as lists; `InputError` if the shape is another."""
    counts = torch.tensor(values, dtype=like.dtype)
    if counts.shape != like.shape:
        raise InputError(f"expected counts {tuple(like.shape)}, got {tuple(counts.shape)}")
    return counts
