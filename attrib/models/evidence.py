"""Sums of class maps under a linear head, taken through its weights: no class map is ever made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["CHUNK_CELLS", "ClassSum", "linear_evidence", "weighted"]

CHUNK_CELLS = 1 << 24
"""At most so many class-map values, or copied features, are held at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassSum:
    """Which class maps are added up for each of `n` pairs: a few of its own, and some of every one.

    Args:
        label: The few classes of each pair.
        factor: What the first of the few is multiplied by, and each that follows.
        every: What every class of the model is multiplied by in addition.
    """

    label: Int[Tensor, "n m"]
    factor: tuple[float, ...] = (1.0,)
    every: float = 0.0

    def of_weights(self, weight: Float[Tensor, "c k"]) -> Float[Tensor, "n k"]:
        """Add up the rows of a linear head; only those of the few are read if `every` is 0."""
        parts = [f * weight.index_select(0, c) for f, c in self._few()]
        return sum(parts[1:], parts[0]) + (self.every * weight.sum(0) if self.every else 0)

    def of_maps(
        self, maps: Float[Tensor, "b c u v"], image: Int[Tensor, " n"]
    ) -> Float[Tensor, "n u v"]:
        """Add up class maps of the image that each pair is about."""
        parts = [f * maps[image, c] for f, c in self._few()]
        return sum(parts[1:], parts[0]) + (self.every * maps.sum(1)[image] if self.every else 0)

    def rows(self, which: Tensor | slice) -> ClassSum:
        """Take some of the pairs."""
        return ClassSum(label=self.label[which], factor=self.factor, every=self.every)

    def _few(self) -> Iterator[tuple[float, Int[Tensor, " n"]]]:
        return zip(self.factor, self.label.unbind(1), strict=True)


def linear_evidence(
    grid: Float[Tensor, "b k u v"],
    image: Int[Tensor, " n"],
    weights: Float[Tensor, "n k"],
) -> Float[Tensor, "n u v"]:
    """Weigh the channels of `grid[image[i]]` by `weights[i]`.

    Args:
        grid: Features of the batch.
        image: Which image each row of weights is about, ascending.
        weights: What `ClassSum.of_weights` makes of the head's.
    """
    if grid.device.type != "cpu":
        return weighted(grid, image, weights)
    if len(grid) == 1:
        return (weights @ grid[0].flatten(1)).view(-1, *grid.shape[2:])
    owners = Counter(image.tolist())
    each = zip(weights.split([owners[i] for i in range(len(grid))]), grid, strict=True)
    return torch.cat([w @ g.flatten(1) for w, g in each]).view(-1, *grid.shape[2:])


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
