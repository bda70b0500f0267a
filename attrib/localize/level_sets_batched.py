"""The contours of maps above many cuts: batched torch, on any device.

What counts of a level is how many cuts lie below it, its *slot*: a pixel lies above cut `j` if its
slot is greater than `j`.
"""

from __future__ import annotations

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.localize.components import Engine
from attrib.localize.level_sets_basins import Basins, ascend, components
from attrib.transfer import to_device

__all__ = ["all_boxes", "largest_boxes"]

NOWHERE = -(1 << 40)
CHUNK_PIXELS = 1 << 20
"""At most so many pixels at once. Noise has a basin per ten pixels, and each a row of all cuts."""

Found = tuple[Tensor, Tensor, Tensor]
"""Image, cut and box of each contour."""


def all_boxes(scores: Tensor, cuts: Tensor, engine: Engine) -> dict[str, Tensor]:
    """Return image, cut and box of every contour."""
    parts = [_all(*part, len(cuts), engine) for part in _chunks(scores, cuts)]
    return _joined(parts, scores)


def largest_boxes(scores: Tensor, cuts: Tensor, engine: Engine) -> dict[str, Tensor]:
    """Return image, cut and box of the largest contour above each cut that a map rises over."""
    parts = [_largest(*part, len(cuts), engine) for part in _chunks(scores, cuts)]
    return _joined(parts, scores)


