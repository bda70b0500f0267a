"""The basins of maps, and which of them hang together above each cut: batched, on any device.

Two ways to one answer: kernels in Triton, which nothing iterates from the host, and plain torch,
which asks once per round whether it is done.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attrib.localize.components import Engine

__all__ = ["Basins", "ascend", "components"]

INDEX_BITS, TIE_BITS = 30, 24
LOW_BITS = (1 << INDEX_BITS) - 1
NEIGHBOURS = ((0, 1), (1, 0), (1, -1), (1, 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Basins:
    """Numbered through the whole batch.

    Args:
        of: Basin of each pixel.
        peak: Flat index of each basin's highest pixel.
        ends: The basins of each two neighbouring pixels that lie in different ones.
        saddle: How many cuts both of those pixels lie above: so many times the two hang together.
    """

    of: Int[Tensor, "n H W"]
    peak: Int[Tensor, " k"]
    ends: Int[Tensor, "2 q"]
    saddle: Int[Tensor, " q"]


def ascend(
    slots: Int[Tensor, "n H W"], tie: Float[Tensor, "n H W"], engine: Engine, *, diagonal: bool
) -> Basins:
    """Send each pixel up to its highest neighbour, again and again, until it is on a peak.

    Args:
        slots: How many cuts each pixel lies above.
        tie: In [0, 1], orders the pixels of one slot.
        engine: `"triton"` or `"torch"`.
        diagonal: Pixels have eight neighbours, not four.
    """
    index = torch.arange(slots.numel(), device=slots.device)
    rank = (slots << TIE_BITS) + (tie * ((1 << TIE_BITS) - 1)).long()
    ordered = (rank << INDEX_BITS).view(-1).add_(index).view_as(slots)  # a total order
    up = _followed((_highest(ordered, diagonal) & LOW_BITS).view(-1), engine)
    peak = (up == index).nonzero().view(-1)
    number = torch.empty_like(up)
    number[peak] = torch.arange(len(peak), device=up.device)
    of = number.gather(0, up)
    pairs = _touching(of.view_as(slots), diagonal=diagonal).view(-1)
    return Basins(
        of=of.view_as(slots),
        peak=peak,
        ends=of.gather(0, pairs).view(2, -1),
        saddle=slots.reshape(-1).gather(0, pairs).view(2, -1).amin(0),
    )


def components(basins: Basins, cuts: int, engine: Engine) -> Int[Tensor, "k t"]:
    """Name, above each of so many cuts, one basin of those that each basin hangs together with."""
    if engine == "triton":
        from attrib.localize.level_sets_triton import united

        return united(basins.ends, basins.saddle, len(basins.peak), cuts)
    ends, saddle = _forest(basins)
    above = saddle[:, None] > torch.arange(cuts, device=saddle.device)
    root = torch.arange(len(basins.peak), device=saddle.device)[:, None].repeat(1, cuts)
    while True:
        a, b = root.index_select(0, ends[0]), root.index_select(0, ends[1])
        highest = torch.maximum(a, b) * above
        hooked = root.scatter_reduce(0, torch.minimum(a, b), highest, "amax")
        hooked = hooked.gather(0, hooked)
        hooked = hooked.gather(0, hooked)
        if torch.equal(hooked, root):
            return root
        root = hooked


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


def _forest(basins: Basins) -> tuple[Int[Tensor, "2 e"], Int[Tensor, " e"]]:
    """Keep of the saddles what decides which basins hang together: a maximum spanning forest.

    Borůvka's rounds: each tree takes the highest saddle that leads out of it, until none does.
    """
    ends, saddle = basins.ends, basins.saddle
    rank = (saddle << INDEX_BITS) + torch.arange(len(saddle), device=ends.device)  # a total order
    tree = own = torch.arange(len(basins.peak), device=ends.device)
    a, b, kept = *ends, [rank[:0]]
    while len(rank):
        best = torch.full_like(tree, -1)
        best.scatter_reduce_(0, a, rank, "amax").scatter_reduce_(0, b, rank, "amax")
        edge = best.clamp(min=0) & LOW_BITS
        other = tree.gather(0, ends.index_select(1, edge).view(-1)).view(2, -1).sum(0) - own
        to = torch.where(best < 0, own, other)
        to = torch.where((to.gather(0, to) == own) & (own > to), own, to)  # both took one saddle
        kept.append(edge[to != own])
        to = _followed(to, "torch")
        tree, a, b = (to.gather(0, x) for x in (tree, a, b))
        apart = (a != b).nonzero().view(-1)
        a, b, rank = (x.gather(0, apart) for x in (a, b, rank))
    edge = torch.cat(kept)
    return ends[:, edge], saddle[edge]


def _followed(up: Int[Tensor, " p"], engine: Engine) -> Int[Tensor, " p"]:
    """Follow pointers to where they end: at what points to itself."""
    if engine == "triton":
        from attrib.localize.level_sets_triton import followed

        return followed(up)
    while True:
        further = up.gather(0, up)
        if torch.equal(further, up):
            return up
        up = further
