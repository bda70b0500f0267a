"""Five overlapping Gaussians, whose mutual information with their labels is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from attrib.errors import InputError
from attrib.information.estimates import MutualInformation, mutual_information
from attrib.information.pc_softmax import Prior, checked_prior

__all__ = ["MEANS", "gaussian_log_densities", "gaussian_mixture", "true_mi"]

MEANS = (0.0, 2.0, -2.0, 4.0, -4.0)
"""Of each class, the same along every axis; covariances are the identity."""


def gaussian_mixture(
    dimension: int, counts: Sequence[int], seed: int = 0
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Draw points of the five Gaussians of the infoCAM paper's table 1, in random order.

    Args:
        dimension: Of the points; 1, 2, 5 and 10 in the paper.
        counts: Points per class; 12,000 each, or 6,000 to 30,000 in steps of 6,000.
        seed: The process's random state is left alone.

    Returns:
        Points and their labels, 0 to 4.

    Raises:
        InputError: the dimension is not positive, or counts are not five that are not negative.
    """
    if len(counts) != len(MEANS) or min(counts) < 0:
        raise InputError(f"counts are {len(MEANS)} numbers of points, got {list(counts)}")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(MEANS)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    return _around(labels, dimension, generator).float(), labels


def gaussian_log_densities(points: Float[Tensor, "n d"]) -> Float[Tensor, "n 5"]:
    """Compute log P(x|y) but for a constant: the logits that PC-softmax would learn at best."""
    distance = points[:, None] - torch.tensor(MEANS).to(points)[:, None]
    return -0.5 * distance.square().sum(2)


def true_mi(
    dimension: int,
    prior: Prior | None = None,
    samples: int = 200_000,
    seed: int = 0,
    *,
    bootstrap: int = 1000,
) -> MutualInformation:
    """Estimate the true mutual information of points and labels by Monte Carlo.

    Qin et al., infoCAM, eq. 11: the mean of log P(x|y) - log P(x) over drawn pairs. That is
    `mutual_information` of the true log densities.

    Args:
        dimension: Of the points.
        prior: Probability of each of the five classes; None for equal ones.
        samples: How many pairs to draw.
        seed: The process's random state is left alone.
        bootstrap: As for `mutual_information`.

    Raises:
        InputError: the dimension or the number of samples is not positive, or the prior is wrong.
    """
    if samples < 1:
        raise InputError(f"samples is at least 1, got {samples}")
    classes = len(MEANS)
    known = checked_prior([1 / classes] * classes if prior is None else prior, classes)
    generator = torch.Generator().manual_seed(seed)
    labels = known.multinomial(samples, replacement=True, generator=generator)
    points = _around(labels, dimension, generator)
    logits = gaussian_log_densities(points)
    return mutual_information(logits, labels, known, bootstrap=bootstrap, seed=seed)


def _around(
    labels: Int[Tensor, " n"], dimension: int, generator: torch.Generator
) -> Float64[Tensor, "n d"]:
    if dimension < 1:
        raise InputError(f"dimension is at least 1, got {dimension}")
    noise = torch.randn(len(labels), dimension, generator=generator, dtype=torch.float64)
    return noise + torch.tensor(MEANS, dtype=torch.float64)[labels, None]
