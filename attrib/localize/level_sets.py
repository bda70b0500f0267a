"""The components of a map above every one of many levels, in one sweep over its pixels.

Pixels are grouped into *basins*: steepest ascent leads each to a peak. Above a level, basins whose
peaks rise above it hang together where the *saddle* between them does, so that what is to be found
per level is a matter of a few basins, not of all pixels. Everything is exact, and batched torch on
the caller's device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = ["LevelBoxes", "all_contours", "largest_contours"]

TOP = 255
OUTSIDE = 256
"""Level of what lies around a picture when its holes are looked for: above all others."""
INDEX_BITS, TIE_BITS = 30, 24
NOWHERE = -(1 << 40)
CHUNK_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 22}
"""At most so many pixels at once; on a CPU as many as its caches hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelBoxes:
    """Tight boxes around parts of maps above levels.

    Args:
        image: Which map.
        cut: Which level, as an index into the cuts that were asked for.
        boxes: Half-open `x0 y0 x1 y1`, pixels of the map.
    """

    image: Int[Tensor, " m"]
    cut: Int[Tensor, " m"]
    boxes: Int[Tensor, "m 4"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Basins:
    """Numbered through the whole batch.

    Args:
        of: Basin of each pixel.
        peak: Flat index of each basin's highest pixel.
        ends: The two basins of each pair that touches.
        saddle: Highest level above which the pair does not hang together.
    """

    of: Int[Tensor, "n H W"]
    peak: Int[Tensor, " k"]
    ends: Int[Tensor, "2 e"]
    saddle: Int[Tensor, " e"]


def all_contours(
    levels: UInt8[Tensor, "n H W"], cuts: Int[Tensor, " t"], tie: Float[Tensor, "n H W"]
) -> LevelBoxes:
    """Find the boxes of all contours of `levels > cut`: of every component, and of every hole.

    Components are 8-connected, holes 4-connected background that does not reach the border. The
    contour of a hole runs over the pixels around it, so its box is one pixel wider on each side.

    Args:
        levels: Maps in 256 levels.
        cuts: Ascending, distinct, from 0 to 254.
        tie: In [0, 1], orders pixels of one level, e.g. the map before it was cut into levels.
            Changes no answer; the better it resolves plateaus, the faster.

    Returns:
        One row per contour, in no particular order.
    """
    parts = [_all(*part, cuts) for part in _chunks(levels, tie)]
    return _joined(parts, levels)


def largest_contours(
    levels: UInt8[Tensor, "n H W"], cuts: Int[Tensor, " t"], tie: Float[Tensor, "n H W"]
) -> LevelBoxes:
    """Find the box of the contour of largest area of `levels > cut`.

    The area is that of the polygon through the pixels' centres, holes included, as OpenCV's
    `contourArea` measures it. Of equal ones the component whose first pixel in reading order comes
    last is taken, as OpenCV 5 lists it first.

    Args:
        levels: Maps in 256 levels.
        cuts: Ascending, distinct, from 0 to 254.
        tie: See `all_contours`.

    Returns:
        One row per map and cut, but for those where nothing lies above the cut.
    """
    parts = [_largest(*part, cuts) for part in _chunks(levels, tie)]
    return _joined(parts, levels)


def _chunks(levels: Tensor, tie: Tensor) -> list[tuple[int, Tensor, Tensor]]:
    n, height, width = levels.shape
    limit = CHUNK_PIXELS["cpu" if levels.device.type == "cpu" else "cuda"]
    size = max(1, limit // max(1, height * width))
    return [(i, levels[i : i + size].long(), tie[i : i + size]) for i in range(0, n, size)]


def _joined(parts: list[LevelBoxes], like: Tensor) -> LevelBoxes:
    none = torch.zeros(0, dtype=torch.int64, device=like.device)
    return LevelBoxes(
        image=torch.cat([none, *(p.image for p in parts)]),
        cut=torch.cat([none, *(p.cut for p in parts)]),
        boxes=torch.cat([none.view(0, 4), *(p.boxes for p in parts)]),
    )


def _all(start: int, levels: Tensor, tie: Tensor, cuts: Tensor) -> LevelBoxes:
    basins = _ascend(levels, tie, diagonal=True)
    image, cut, boxes = _rows(basins, levels, cuts)
    below, outside = _inverted(levels, tie)
    holes = _ascend(*below, diagonal=False)
    image_h, cut_h, boxes_h = _rows(holes, below[0], (TOP - 1 - cuts).flip(0), outside)
    one = torch.tensor([-2, -2, 0, 0], device=levels.device)  # undo the frame, go around the hole
    return LevelBoxes(
        image=torch.cat([image, image_h]) + start,
        cut=torch.cat([cut, len(cuts) - 1 - cut_h]),
        boxes=torch.cat([boxes, boxes_h + one]),
    )


def _inverted(levels: Tensor, tie: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Turn maps upside down and put the outside around them, of which each has one pixel named."""
    around = F.pad(TOP - levels, (1, 1, 1, 1), value=OUTSIDE)
    n, height, width = around.shape
    last = torch.arange(1, n + 1, device=levels.device) * (height * width) - 1
    return (around, F.pad(1 - tie, (1, 1, 1, 1))), last


def _ascend(levels: Int[Tensor, "n H W"], tie: Float[Tensor, "n H W"], *, diagonal: bool) -> _Basins:
    """Send each pixel up to its highest neighbour, again and again, until it is on a peak."""
    index = torch.arange(levels.numel(), device=levels.device)
    rank = (levels << TIE_BITS) + (tie * ((1 << TIE_BITS) - 1)).long()
    ordered = (rank << INDEX_BITS).view(-1).add_(index).view_as(levels)  # a total order
    up = (_highest(ordered, diagonal) & ((1 << INDEX_BITS) - 1)).view(-1)
    while True:
        further = up.gather(0, up)
        if torch.equal(further, up):
            break
        up = further
    peak = (up == index).nonzero().view(-1)
    number = torch.empty_like(up)
    number[peak] = torch.arange(len(peak), device=up.device)
    of = number.gather(0, up)
    steps = ((0, 1), (1, 0), *(((1, -1), (1, 1)) if diagonal else ()))
    ends, saddle = _saddles(of, levels, steps, len(peak))
    return _Basins(of=of.view_as(levels), peak=peak, ends=ends, saddle=saddle)


def _highest(values: Tensor, diagonal: bool) -> Tensor:
    """Return the highest value among each pixel and its 8, or 4, neighbours."""
    best = values.clone()
    _raise(best[..., 1:], values[..., :-1])
    _raise(best[..., :-1], values[..., 1:])
    column = best.clone() if diagonal else values
    _raise(best[:, 1:], column[:, :-1])
    _raise(best[:, :-1], column[:, 1:])
    return best


def _raise(values: Tensor, others: Tensor) -> None:
    torch.maximum(values, others, out=values)


def _saddles(
    of: Tensor, levels: Tensor, steps: tuple[tuple[int, int], ...], count: int
) -> tuple[Int[Tensor, "2 e"], Int[Tensor, " e"]]:
    """List the pairs of basins that touch, each with the highest level at which they do."""
    _, height, width = levels.shape
    flat = levels.reshape(-1)
    keys = []
    for down, right in steps:
        step = down * width + right
        here = (of[step:] != of[: max(0, len(of) - step)]).nonzero().view(-1)
        there = here + step
        near = there % width - here % width == right  # not around the edge of a row,
        near &= there // (height * width) == here // (height * width)  # nor in the next map
        here, there = here[near], there[near]
        a, b = of[here], of[there]
        pair = torch.minimum(a, b) * count + torch.maximum(a, b)
        keys.append(pair * (OUTSIDE + 1) + torch.minimum(flat[here], flat[there]))
    ordered = torch.cat(keys).sort().values
    pair = ordered // (OUTSIDE + 1)
    last = F.pad(pair[1:] != pair[:-1], (0, 1), value=True)[: len(pair)]
    pair, saddle = pair[last], ordered[last] % (OUTSIDE + 1)
    return torch.stack([pair // max(count, 1), pair % max(count, 1)]), saddle


def _components(basins: _Basins, cuts: Tensor) -> Int[Tensor, "k t"]:
    """Name, above each cut, one basin of those that each basin hangs together with."""
    count = len(basins.peak)
    root = torch.arange(count, device=cuts.device)[:, None].repeat(1, len(cuts))
    joined = basins.saddle[:, None] > cuts
    while True:
        a, b = root[basins.ends[0]], root[basins.ends[1]]
        highest = torch.maximum(a, b) * joined
        hooked = root.scatter_reduce(0, torch.minimum(a, b), highest, "amax")
        hooked = hooked.gather(0, hooked)
        hooked = hooked.gather(0, hooked)
        if torch.equal(hooked, root):
            return root
        root = hooked


def _rows(
    basins: _Basins, levels: Tensor, cuts: Tensor, outside: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """List image, cut and tight box of every component but those that hold an outside pixel."""
    root = _components(basins, cuts)
    extent = _merged(_from_above(_extents(basins, _slots(levels, cuts), len(cuts))), root)
    there = _alive(basins, levels, cuts, root)
    if outside is not None:
        there.scatter_(0, root[basins.of.view(-1)[outside]], False)
    basin, cut = there.nonzero(as_tuple=True)
    return _image_of(basins, levels)[basin], cut, _boxes(extent[:, basin, cut])


def _slots(levels: Tensor, cuts: Tensor) -> Int[Tensor, "n H W"]:
    """Count the cuts that each pixel lies above."""
    every = torch.arange(OUTSIDE + 1, device=levels.device)
    return torch.searchsorted(cuts, every)[levels]


def _alive(basins: _Basins, levels: Tensor, cuts: Tensor, root: Tensor) -> Tensor:
    """Tell which basins are above a cut and lend their component the name."""
    height = levels.reshape(-1)[basins.peak]
    own = torch.arange(len(root), device=root.device)[:, None]
    return (root == own) & (height[:, None] > cuts)


def _image_of(basins: _Basins, levels: Tensor) -> Int[Tensor, " k"]:
    return basins.peak // (levels.shape[1] * levels.shape[2])


def _boxes(extent: Int[Tensor, "4 m"]) -> Int[Tensor, "m 4"]:
    return extent.T * torch.tensor([-1, -1, 1, 1], device=extent.device)


def _extents(basins: _Basins, slots: Tensor, cuts: int) -> Int[Tensor, "4 k t1"]:
    """Return -x0, -y0, x1, y1 of each basin's pixels that lie above exactly so many cuts."""
    count, device = len(basins.peak), slots.device
    table = torch.full((4, count, cuts + 1), NOWHERE, device=device)
    for axis, size in enumerate(reversed(slots.shape[1:])):
        place = torch.arange(size, device=device).view(-1, *[1] * axis)
        top = torch.zeros(count * size, dtype=torch.int64, device=device)
        top.scatter_reduce_(0, (basins.of * size + place).view(-1), slots.view(-1), "amax")
        top = top.view(count, size)
        place = torch.arange(size, device=device).expand_as(top)
        table[axis].scatter_reduce_(1, top, -place, "amax")
        table[axis + 2].scatter_reduce_(1, top, place + 1, "amax")
    return table


def _from_above(table: Int[Tensor, "_ k t1"]) -> Int[Tensor, "_ k t"]:
    """Let each cut have the most of all pixels above it."""
    return table.flip(-1).cummax(-1).values.flip(-1)[..., 1:]


def _merged(table: Int[Tensor, "_ k t"], root: Tensor) -> Int[Tensor, "_ k t"]:
    """Let the basin that lends its name have the most of its whole component."""
    return table.scatter_reduce(1, root.expand_as(table), table, "amax")


def _largest(start: int, levels: Tensor, tie: Tensor, cuts: Tensor) -> LevelBoxes:
    filled = _filled(levels, tie)
    basins, slots = _ascend(filled, tie, diagonal=True), _slots(filled, cuts)
    root = _components(basins, cuts)
    table = torch.cat([_extents(basins, slots, len(cuts)), _first(basins, slots, len(cuts))[None]])
    table = _merged(_from_above(table), root)
    there = _alive(basins, filled, cuts, root)
    halves = _half_areas(basins, slots, root, len(cuts))
    pixels = levels.shape[1] * levels.shape[2]
    score = torch.where(there, halves * pixels - table[4], -1)
    image = _image_of(basins, levels)
    best = torch.zeros(len(levels), len(cuts), dtype=torch.int64, device=levels.device)
    best.scatter_reduce_(0, image[:, None].expand_as(score), score, "amax")
    basin, cut = (there & (score == best[image])).nonzero(as_tuple=True)
    boxes = _boxes(table[:4, basin, cut])
    return LevelBoxes(image=image[basin] + start, cut=cut, boxes=boxes)


def _first(basins: _Basins, slots: Tensor, cuts: int) -> Int[Tensor, "k t1"]:
    """Return minus the first pixel in reading order of those that lie above so many cuts."""
    table = torch.full((len(basins.peak) * (cuts + 1),), NOWHERE, device=slots.device)
    key = (basins.of * (cuts + 1) + slots).view(-1)
    place = torch.arange(slots[0].numel(), device=slots.device).repeat(len(slots))
    return table.scatter_reduce_(0, key, -place, "amax").view(-1, cuts + 1)


def _half_areas(
    basins: _Basins, slots: Tensor, root: Tensor, cuts: int
) -> Int[Tensor, "k t"]:
    """Return twice the area of each component without holes, as a polygon of pixel centres.

    Of a square of 2x2 pixels, four in the component make an area of 1 and three make 1/2. So each
    square adds 1/2 at the level of its third highest pixel, and again at that of its lowest.
    """
    (a, b, c, d), of = _squares(slots), _squares(basins.of)
    low, high = (torch.minimum(a, b), torch.minimum(c, d)), (torch.maximum(a, b), torch.maximum(c, d))
    fourth = torch.minimum(*low)
    third = torch.minimum(torch.maximum(*low), torch.minimum(*high))
    inside = torch.where(a >= d, of[0], of[3])  # one of these two is among the highest three
    size = cuts + 1
    key = torch.cat([(of[0] * size + fourth).view(-1), (inside * size + third).view(-1)])
    halves = torch.bincount(key, minlength=len(root) * size).view(-1, size)
    above = halves.flip(-1).cumsum(-1).flip(-1)[:, 1:]
    return torch.zeros_like(above).scatter_add_(0, root, above)


def _squares(x: Int[Tensor, "n H W"]) -> list[Int[Tensor, "n h w"]]:
    """Return the upper left, upper right, lower left and lower right pixels of all 2x2 squares."""
    return [x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]]


def _filled(levels: Tensor, tie: Tensor) -> Int[Tensor, "n H W"]:
    """Fill every hole above every level: raise what no path below it leads out of."""
    below, outside = _inverted(levels, tie)
    basins = _ascend(*below, diagonal=False)
    way = torch.zeros_like(basins.peak)
    way[basins.of.view(-1)[outside]] = OUTSIDE
    a, b = basins.ends
    while True:
        wider = way.scatter_reduce(0, a, torch.minimum(way[b], basins.saddle), "amax")
        wider = wider.scatter_reduce(0, b, torch.minimum(wider[a], basins.saddle), "amax")
        if torch.equal(wider, way):
            break
        way = wider
    inner = basins.of[:, 1:-1, 1:-1]
    return torch.maximum(levels, TOP - way[inner])
