"""The components of a map above every level, on the CPU: map by map, by OpenCV and NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["all_boxes", "largest_boxes"]

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOP, OUTSIDE = 255, 256
LEVEL_BITS = 9
FEW = 512
TIE = 1 - 2.0**-20
"""Keeps a pixel's place among those of its level below the next level."""
NOWHERE = -(1 << 30)
NEIGHBOURS = ((0, 1), (1, 0), (1, -1), (1, 1))
"""(down, right) to half of a pixel's neighbours; the first two are those that share a side."""


class _Basins(NamedTuple):
    of: Ints  # [H, W], the basin of each pixel
    peak: Ints  # [k], the highest pixel of each
    merges: list[tuple[int, int, int]]  # two basins and the saddle between them, highest first


def all_boxes(levels: Ints, cuts: Ints, tie: Floats) -> tuple[Ints, Ints]:
    """Return the cut and the box of every contour of one map."""
    basins = _ascend(levels, tie, diagonal=True)
    cut, boxes = _components(basins, levels, cuts)
    below, below_tie = _inverted(levels, tie)
    holes = _ascend(below, below_tie, diagonal=False)
    cut_h, boxes_h = _components(holes, below, TOP - 1 - cuts[::-1], outside=int(holes.of[0, 0]))
    around = boxes_h + np.array([-2, -2, 0, 0])  # out of the frame, and around the hole
    return np.concatenate([cut, len(cuts) - 1 - cut_h]), np.concatenate([boxes, around])


def largest_boxes(levels: Ints, cuts: Ints, tie: Floats) -> tuple[Ints, Ints]:
    """Return the cut and the box of the largest contour above each cut that one map rises over."""
    filled = _filled(levels, tie)
    basins, slots = _ascend(filled, tie, diagonal=True), _slots(filled, cuts)
    extent = _from_above(_extents(basins, slots, len(cuts)), np.maximum)
    halves = _from_above(_half_areas(basins, slots, len(cuts)), np.add)
    alive = _alive(basins, filled, cuts)
    _merge(basins, cuts, alive, (extent, np.maximum), (halves, np.add))
    area = np.where(alive, halves, -1)
    best = alive & (area == area.max(0))
    if best.sum() > best.any(0).sum():
        first = _from_above(_first(basins, slots, len(cuts)), np.maximum)
        _merge(basins, cuts, alive, (first, np.maximum))
        best &= first == np.where(best, first, 1).min(0)
    basin, cut = best.nonzero()
    return cut, _boxes(extent[:, basin, cut])


def _inverted(levels: Ints, tie: Floats) -> tuple[Ints, Floats]:
    """Turn a map upside down and put the outside around it."""
    below = np.full([side + 2 for side in levels.shape], OUTSIDE)
    below_tie = np.zeros(below.shape)
    np.subtract(TOP, levels, out=below[1:-1, 1:-1])
    np.subtract(1, tie, out=below_tie[1:-1, 1:-1])
    return below, below_tie


def _ascend(levels: Ints, tie: Floats, *, diagonal: bool) -> _Basins:
    """Send each pixel up to its highest neighbour, again and again, until it is on a peak."""
    import cv2

    index = np.arange(levels.size)
    low_bits = (1 << int(levels.size).bit_length()) - 1
    ordered = tie * TIE
    ordered += levels
    ordered += 1  # keeps clear of zero, where doubles are spaced otherwise
    bits = ordered.view(np.int64).ravel()  # positive doubles are ordered like their bits
    bits &= ~low_bits
    bits |= index  # which makes the order total
    shape = cv2.MORPH_RECT if diagonal else cv2.MORPH_CROSS
    highest = cv2.dilate(ordered, cv2.getStructuringElement(shape, (3, 3)))
    up = _followed(highest.view(np.int64).ravel() & low_bits)
    peak = np.flatnonzero(up == index)
    number = np.empty(levels.size, np.int32)
    number[peak] = np.arange(len(peak))
    of = number.take(up).reshape(levels.shape)
    ends, saddle = _saddles(of, levels, len(peak), diagonal)
    return _Basins(of, peak, _merges(ends, saddle, len(peak), kept=int(of[0, 0])))


