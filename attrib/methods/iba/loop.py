"""The bottleneck's loop on features, whatever network follows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError
from attrib.methods.iba.statistics import Statistics

__all__ = ["IBAStep", "Loss", "iba"]

START = 5.0
"""Every alpha at first: sigmoid(5) lets 99.3 % of a feature pass."""
LEAST_STD = 0.01
FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8
"""Adam's usual constants."""

Loss = Callable[[Float[Tensor, "s n k u v"]], Float[Tensor, " n"]]
"""Tells how badly each pair's class is told from noisy features: the mean over `s` draws."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IBAStep:
    """What one forward pass finds.

    Args:
        alpha: Before the update that follows.
        capacity: In nats.
        loss: Of each pair, with the information's part.
    """

    alpha: Float[Tensor, "n k u v"]
    capacity: Float[Tensor, "n k u v"]
    loss: Float[Tensor, " n"]


def iba(
    loss: Loss,
    features: Float[Tensor, "n k u v"],
    statistics: Statistics,
    noise: Iterable[Float[Tensor, "s k u v"]],
    *,
    beta: float = 10.0,
    lr: float = 1.0,
    sigma: float = 1.0,
) -> Iterator[IBAStep]:
    """Run the bottleneck with everything given: what a replay or an extension needs.

    Each pair has alphas of its own, and none depends on another pair.

    Args:
        loss: What is to stay small, differentiable.
        features: One row per pair.
        statistics: Of these features.
        noise: One draw per step, the same for all pairs.
        beta: Weight of the information.
        lr: Learning rate of Adam.
        sigma: Deviation in cells of the Gaussian that smooths lambda; 0 for none.

    Yields:
        Each forward pass. The update that follows it is made when the next one is asked for.

    Raises:
        InputError: the grid is too small for sigma.
    """
    r = features.to(torch.promote_types(features.dtype, torch.float32))
    known = (statistics.mean, statistics.std, statistics.active)
    mean, std, active = (x.to(r, non_blocking=r.is_cuda) for x in known)
    s = std.clamp(min=LEAST_STD)
    down, across = (_smoothing(sigma, side).to(r, non_blocking=True) for side in r.shape[2:])
    alpha = torch.full_like(r, START).requires_grad_()
    first, second = torch.zeros_like(r), torch.zeros_like(r)
    for step, eps in enumerate(noise, 1):
        with torch.enable_grad():
            # the complement of lambda is what is small, and what the logarithm is taken of
            rest = down @ torch.sigmoid(-alpha) @ across.T
            z = (
                (1 - rest) * r + rest * (s * eps.to(r, non_blocking=True)[:, None] + mean)
            ) * active
            signal = (1 - rest) * (r - mean) / s
            capacity = -0.5 * (1 + 2 * rest.log() - signal**2 - rest**2) * active
            total = loss(z) + beta * capacity.mean((1, 2, 3))
        yield IBAStep(alpha=alpha.detach(), capacity=capacity.detach(), loss=total.detach())
        (gradient,) = torch.autograd.grad(total, alpha, torch.ones_like(total))
        # Adam by hand: torch.optim loads torch's compiler, which takes longer than a picture
        first = FIRST * first + (1 - FIRST) * gradient
        second = SECOND * second + (1 - SECOND) * gradient**2
        scale = (second / (1 - SECOND**step)).sqrt() + EPSILON
        alpha = (alpha.detach() - lr * first / (1 - FIRST**step) / scale).requires_grad_()


def _smoothing(sigma: float, side: int) -> Float[Tensor, "side side"]:
    """Make the matrix that smooths one axis: a Gaussian cut at two deviations, edges mirrored."""
    reach = round(2 * sigma)
    if reach >= side:
        raise InputError(
            f"a grid with a side of {side} cells is too small for sigma={sigma:g}, which takes "
            f"{reach + 1}; choose an earlier layer='...' or a smaller sigma"
        )
    unit = torch.eye(side, dtype=torch.float64)
    if not reach:
        return unit
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    mirrored = F.pad(unit[None], (reach, reach), mode="reflect")[0]
    return (mirrored.unfold(1, len(weights), 1) @ (weights / weights.sum())).T
