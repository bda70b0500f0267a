"""The contours of maps above many levels: batched torch, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

__all__ = ["all_boxes", "largest_boxes"]

TOP = 255
OUTSIDE = 256
"""Level of what lies around a picture when its holes are looked for: above all others."""
INDEX_BITS, TIE_BITS = 30, 24
LOW_BITS = (1 << INDEX_BITS) - 1
NEIGHBOURS = ((0, 1), (1, 0), (1, -1), (1, 1))
NOWHERE = -(1 << 40)
CHUNK_PIXELS = 1 << 20
"""At most so many pixels at once. Noise has a basin per ten pixels, and each a row of all cuts."""

Found = tuple[Tensor, Tensor, Tensor]
"""Image, cut and box of each contour."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Basins:
    """Numbered through the whole batch.

    Args:
        of: Basin of each pixel.
        peak: Flat index of each basin's highest pixel.
        ends: Pairs of touching basins, as many as it takes to connect all that hang together.
        saddle: The level below which a pair hangs together: above every cut that is less.
    """

    of: Int[Tensor, "n H W"]
    peak: Int[Tensor, " k"]
    ends: Int[Tensor, "2 e"]
    saddle: Int[Tensor, " e"]


def all_boxes(levels: Tensor, cuts: Tensor, tie: Tensor) -> dict[str, Tensor]:
    """Return image, cut and box of every contour."""
    return _joined([_all(*part, cuts) for part in _chunks(levels, tie)], levels)


def largest_boxes(levels: Tensor, cuts: Tensor, tie: Tensor) -> dict[str, Tensor]:
    """Return image, cut and box of the largest contour above each cut that a map rises over."""
    return _joined([_largest(*part, cuts) for part in _chunks(levels, tie)], levels)


