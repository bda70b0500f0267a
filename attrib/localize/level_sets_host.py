"""The contours of maps above every level, on the CPU: by OpenCV and NumPy, a few maps at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrib.localize.level_sets_pieces import LEVELS, Basins, Bools, Ints, Stack, ascend, stacked

__all__ = ["all_boxes", "largest_boxes"]

Floats = NDArray[np.floating[Any]]
Found = tuple[Ints, Ints, Ints]
"""Image, cut and box of each contour."""

CUTS = 255
"""Tables have a place for the pixels above each level but the last."""


def all_boxes(scores: Floats, cuts: Ints) -> Found:
    """Return image, cut and box of every contour of maps `[n, H, W]`."""
    stack = stacked(scores)
    below = stack.upside_down()
    holes = ascend(below, diagonal=False)
    image, cut, boxes = _components(stack, ascend(stack, diagonal=True), cuts)
    image_h, cut_h, boxes_h = _components(
        below, holes, CUTS - 1 - cuts[::-1], outside=int(holes.of[-1])
    )
    around = boxes_h + np.array([-1, -1, 1, 1])
    return (
        np.concatenate([image, image_h]),
        np.concatenate([cut, len(cuts) - 1 - cut_h]),
        np.concatenate([boxes, around]),
    )


def largest_boxes(scores: Floats, cuts: Ints) -> Found:
    """Return image, cut and box of the largest contour above each cut that a map rises over."""
    stack = _filled(stacked(scores))
    basins = ascend(stack, diagonal=True)
    extent, halves = _extents(stack, basins), _half_areas(stack, basins)
    alive = _alive(stack, basins)
    _merge(basins, extent, np.maximum)
    _merge(basins, halves, np.add)
    image = _image_of(stack, basins)
    each = np.flatnonzero(np.diff(image, prepend=-1))  # the first basin of each map
    area = np.where(alive, halves, -1)
    best = alive & (area == _per_map(area, each, np.maximum))
    for below in (lambda: extent[1], lambda: _first(stack, basins)):
        if best.sum() == np.logical_or.reduceat(best, each).sum():
            break
        begins = np.where(best, below(), 1)  # of equals the one that begins last
        best &= begins == _per_map(begins, each, np.minimum)
    basin, cut, boxes = _listed(best, extent, cuts)
    return image[basin], cut, boxes


def _filled(stack: Stack) -> Stack:
    """Fill every hole above every level: raise what no path below it leads out of."""
    holes = ascend(stack.upside_down(), diagonal=False)
    outside = int(holes.of[-1])
    way = np.zeros(len(holes.peak), np.int32)  # the highest saddle on the best way out
    way[outside] = LEVELS - 1
    members: dict[int, list[int]] = {}
    for a, b, saddle in holes.merges:
        group = members.pop(a, [a])
        if b == outside:
            way[group] = saddle
        else:
            members.setdefault(b, [b]).extend(group)
    return stack.raised(np.repeat((LEVELS - 1 - way).take(holes.of_piece), holes.lengths))


def _components(stack: Stack, basins: Basins, cuts: Ints, outside: int | None = None) -> Found:
    """List image, cut and tight box of every component but that of the basin `outside`."""
    extent, alive = _extents(stack, basins), _alive(stack, basins)
    _merge(basins, extent, np.maximum)
    if outside is not None:
        alive[outside] = False
    basin, cut, boxes = _listed(alive, extent, cuts)
    return _image_of(stack, basins)[basin], cut, boxes


def _merge(basins: Basins, table: Ints, combine: np.ufunc) -> None:
    """Let what joins a basin above a cut add its row to that basin's, in place."""
    for a, b, saddle in basins.merges:
        row = table[..., b, :saddle]
        combine(row, table[..., a, :saddle], out=row)


def _alive(stack: Stack, basins: Basins) -> Bools:
    """Tell above which cuts a basin lends its component the name: from its merge to its peak."""
    cut, merge = np.arange(CUTS), np.zeros(len(basins.peak), np.int64)
    for a, _, saddle in basins.merges:
        merge[a] = saddle
    alive: Bools = (cut >= merge[:, None]) & (cut < stack.levels_at(basins.peak)[:, None])
    return alive


def _image_of(stack: Stack, basins: Basins) -> Ints:
    return basins.peak // (stack.rows * stack.columns)


def _listed(there: Bools, extent: Ints, cuts: Ints) -> tuple[Ints, Ints, Ints]:
    """List basin, cut and box of what is there."""
    if len(cuts) < CUTS:
        there, extent = there[:, cuts], extent[..., cuts]
    place = np.flatnonzero(there)
    basin, cut = np.divmod(place, len(cuts))
    boxes = extent.reshape(4, -1).take(place, axis=1).T * np.array([-1, -1, 1, 1])
    return basin, cut, boxes


