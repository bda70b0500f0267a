"""The basins of maps on the CPU, by NumPy, a few maps at once.

Maps are stacked into one picture, with pixels of level 0 around each of them, and that picture is
read as one line. Where the line turns upwards a *piece* ends and the next begins: a piece rises to
its top and falls, so that what is high of it hangs together. Tops lead to higher pieces in the
rows beside them, and so pieces make basins; pixels are looked at one by one only where basins
touch. A basin whose peak is no higher than a saddle that leads out of it never stands alone, and
is made part of its neighbour: few are left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVELS", "Basins", "Bools", "Ints", "Stack", "ascend", "stacked"]

Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]
Merge = tuple[int, int, int]

LEVELS = 256
LEVEL_BITS, FINE_BITS = 8, 23
"""Of an order, which is a pixel's level and then its place among those of that level."""
HIGHEST = (1 << (LEVEL_BITS + FINE_BITS)) - 1
FEW = 512


class Stack(NamedTuple):
    """Maps over each other, row by row: a row above and below each, and a column behind.

    Args:
        order: [n * (H + 2) * (W + 1)], of all pixels in reading order.
        rows: H + 2.
        columns: W + 1.
    """

    order: Ints
    rows: int
    columns: int

    @property
    def levels(self) -> Ints:
        """The order without what is finer than a level."""
        return (self.order >> FINE_BITS).astype(np.uint8)

    def levels_at(self, pixels: Ints) -> Ints:
        """The levels of some pixels."""
        levels: Ints = self.order.take(pixels) >> FINE_BITS
        return levels

    def upside_down(self) -> Stack:
        """Turn levels `l` into `255 - l`, so that what was around the maps is highest."""
        return self._replace(order=HIGHEST - self.order)

    def raised(self, least: Ints) -> Stack:
        """Bring every pixel to some level at least."""
        return self._replace(order=np.maximum(self.order, least << FINE_BITS))


class Basins(NamedTuple):
    """Numbered in reading order of their first pieces, and so map by map.

    Args:
        of: The basin of each pixel.
        of_piece: The basin of each piece.
        lengths: Of the pieces.
        tops: The highest pixel of each piece.
        peak: The highest pixel of each basin.
        merges: Two basins and the saddle between them, highest first; the first joins the second,
            whose peak is higher.
    """

    of: Ints
    of_piece: Ints
    lengths: Ints
    tops: Ints
    peak: Ints
    merges: list[Merge]


def stacked(scores: NDArray[np.floating[Any]]) -> Stack:
    """Stack maps `[n, H, W]` in [0, 1]; a level is `255 * score` without its fraction."""
    count, height, width = scores.shape
    order = np.zeros((count, height + 2, width + 1), np.int32)
    np.multiply(scores, 255 << FINE_BITS, out=order[:, 1:-1, :-1], casting="unsafe")
    return Stack(order.ravel(), height + 2, width + 1)


def ascend(stack: Stack, *, diagonal: bool) -> Basins:
    """Part a stack into basins; of equal pixels the later one is higher.

    Args:
        stack: Of maps, whose frame is lowest, or of maps upside down, whose frame is highest.
        diagonal: Pixels have eight neighbours, not four.
    """
    order = stack.order
    rises = order[1:] >= order[:-1]  # begins and ends with a rise, along the frame
    turn, size = np.flatnonzero(rises[1:] != rises[:-1]) + 1, order.size
    tops = np.concatenate([turn[::2], [size - 1]])
    bounds = np.concatenate([[0], turn[1::2], [size]])
    lengths = bounds[1:] - bounds[:-1]
    up = np.arange(len(tops))
    piece = np.repeat(up.astype(np.min_scalar_type(-len(up))), lengths)
    beside, higher = _beside(order, tops[:-1], stack.columns, diagonal)
    np.copyto(up[:-1], piece.take(beside), where=higher)
    first, of_piece = _numbered(_followed(up))
    steps = [stack.columns + d for d in ((-1, 0, 1) if diagonal else (0,))]
    of = np.repeat(of_piece, lengths)
    ends, saddle = _saddles(of, order, bounds[1:-1], steps, len(first))
    into, merges = _merges(ends, saddle, order, tops[first])
    apart, number = _numbered(into)
    of_piece = number.take(of_piece)
    return Basins(
        of=np.repeat(of_piece, lengths),
        of_piece=of_piece,
        lengths=lengths,
        tops=tops,
        peak=tops[first[apart]],
        merges=[(int(number[a]), int(number[b]), saddle) for a, b, saddle in merges],
    )


