"""Which basins of many maps hang together above every cut, in three kernels: union-find.

The components of `components_triton`, with basins in the place of pixels: a basin is one node per
cut, and all pairs of touching basins are joined at all cuts below their saddle at once.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from attrib.localize.components_triton import BLOCK, COMPILED, _find, _join, _stretch

__all__ = ["followed", "united"]


def followed(up: Int[Tensor, " p"]) -> Int[Tensor, " p"]:
    """Follow pointers to where they end: at what points to itself.

    Args:
        up: Less than 2^31.
    """
    roots = up.int()
    with torch.cuda.device_of(up):  # Triton launches on the current one
        _follow[(triton.cdiv(len(up), BLOCK),)](roots, len(up), BLOCK, **COMPILED)
    return roots.long()


def united(
    ends: Int[Tensor, "2 q"], saddle: Int[Tensor, " q"], basins: int, cuts: int
) -> Int[Tensor, "basins cuts"]:
    """Name, above each cut, the first of the basins that each basin hangs together with.

    Args:
        ends: Pairs of basins that touch.
        saddle: At so many cuts, the first ones, the pair hangs together.
        basins: How many there are; with `cuts` for each, less than 2^31.
        cuts: How many there are; for each pair, less than 2^31.
    """
    roots = torch.arange(basins * cuts, dtype=torch.int32, device=ends.device)
    joints, first, second = saddle.numel() * cuts, *ends.int()
    if joints:
        with torch.cuda.device_of(ends):
            _unite_above[(triton.cdiv(joints, BLOCK),)](
                first, second, saddle.int(), roots, joints, cuts, BLOCK, **COMPILED
            )
    return followed(roots).view(basins, cuts) // max(cuts, 1)


@triton.jit
@no_type_check
def _follow(parents, count, BLOCK: tl.constexpr):  # noqa: N803
    """Point each node to its root."""
    at = _stretch(BLOCK)
    there = at < count
    tl.store(parents + at, _find(parents, at, there), mask=there)


@triton.jit
@no_type_check
def _unite_above(first, second, saddle, parents, joints, cuts, BLOCK: tl.constexpr):  # noqa: N803
    """Unite each pair of basins at each cut that their saddle lies above."""
    at = _stretch(BLOCK)
    pair, cut = at // cuts, at % cuts
    there = at < joints
    above = there & (cut < tl.load(saddle + pair, mask=there, other=0))
    a = tl.load(first + pair, mask=above, other=0) * cuts + cut
    b = tl.load(second + pair, mask=above, other=0) * cuts + cut
    _join(parents, a, b, above)