def _extents(stack: Stack, basins: Basins) -> Ints:
    """Return -x0, -y0, x1, y1 of what of each basin lies above each cut, `[4, k, CUTS]`.

    A basin is in a row up to the top of its pieces there, and in a column up to the highest pixel
    of each run of its pixels.
    """
    import cv2

    levels = stack.levels
    small = np.min_scalar_type(-max(stack.rows, stack.columns) - 1)
    table = np.full((LEVELS, 4, len(basins.peak)), np.iinfo(small).min, small)
    row = basins.tops // stack.columns % stack.rows - 1
    _reach(table, 1, stack.levels_at(basins.tops), basins.of_piece, row)
    turned = (cv2.transpose(x.reshape(-1, stack.columns)) for x in (basins.of, levels))
    of, level = (x.ravel() for x in turned)
    height = len(of) // stack.columns
    new = np.ones(len(of), bool)
    np.not_equal(of[1:], of[:-1], out=new[1:])
    new[::height] = True
    start = np.flatnonzero(new)
    _reach(table, 0, np.maximum.reduceat(level, start), of.take(start), start // height)
    return _from_above(table)


def _reach(table: Ints, axis: int, level: Ints, of: Ints, place: Ints) -> None:
    """Let basins that are as high as `level` at some place reach there."""
    count, flat, place = table.shape[2], table.reshape(-1), place.astype(table.dtype)
    key = level.astype(np.int64) * (4 * count) + of + axis * count
    np.maximum.at(flat, key, -place)
    np.maximum.at(flat, key + 2 * count, place + 1)


def _from_above(table: Ints) -> Ints:
    """Return the maximum over all levels above each cut, `[LEVELS, ...]` to `[..., CUTS]`."""
    other = np.empty_like(table)
    for step in (1, 2, 4, 8, 16, 32, 64, 128):
        np.maximum(table[:-step], table[step:], out=other[:-step])
        other[-step:] = table[-step:]
        table, other = other, table
    return np.ascontiguousarray(np.moveaxis(table[1:], 0, -1))


def _first(stack: Stack, basins: Basins) -> Ints:
    """Return minus the first pixel in reading order of what hangs together above each cut."""
    table = np.full((LEVELS, len(basins.peak)), -stack.order.size)
    key = stack.levels.astype(np.int64) * table.shape[1] + basins.of
    np.maximum.at(table.reshape(-1), key, -np.arange(len(key)))
    first = _from_above(table)
    _merge(basins, first, np.maximum)
    return first


def _half_areas(stack: Stack, basins: Basins) -> Ints:
    """Return twice the area that squares of 2x2 pixels add, as polygons of pixel centres.

    Four pixels of a component make an area of 1, three make 1/2. So each square adds 1/2 at the
    level of its third highest pixel, and again at that of its lowest.
    """
    (a, b, c, d), of = (_squares(x, stack.columns) for x in (stack.levels, basins.of))
    low, high = (np.minimum(a, b), np.minimum(c, d)), (np.maximum(a, b), np.maximum(c, d))
    fourth = np.minimum(*low)
    third = np.minimum(np.maximum(*low), np.minimum(*high))
    inside = of[3] + (of[0] - of[3]) * (a >= d)  # of the two that is among the highest three
    size = len(basins.peak) * LEVELS
    halves = np.zeros(size, np.int64)
    for basin, level in ((of[0], fourth), (inside, third)):
        key = basin.astype(np.min_scalar_type(size)) * LEVELS
        halves += _counts(key + (LEVELS - 1 - level), size)  # from the highest level on
    return halves.reshape(-1, LEVELS).cumsum(1)[:, CUTS - 1 :: -1].copy()


def _counts(key: Ints, size: int) -> Ints:
    """Count each number below `size`."""
    if key.dtype != np.uint16 or size > 1 << 16 or len(key) >= 1 << 24:
        return np.bincount(key, minlength=size)
    import cv2

    # in half the time, in float32
    counts: Ints = cv2.calcHist([key[None]], [0], None, [size], [0, size]).ravel().astype(np.int64)
    return counts


def _squares(x: Ints, columns: int) -> list[Ints]:
    """Return the upper left, upper right, lower left and lower right pixels of all 2x2 squares."""
    return [x[: -columns - 1], x[1:-columns], x[columns:-1], x[columns + 1 :]]


def _per_map(table: Ints, first: Ints, combine: np.ufunc) -> Ints:
    """Combine the rows of each map's basins, and give each basin what its map has."""
    counts = np.diff(first, append=len(table))
    found: Ints = np.repeat(combine.reduceat(table, first, axis=0), counts, axis=0)
    return found