def _numbered(root: Ints) -> tuple[Ints, Ints]:
    """List what is its own root, and number everything by the place of its root in that list."""
    own = np.flatnonzero(root == np.arange(len(root)))
    number = np.empty(len(root), np.min_scalar_type(-len(own)))
    number[own] = np.arange(len(own))
    return own, number.take(root)


def _beside(order: Ints, tops: Ints, columns: int, diagonal: bool) -> tuple[Ints, Bools]:
    """Find the highest neighbour of each top in the rows beside it, and whether it is higher."""
    below, above = tops + columns, tops - columns
    value, under = order.take(below), order.take(above)
    if diagonal:
        below, value = _highest_of_three(order, below, value)
        above, under = _highest_of_three(order, above, under)
    own, down = order.take(tops), value >= under
    return np.where(down, below, above), np.where(down, value >= own, under > own)


def _highest_of_three(order: Ints, at: Ints, value: Ints) -> tuple[Ints, Ints]:
    for side in (at - 1, at + 1):
        other = order.take(side)
        at, value = np.where(other > value, side, at), np.maximum(value, other)
    return at, value


def _followed(up: Ints) -> Ints:
    """Follow pointers to where they end: at what points to itself."""
    further = up.take(up)
    while not np.array_equal(further, up):
        up = further.take(further)
        further = up.take(up)
    return up


def _saddles(
    of: Ints, order: Ints, starts: Ints, steps: list[int], count: int
) -> tuple[Ints, Ints]:
    """List the pairs of basins that touch, each with the level below which they hang together."""
    there = [starts[of.take(starts) != of.take(starts - 1)]]
    here = [there[0] - 1]
    for step in steps:
        here.append(np.flatnonzero(of[:-step] != of[step:]))
        there.append(here[-1] + step)
    one, other = np.concatenate(here), np.concatenate(there)
    between = (np.minimum(order.take(one), order.take(other)) >> FINE_BITS).astype(np.uint16)
    a, b = of.take(one), of.take(other)
    pair, saddle = _highest(
        np.minimum(a, b).astype(np.int64) * count + np.maximum(a, b), between, count
    )
    return np.stack(np.divmod(pair, count)), saddle


def _highest(pair: Ints, saddle: Ints, count: int) -> tuple[Ints, Ints]:
    """Keep the highest saddle of each pair of basins, unless it is 0."""
    if count <= FEW:  # so that a table of all pairs is cheaper than sorting
        table = np.zeros(count * count, np.uint16)
        np.maximum.at(table, pair, saddle)
        found = np.flatnonzero(table)
        return found, table[found].astype(np.int64)
    ordered = np.sort((pair << LEVEL_BITS) + saddle)
    pair, saddle = ordered >> LEVEL_BITS, ordered & (LEVELS - 1)
    last = np.append(pair[1:] != pair[:-1], True) & (saddle > 0)
    return pair[last], saddle[last]


def _merges(ends: Ints, saddle: Ints, order: Ints, peak: Ints) -> tuple[Ints, list[Merge]]:
    """Join the basins that touch, by the highest saddles first: the lower one joins the higher.

    Returns:
        For each basin the one that it belongs to wherever it is there at all, mostly another; and
        the merges of those that stand alone above some cut.
    """
    height: Ints = order.take(peak)
    level, rank = height >> FINE_BITS, (height.astype(np.int64) << 32) + peak
    low, high = np.where(rank[ends[0]] < rank[ends[1]], ends, ends[::-1])
    hooked, alike = np.arange(len(peak)), saddle == level[low]
    hooked[low[alike]] = high[alike]
    up = _followed(hooked)
    left = np.flatnonzero(up[low] != up[high])
    left = left[np.argsort(-saddle[left], kind="stable")]
    tree, into, ranks, levels = up.tolist(), up.copy(), rank.tolist(), level.tolist()
    merges, parts = list[Merge](), list[Merge]()
    for x, y, s in zip(*(of[left].tolist() for of in (low, high, saddle)), strict=True):
        a, b = sorted((_root(tree, x), _root(tree, y)), key=ranks.__getitem__)
        if a != b:
            tree[a] = b
            (merges if s < levels[a] else parts).append((a, b, s))
    for a, b, _ in reversed(parts):
        into[a] = into[b]
    return into[up], merges


def _root(tree: list[int], node: int) -> int:
    while tree[node] != node:
        tree[node] = node = tree[tree[node]]
    return node