def _followed(up: Ints) -> Ints:
    """Follow pointers to where they end: at what points to itself."""
    further = up.take(up)
    while not np.array_equal(further, up):
        up = further.take(further)
        further = up.take(up)
    return up


def _merges(ends: Ints, saddle: Ints, count: int, kept: int) -> list[tuple[int, int, int]]:
    """Join all basins that touch, by the highest saddles first; the first joins the second.

    The basin `kept` never joins another; what it hangs together with joins it.
    """
    tree, merges = list(range(count)), []
    order = np.argsort(-saddle, kind="stable")
    for a, b, s in zip(*(x.tolist() for x in (*ends[:, order], saddle[order])), strict=True):
        a, b = _root(tree, a), _root(tree, b)
        if a == kept:
            a, b = b, a
        if a != b:
            tree[a] = b
            merges.append((a, b, s))
    return merges


def _root(tree: list[int], node: int) -> int:
    while tree[node] != node:
        tree[node] = node = tree[tree[node]]
    return node


def _saddles(of: Ints, levels: Ints, count: int, diagonal: bool) -> tuple[Ints, Ints]:
    """List the pairs of basins that touch, each with the level below which they hang together."""
    flat, height, pairs, saddles = of.ravel(), levels.ravel(), list[Ints](), list[Ints]()
    narrow = flat.astype(np.uint8) if count <= 256 else flat  # is compared faster
    for down, right in NEIGHBOURS if diagonal else NEIGHBOURS[:2]:
        step = down * of.shape[1] + right
        differ = np.zeros(of.shape, bool)
        size = max(0, of.size - step)
        np.not_equal(narrow[:size], narrow[step:], out=differ.ravel()[:size])
        if right:
            differ[:, -1 if right > 0 else 0] = False
        here = np.flatnonzero(differ)
        there = here + step
        a, b = flat.take(here).astype(np.int64), flat.take(there).astype(np.int64)
        pairs.append(np.minimum(a, b) * count + np.maximum(a, b))
        saddles.append(np.minimum(height.take(here), height.take(there)))
    pair, saddle = _highest(np.concatenate(pairs), np.concatenate(saddles), count)
    return np.stack(np.divmod(pair, max(count, 1))), saddle


def _highest(pair: Ints, saddle: Ints, count: int) -> tuple[Ints, Ints]:
    """Keep the highest saddle of each pair of basins."""
    if count <= FEW:  # so that a table of all pairs is cheaper than sorting
        table = np.zeros(count * count, np.int16)
        np.maximum.at(table, pair, (saddle + 1).astype(np.int16))
        found = np.flatnonzero(table)
        return found, table[found].astype(np.int64) - 1
    ordered = np.sort((pair << LEVEL_BITS) + saddle)
    pair = ordered >> LEVEL_BITS
    last = np.append(pair[1:] != pair[:-1], True)
    return pair[last], ordered[last] & ((1 << LEVEL_BITS) - 1)


def _components(
    basins: _Basins, levels: Ints, cuts: Ints, outside: int | None = None
) -> tuple[Ints, Ints]:
    """List cut and tight box of every component but that of the basin `outside`."""
    extent = _from_above(_extents(basins, _slots(levels, cuts), len(cuts)), np.maximum)
    alive = _alive(basins, levels, cuts)
    _merge(basins, cuts, alive, (extent, np.maximum))
    if outside is not None:
        alive[outside] = False
    basin, cut = alive.nonzero()
    return cut, _boxes(extent[:, basin, cut])


def _merge(basins: _Basins, cuts: Ints, alive: Bools, *tables: tuple[Ints, np.ufunc]) -> None:
    """Let what joins a basin above a cut add its rows to that basin's, in place."""
    below = np.searchsorted(cuts, np.arange(OUTSIDE + 1)).tolist()
    for a, b, saddle in basins.merges:
        cut = below[saddle]
        if not cut:
            break
        alive[a, :cut] = False
        for table, combine in tables:
            row = table[..., b, :cut]
            combine(row, table[..., a, :cut], out=row)


