"""Connected components of many masks in three kernels: union-find on the device.

The label-equivalence scheme of Komura, and Playne and Hawick. Each program owns a stretch of
pixels in reading order. (1) Every pixel points to the first pixel of its run. (2) Runs that touch
are united: the higher root is pointed to the lower by an atomic minimum, and whoever lost a race
goes on with what the winner wrote. (3) Every pixel looks up its root, and both ends of each run
add its extent to the root's. Pointers only ever go down, so every loop ends; nothing is iterated
from the host and nothing returns to it.

Run by Triton's interpreter on the CPU if `TRITON_INTERPRET=1` is set before Triton is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Int
from torch import Tensor

__all__ = ["BLOCK", "Table", "component_table"]

BLOCK = 256
"""Pixels that a program owns: a power of 2."""
COMPILED = {"enable_fp_fusion": False}
"""For Triton 3.9, which warns where this is left open: these kernels know whole numbers only."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """All components of all masks. A component is listed at its first pixel in reading order.

    Args:
        roots: Of each pixel, the index of its component's first pixel in its mask; -1 outside.
        areas: Pixels of the component that begins here; 0 where none does.
        boxes: Its half-open `x0 y0 x1 y1`; where none begins, of no meaning.
    """

    roots: Int[Tensor, "n p"]
    areas: Int[Tensor, "n p"]
    boxes: Int[Tensor, "4 n p"]


def component_table(masks: Bool[Tensor, "n H W"], block: int | None = None) -> Table:
    """Label, count and box every 8-connected component of every mask.

    Args:
        masks: Less than 2^31 pixels in all.
        block: Pixels per program, a power of 2, which changes no answer; None for `BLOCK`.
    """
    block = block or BLOCK
    n, height, width = masks.shape
    masks, pixels = masks.contiguous(), masks.numel()
    parents = torch.empty(masks.shape, dtype=torch.int32, device=masks.device)
    sums = torch.zeros(4, pixels, dtype=torch.int32, device=masks.device)
    if pixels:
        grid, of = (triton.cdiv(pixels, block),), (pixels, height, width, block)
        with torch.cuda.device_of(masks):  # Triton launches on the current one
            _point_to_runs[grid](masks, parents, pixels, width, block, **COMPILED)
            _unite[grid](masks, parents, *of, **COMPILED)
            _measure[grid](masks, parents, sums, *of, **COMPILED)
    first = torch.arange(height * width, dtype=torch.int32, device=masks.device)
    areas, from_right, x1, y1 = sums.view(4, n, height * width)
    y0 = (first // max(width, 1)).expand_as(areas)
    boxes = torch.stack([width - from_right, y0, x1, y1])
    return Table(roots=_within_masks(parents.flatten(1)), areas=areas, boxes=boxes)


def _within_masks(roots: Int[Tensor, "n p"]) -> Int[Tensor, "n p"]:
    """Count from the first pixel of each mask rather than of the batch."""
    start = torch.arange(len(roots), dtype=torch.int32, device=roots.device) * roots.shape[1]
    return torch.where(roots < 0, -1, roots - start[:, None])


@triton.jit
@no_type_check
def _stretch(BLOCK: tl.constexpr):  # noqa: N803
    return tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
@no_type_check
def _load(masks, at, there):
    return tl.load(masks + at, mask=there, other=0) != 0


@triton.jit
@no_type_check
def _without(a, b):
    return a ^ (a & b)  # the interpreter of Triton 3.3 has no `~` of booleans


@triton.jit
@no_type_check
def _higher(a, b):
    return tl.maximum(a, b)


@triton.jit
@no_type_check
def _find(parents, at, active):
    """Follow pointers down to the root of each active pixel."""
    below = tl.load(parents + at, mask=active, other=0, cache_modifier=".cg")
    below = tl.where(active, below, at)
    while tl.max((below != at).to(tl.int32), 0) > 0:
        at = below
        below = tl.load(parents + at, mask=active, other=0, cache_modifier=".cg")
        below = tl.where(active, below, at)
    return at


@triton.jit
@no_type_check
def _join(parents, a, b, active):
    """Bring the components of each active pair of pixels under one root."""
    while tl.max(active.to(tl.int32), 0) > 0:
        a = _find(parents, a, active)
        b = _find(parents, b, active)
        high = tl.maximum(a, b)
        low = tl.minimum(a, b)
        active = active & (high != low)
        found = tl.atomic_min(parents + high, low, mask=active, sem="relaxed")
        active = active & (found != high)  # no root any more: what it pointed to is yet to join
        a = tl.where(active, found, high)
        b = low


@triton.jit
@no_type_check
def _point_to_runs(masks, parents, pixels, width, BLOCK: tl.constexpr):  # noqa: N803
    """Point each pixel to where its run begins, within its row and its stretch; others to -1."""
    at = _stretch(BLOCK)
    inside = _load(masks, at, at < pixels)
    goes_on = inside & (at % width > 0) & (at % BLOCK > 0)
    start = tl.associative_scan(tl.where(goes_on, 0, tl.where(inside, at, at + 1)), 0, _higher)
    tl.store(parents + at, tl.where(inside, start, -1), mask=at < pixels)


@triton.jit
@no_type_check
def _unite(masks, parents, pixels, height, width, BLOCK: tl.constexpr):  # noqa: N803
    """Unite each run with those above it, once per pair, and with what its stretch cut off."""
    at = _stretch(BLOCK)
    x = at % width
    inside = _load(masks, at, at < pixels)
    lower = inside & (at // width % height > 0)
    left = _load(masks, at - 1, inside & (x > 0))
    right = _load(masks, at + 1, inside & (x + 1 < width))
    above = _load(masks, at - width, lower)
    above_left = _load(masks, at - width - 1, lower & (x > 0))
    above_right = _load(masks, at - width + 1, lower & (x + 1 < width))
    straight = _without(above, left & above_left)
    slanted = _without(above_left, above | left)
    _join(parents, at, tl.where(above, at - width, at - width - 1), straight | slanted)
    _join(parents, at, at - width + 1, _without(above_right, above | right))
    _join(parents, at, at - 1, left & (at % BLOCK == 0))


@triton.jit
@no_type_check
def _measure(masks, parents, sums, pixels, height, width, BLOCK: tl.constexpr):  # noqa: N803
    """Point each pixel to its root, and add the ends of each run, in x, to its root."""
    at = _stretch(BLOCK)
    x = at % width
    inside = _load(masks, at, at < pixels)
    begins = _without(inside, _load(masks, at - 1, inside & (x > 0)))
    ends = _without(inside, _load(masks, at + 1, inside & (x + 1 < width)))
    root = _find(parents, at, inside)
    tl.store(parents + at, root, mask=inside)
    length = tl.where(ends, x + 1, 0) - tl.where(begins, x, 0)
    from_right, right, bottom = sums + pixels, sums + 2 * pixels, sums + 3 * pixels
    tl.atomic_add(sums + root, length, mask=begins | ends, sem="relaxed")
    tl.atomic_max(from_right + root, width - x, mask=begins, sem="relaxed")
    tl.atomic_max(right + root, x + 1, mask=ends, sem="relaxed")
    tl.atomic_max(bottom + root, at // width % height + 1, mask=ends, sem="relaxed")
