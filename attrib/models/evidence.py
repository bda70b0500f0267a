"""Sums of class maps under a linear head, taken through its weights: no class map is ever made."""

from __future__ import annotations

from collections import Counter

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["CHUNK_CELLS", "linear_evidence", "weighted"]

CHUNK_CELLS = 1 << 24
"""At most so many class-map values, or copied features, are held at once."""


def linear_evidence(
    grid: Float[Tensor, "b k u v"],
    image: Int[Tensor, " n"],
    coefficients: Float[Tensor, "n c"],
    weight: Float[Tensor, "c k"],
) -> Float[Tensor, "n u v"]:
    """Weigh the channels of `grid[image[i]]` by `coefficients[i] @ weight`.

    Args:
        grid: Features of the batch.
        image: Which image each row of coefficients is about, ascending.
        coefficients: Weights over classes, of the grid's type.
        weight: The head's.
    """
    if grid.device.type != "cpu":
        return weighted(grid, image, coefficients @ weight)
    weights = _summed(coefficients, weight)
    if len(grid) == 1:
        return (weights @ grid[0].flatten(1)).view(-1, *grid.shape[2:])
    owners = Counter(image.tolist())
    each = zip(weights.split([owners[i] for i in range(len(grid))]), grid, strict=True)
    return torch.cat([w @ g.flatten(1) for w, g in each]).view(-1, *grid.shape[2:])


def _summed(
    coefficients: Float[Tensor, "n c"], weight: Float[Tensor, "c k"]
) -> Float[Tensor, "n k"]:
    """Multiply the two; where few classes have a coefficient, only their weights are read."""
    used = coefficients.any(0).nonzero()[:, 0]
    few = 2 * len(used) < len(weight)
    return coefficients[:, used] @ weight[used] if few else coefficients @ weight


def weighted(
    grid: Float[Tensor, "b k u v"], image: Int[Tensor, " n"], weights: Float[Tensor, "n k"]
) -> Float[Tensor, "n u v"]:
    """Weigh the channels of `grid[image[i]]` by `weights[i]`, without a look at the indices.

    How many rows an image has is known to the device alone: to ask would wait for it. The price is
    a copy of each row's features, of a chunk of rows at a time.
    """
    size = max(1, CHUNK_CELLS // max(1, grid[0].numel())) if len(grid) else 1
    cells = grid.flatten(2)
    rows = zip(image.split(size), weights.split(size), strict=True)
    maps = [(w[:, None] @ cells.index_select(0, i))[:, 0] for i, w in rows]
    return torch.cat(maps).view(-1, *grid.shape[2:])