def _alive(basins: _Basins, levels: Ints, cuts: Ints) -> Bools:
    return levels.ravel()[basins.peak][:, None] > cuts


def _slots(levels: Ints, cuts: Ints) -> Ints:
    """Count the cuts that each pixel lies above."""
    return np.searchsorted(cuts, np.arange(OUTSIDE + 1)).astype(np.uint8).take(levels)


def _boxes(extent: Ints) -> Ints:
    boxes: Ints = extent.T * np.array([-1, -1, 1, 1])
    return boxes


def _extents(basins: _Basins, slots: Ints, cuts: int) -> Ints:
    """Return -x0, -y0, x1, y1 of each basin's pixels that lie above exactly so many cuts."""
    count = len(basins.peak)
    table = np.full((4, count, cuts + 1), NOWHERE, np.int32)
    for axis, size in enumerate(reversed(slots.shape)):
        place = np.arange(size, dtype=np.int32)
        top = np.zeros((count, size), slots.dtype)
        line = basins.of * size + place.reshape(-1, *[1] * axis)
        np.maximum.at(top.ravel(), line.ravel(), slots.ravel())
        key = (top + np.arange(count)[:, None] * (cuts + 1)).ravel()
        np.maximum.at(table[axis].ravel(), key, np.tile(-place, count))
        np.maximum.at(table[axis + 2].ravel(), key, np.tile(place + 1, count))
    return table


def _from_above(table: Ints, combine: np.ufunc) -> Ints:
    """Let each cut have what all pixels above it make together."""
    above: Ints = combine.accumulate(table[..., ::-1], axis=-1)[..., -2::-1]
    return above


def _first(basins: _Basins, slots: Ints, cuts: int) -> Ints:
    """Return minus the first pixel in reading order of those that lie above so many cuts."""
    table = np.full((len(basins.peak), cuts + 1), NOWHERE)
    key = (basins.of * (cuts + 1) + slots).ravel()
    np.maximum.at(table.ravel(), key, -np.arange(slots.size))
    return table


def _half_areas(basins: _Basins, slots: Ints, cuts: int) -> Ints:
    """Return twice the area that squares of 2x2 pixels add, as polygons of pixel centres.

    Four pixels of a component make an area of 1, three make 1/2. So each square adds 1/2 at the
    level of its third highest pixel, and again at that of its lowest.
    """
    (a, b, c, d), of = _squares(slots), _squares(basins.of * (cuts + 1))
    low, high = (np.minimum(a, b), np.minimum(c, d)), (np.maximum(a, b), np.maximum(c, d))
    fourth = np.minimum(*low)
    third = np.minimum(np.maximum(*low), np.minimum(*high))
    inside = np.where(a >= d, of[0], of[3])  # one of these two is among the highest three
    size = len(basins.peak) * (cuts + 1)
    halves = np.bincount((of[0] + fourth).ravel(), minlength=size)
    halves += np.bincount((inside + third).ravel(), minlength=size)
    return halves.reshape(-1, cuts + 1)


def _squares(x: Ints) -> list[Ints]:
    """Return the upper left, upper right, lower left and lower right pixels of all 2x2 squares."""
    return [x[:-1, :-1], x[:-1, 1:], x[1:, :-1], x[1:, 1:]]


def _filled(levels: Ints, tie: Floats) -> Ints:
    """Fill every hole above every level: raise what no path below it leads out of."""
    basins = _ascend(*_inverted(levels, tie), diagonal=False)
    outside = basins.of[0, 0]
    way = np.full(len(basins.peak), OUTSIDE)  # the highest saddle on the best way out
    members: dict[int, list[int]] = {}
    for a, b, saddle in basins.merges:
        group = members.pop(a, [a])
        if b == outside:
            way[group] = saddle
        else:
            members.setdefault(b, [b]).extend(group)
    filled: Ints = np.maximum(levels, (TOP - way).take(basins.of[1:-1, 1:-1]))
    return filled