def _chunks(scores: Tensor, cuts: Tensor) -> list[tuple[int, Tensor, Tensor]]:
    """Cut a batch up; tell of each part where it begins, its slots and the order within them."""
    n, height, width = scores.shape
    size = max(1, CHUNK_PIXELS // max(1, height * width))
    slots = torch.searchsorted(cuts, torch.arange(256, device=cuts.device))
    parts = [(i, scores[i : i + size]) for i in range(0, n, size)]
    return [(i, slots[(part * 255).long()], part) for i, part in parts]


def _joined(parts: list[Found], like: Tensor) -> dict[str, Tensor]:
    none = torch.zeros(0, dtype=torch.int64, device=like.device)
    image, cut, boxes = zip((none, none, none.view(0, 4)), *parts, strict=True)
    return {"image": torch.cat(image), "cut": torch.cat(cut), "boxes": torch.cat(boxes)}


def _all(start: int, slots: Tensor, tie: Tensor, cuts: int, engine: Engine) -> Found:
    image, cut, boxes = _rows(ascend(slots, tie, engine, diagonal=True), slots, cuts, engine)
    below, outside = _inverted(slots, tie, cuts)
    holes = ascend(*below, engine, diagonal=False)
    image_h, cut_h, boxes_h = _rows(holes, below[0], cuts, engine, outside)
    around = to_device([-2, -2, 0, 0], slots.device)  # undo the frame, go around the hole
    return (
        torch.cat([image, image_h]) + start,
        torch.cat([cut, cuts - 1 - cut_h]),
        torch.cat([boxes, boxes_h + around]),
    )


def _inverted(slots: Tensor, tie: Tensor, cuts: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Turn maps upside down and put the outside around them, of which each has one pixel named."""
    around = F.pad(cuts - slots, (1, 1, 1, 1), value=cuts)
    n, height, width = around.shape
    last = torch.arange(1, n + 1, device=slots.device) * (height * width) - 1
    return (around, F.pad(1 - tie, (1, 1, 1, 1))), last


def _rows(
    basins: Basins, slots: Tensor, cuts: int, engine: Engine, outside: Tensor | None = None
) -> Found:
    """List image, cut and tight box of every component but those that hold an outside pixel."""
    root = components(basins, cuts, engine)
    extent = _merged(_from_above(_extents(basins, slots, cuts)), root)
    there = _alive(basins, slots, root)
    if outside is not None:
        there.scatter_(0, root[basins.of.view(-1)[outside]], False)
    basin, cut = there.nonzero(as_tuple=True)
    return _image_of(basins, slots)[basin], cut, _boxes(extent[:, basin, cut])


def _alive(basins: Basins, slots: Tensor, root: Tensor) -> Tensor:
    """Tell which basins are above a cut and lend their component the name."""
    height = slots.reshape(-1)[basins.peak]
    own, cut = (torch.arange(size, device=root.device) for size in root.shape)
    return (root == own[:, None]) & (height[:, None] > cut)


def _image_of(basins: Basins, slots: Tensor) -> Int[Tensor, " k"]:
    return basins.peak // (slots.shape[1] * slots.shape[2])


def _boxes(extent: Int[Tensor, "4 m"]) -> Int[Tensor, "m 4"]:
    return torch.cat([-extent[:2], extent[2:]]).T


def _extents(basins: Basins, slots: Tensor, cuts: int) -> Int[Tensor, "4 k t1"]:
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


def _largest(start: int, slots: Tensor, tie: Tensor, cuts: int, engine: Engine) -> Found:
    filled = _filled(slots, tie, cuts, engine)
    basins = ascend(filled, tie, engine, diagonal=True)
    root = components(basins, cuts, engine)
    table = torch.cat([_extents(basins, filled, cuts), _first(basins, filled, cuts)[None]])
    table = _merged(_from_above(table), root)
    there = _alive(basins, filled, root)
    halves = _half_areas(basins, filled, root, cuts)
    pixels = slots.shape[1] * slots.shape[2]
    score = torch.where(there, halves * pixels - table[4], -1)
    image = _image_of(basins, slots)
    best = torch.zeros(len(slots), cuts, dtype=torch.int64, device=slots.device)
    best.scatter_reduce_(0, image[:, None].expand_as(score), score, "amax")
    basin, cut = (there & (score == best[image])).nonzero(as_tuple=True)
    return image[basin] + start, cut, _boxes(table[:4, basin, cut])


def _first(basins: Basins, slots: Tensor, cuts: int) -> Int[Tensor, "k t1"]:
    """Return minus the first pixel in reading order of those that lie above so many cuts."""
    table = torch.full((len(basins.peak) * (cuts + 1),), NOWHERE, device=slots.device)
    key = (basins.of * (cuts + 1) + slots).view(-1)
    place = torch.arange(slots[0].numel(), device=slots.device).repeat(len(slots))
    return table.scatter_reduce_(0, key, -place, "amax").view(-1, cuts + 1)


def _half_areas(basins: Basins, slots: Tensor, root: Tensor, cuts: int) -> Int[Tensor, "k t"]:
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
    halves = torch.zeros(len(root) * size, dtype=torch.int64, device=key.device)
    halves = halves.scatter_add_(0, key, torch.ones_like(key)).view(-1, size)
    above = halves.flip(-1).cumsum(-1).flip(-1)[:, 1:]
    return torch.zeros_like(above).scatter_add_(0, root, above)


def _squares(x: Shaped[Tensor, "n H W"]) -> list[Shaped[Tensor, "n h w"]]:
    """Return the upper left, upper right, lower left and lower right pixels of all 2x2 squares."""
    return [x[:, :-1, :-1], x[:, :-1, 1:], x[:, 1:, :-1], x[:, 1:, 1:]]


def _filled(slots: Tensor, tie: Tensor, cuts: int, engine: Engine) -> Int[Tensor, "n H W"]:
    """Fill every hole above every cut: raise what no path below it leads out of."""
    below, outside = _inverted(slots, tie, cuts)
    basins = ascend(*below, engine, diagonal=False)
    root = components(basins, cuts, engine)
    out = basins.of.view(-1)[outside][_image_of(basins, below[0])]
    open_to = (root == root[out]).sum(1)  # so many cuts, the lowest upside down
    inner = basins.of[:, 1:-1, 1:-1].reshape(-1)
    return torch.maximum(slots, (cuts - open_to).gather(0, inner).view_as(slots))
