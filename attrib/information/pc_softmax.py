"""Probability-corrected softmax: a loss whose logits do not learn how frequent the classes are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError, TargetError

__all__ = ["Prior", "check_targets", "checked_prior", "pc_cross_entropy", "pc_log_softmax"]

Prior = Float[Tensor, " _c"] | Sequence[float]
"""A probability per class: all positive, summing to 1."""

TOLERANCE = 1e-4
"""How far from 1 a prior may sum; single precision needs less for any number of classes."""


def pc_log_softmax(logits: Float[Tensor, "n c"], prior: Prior) -> Float[Tensor, "n c"]:
    r"""Compute the logarithm of PC-softmax, which is an estimate of PMI.

    $$\log s_y = n_y - \log \sum_{y'} P(y')\, e^{n_{y'}}$$

    Qin et al., infoCAM, eq. 10. No probability of a class: $s_y$ may exceed 1, and
    $\sum_y P(y) s_y = 1$. The probability of the class is $P(y) s_y$. With equal priors this is
    `log_softmax` plus log c.

    Args:
        logits: Of a network trained with `pc_cross_entropy` and the same prior.
        prior: The probability of each class.

    Returns:
        Per class, in nats, of the logits' type.

    Raises:
        InputError: the prior is not positive, does not sum to 1, or has another length.
    """
    log_prior = checked_prior(prior, logits.shape[1]).log().to(logits)
    centred = logits - logits.detach().amax(1, keepdim=True)  # keeps digits of large logits
    return centred - torch.logsumexp(centred + log_prior, 1, keepdim=True)


def pc_cross_entropy(
    logits: Float[Tensor, "n c"], targets: Int[Tensor, " _n"], prior: Prior
) -> Float[Tensor, ""]:
    """Compute the mean of -log s_y over a batch: the loss that maximises mutual information.

    Qin et al., theorem 2. With equal priors it is `cross_entropy` minus log c, with the same
    gradient. The prior is checked at each call, on the CPU.

    Args:
        logits: What the network returns.
        targets: The class of each row.
        prior: The probability of each class, as counted on the training set.

    Raises:
        InputError: the prior is not positive, does not sum to 1, or has another length.
        TargetError: a class that the logits do not have, or another number of targets than rows.
    """
    check_targets(targets, logits)
    return F.nll_loss(pc_log_softmax(logits, prior), targets.long())


def checked_prior(prior: Prior, classes: int) -> Float64[Tensor, " c"]:
    """Return a prior in double precision on the CPU, or raise `InputError`."""
    given = prior.detach().cpu() if isinstance(prior, Tensor) else prior
    given = torch.as_tensor(given, dtype=torch.float64)
    if given.shape != (classes,):
        raise InputError(
            f"a prior of shape {tuple(given.shape)} for {classes} classes; "
            "give one probability per class"
        )
    if not bool((given > 0).all()):
        raise InputError(f"a prior is positive for every class, its least is {given.min():g}")
    if not abs(float(given.sum()) - 1) <= TOLERANCE:
        raise InputError(f"a prior sums to 1, got {given.sum():g}; divide counts by their total")
    return given


def check_targets(targets: Int[Tensor, " _n"], logits: Float[Tensor, "n c"]) -> None:
    """Raise `TargetError` unless there is one class of the logits per row."""
    n, c = logits.shape
    if targets.shape != (n,):
        raise TargetError(
            f"targets of shape {tuple(targets.shape)} for {n} rows of logits; give a class per row"
        )
    if n and not 0 <= int(targets.min()) <= int(targets.max()) < c:
        raise TargetError(
            f"targets are 0 to {c - 1}, got {int(targets.min())} to {int(targets.max())}"
        )