def _chunks(levels: Tensor, tie: Tensor) -> list[tuple[int, Tensor, Tensor]]:
    n, height, width = levels.shape
    size = max(1, CHUNK_PIXELS // max(1, height * width))
    return [(i, levels[i : i + size].long(), tie[i : i + size]) for i in range(0, n, size)]


def _joined(parts: list[Found], like: Tensor) -> dict[str, Tensor]:
    none = torch.zeros(0, dtype=torch.int64, device=like.device)
    image, cut, boxes = zip((none, none, none.view(0, 4)), *parts, strict=True)
    return {"image": torch.cat(image), "cut": torch.cat(cut), "boxes": torch.cat(boxes)}


def _all(start: int, levels: Tensor, tie: Tensor, cuts: Tensor) -> Found:
    basins = _ascend(levels, tie, diagonal=True)
    image, cut, boxes = _rows(basins, levels, cuts)
    below, outside = _inverted(levels, tie)
    holes = _ascend(*below, diagonal=False)
    image_h, cut_h, boxes_h = _rows(holes, below[0], (TOP - 1 - cuts).flip(0), outside)
    one = torch.tensor([-2, -2, 0, 0], device=levels.device)  # undo the frame, go around the hole
    return (
        torch.cat([image, image_h]) + start,
        torch.cat([cut, len(cuts) - 1 - cut_h]),
        torch.cat([boxes, boxes_h + one]),
    )


def _inverted(levels: Tensor, tie: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Turn maps upside down and put the outside around them, of which each has one pixel named."""
    around = F.pad(TOP - levels, (1, 1, 1, 1), value=OUTSIDE)
    n, height, width = around.shape
    last = torch.arange(1, n + 1, device=levels.device) * (height * width) - 1
    return (around, F.pad(1 - tie, (1, 1, 1, 1))), last


def _ascend(
    levels: Int[Tensor, "n H W"], tie: Float[Tensor, "n H W"], *, diagonal: bool
) -> _Basins:
    """Send each pixel up to its highest neighbour, again and again, until it is on a peak."""
    index = torch.arange(levels.numel(), device=levels.device)
    rank = (levels << TIE_BITS) + (tie * ((1 << TIE_BITS) - 1)).long()
    ordered = (rank << INDEX_BITS).view(-1).add_(index).view_as(levels)  # a total order
    up = _followed((_highest(ordered, diagonal) & LOW_BITS).view(-1))
    peak = (up == index).nonzero().view(-1)
    number = torch.empty_like(up)
    number[peak] = torch.arange(len(peak), device=up.device)
    of = number.gather(0, up)
    pairs = _touching(of.view_as(levels), diagonal=diagonal)
    ends, saddle = _forest(of, levels.reshape(-1), pairs, len(peak))
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


def _touching(of: Int[Tensor, "n H W"], *, diagonal: bool) -> Int[Tensor, "2 p"]:
    """List the pairs of neighbouring pixels that lie in two basins, by flat index."""
    width, flat, found = of.shape[2], of.view(-1), []
    for down, right in NEIGHBOURS if diagonal else NEIGHBOURS[:2]:
        step = down * width + right
        differ = torch.zeros_like(of, dtype=torch.bool)
        count = max(0, len(flat) - step)
        torch.ne(flat[:count], flat[step:], out=differ.view(-1)[:count])
        if down:
            differ[:, -1] = False
        if right:
            differ[:, :, -1 if right > 0 else 0] = False
        here = differ.view(-1).nonzero().view(-1)
        found.append(torch.stack([here, here + step]))
    return torch.cat(found, 1)


def _forest(
    of: Int[Tensor, " p"], levels: Int[Tensor, " p"], pairs: Int[Tensor, "2 q"], count: int
) -> tuple[Int[Tensor, "2 e"], Int[Tensor, " e"]]:
    """Keep of the saddles what decides which basins hang together: a maximum spanning forest.

    Borůvka's rounds: each tree takes the highest saddle that leads out of it, until none does.
    """
    ends = of.gather(0, pairs.view(-1)).view(2, -1)
    saddle = levels.gather(0, pairs.view(-1)).view(2, -1).amin(0)
    rank = (saddle << INDEX_BITS) + torch.arange(len(saddle), device=of.device)  # a total order
    tree = own = torch.arange(count, device=of.device)
    a, b, kept = *ends, [rank[:0]]
    while len(rank):
        best = torch.full_like(tree, -1)
        best.scatter_reduce_(0, a, rank, "amax").scatter_reduce_(0, b, rank, "amax")
        edge = best.clamp(min=0) & LOW_BITS
        other = tree.gather(0, ends.index_select(1, edge).view(-1)).view(2, -1).sum(0) - own
        to = torch.where(best < 0, own, other)
        to = torch.where((to.gather(0, to) == own) & (own > to), own, to)  # both took one saddle
        kept.append(edge[to != own])
        to = _followed(to)
        tree, a, b = (to.gather(0, x) for x in (tree, a, b))
        apart = (a != b).nonzero().view(-1)
        a, b, rank = (x.gather(0, apart) for x in (a, b, rank))
    edge = torch.cat(kept)
    return ends[:, edge], saddle[edge]


def _followed(up: Int[Tensor, " p"]) -> Int[Tensor, " p"]:
    """Follow pointers to where they end: at what points to itself."""
    while True:
        further = up.gather(0, up)
        if torch.equal(further, up):
            return up
        up = further


def _components(basins: _Basins, cuts: Tensor) -> Int[Tensor, "k t"]:
    """Name, above each cut, one basin of those that each basin hangs together with."""
    count = len(basins.peak)
    root = torch.arange(count, device=cuts.device)[:, None].repeat(1, len(cuts))
    joined = basins.saddle[:, None] > cuts
    while True:
        a, b = root.index_select(0, basins.ends[0]), root.index_select(0, basins.ends[1])
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
    below = torch.searchsorted(cuts, every)
    return below.gather(0, levels.reshape(-1)).view_as(levels)


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


def _largest(start: int, levels: Tensor, tie: Tensor, cuts: Tensor) -> Found:
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
    return image[basin] + start, cut, _boxes(table[:4, basin, cut])


def _first(basins: _Basins, slots: Tensor, cuts: int) -> Int[Tensor, "k t1"]:
    """Return minus the first pixel in reading order of those that lie above so many cuts."""
    table = torch.full((len(basins.peak) * (cuts + 1),), NOWHERE, device=slots.device)
    key = (basins.of * (cuts + 1) + slots).view(-1)
    place = torch.arange(slots[0].numel(), device=slots.device).repeat(len(slots))
    return table.scatter_reduce_(0, key, -place, "amax").view(-1, cuts + 1)


def _half_areas(basins: _Basins, slots: Tensor, root: Tensor, cuts: int) -> Int[Tensor, "k t"]:
    """Return twice the area of each component without holes, as a polygon of pixel centres.

    Of a square of 2x2 pixels, four in the component make an area of 1 and three make 1/2. So each
    square adds 1/2 at the level of its third highest pixel, and again at that of its lowest.
    """
    (a, b, c, d), of = _squares(slots.to(torch.uint8)), _squares(basins.of)
    low, high = (
        (torch.minimum(a, b), torch.minimum(c, d)),
        (torch.maximum(a, b), torch.maximum(c, d)),
    )
    fourth = torch.minimum(*low)
    third = torch.minimum(torch.maximum(*low), torch.minimum(*high))
    inside = torch.where(a >= d, of[0], of[3])  # one of these two is among the highest three
    size = cuts + 1
    key = torch.cat([(of[0] * size + fourth).view(-1), (inside * size + third).view(-1)])
    halves = torch.bincount(key, minlength=len(root) * size).view(-1, size)
    above = halves.flip(-1).cumsum(-1).flip(-1)[:, 1:]
    return torch.zeros_like(above).scatter_add_(0, root, above)


def _squares(x: Shaped[Tensor, "n H W"]) -> list[Shaped[Tensor, "n h w"]]:
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
    inner = basins.of[:, 1:-1, 1:-1].reshape(-1)
    return torch.maximum(levels, (TOP - way).gather(0, inner).view_as(levels))
