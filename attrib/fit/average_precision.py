"""Average precision per class."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib.errors import InputError

__all__ = ["average_precision"]


def average_precision(
    scores: Float[Tensor, "m c"], labels: Bool[Tensor, "m c"]
) -> Float[Tensor, " c"]:
    r"""Area under each class's precision-recall curve, without interpolation.

    $$\mathrm{AP} = \sum_n (R_n - R_{n-1}) P_n$$

    over the distinct scores in descending order; pictures that tie enter together.

    Args:
        scores: Higher is more likely; compared within a class only.
        labels: Which classes are in which picture.

    Returns:
        In [0, 1], float64; NaN for a class that no picture has.

    Raises:
        InputError: a score is NaN.
    """
    if bool(scores.isnan().any()):
        raise InputError("average_precision takes numbers, got NaN among the scores")
    pairs = zip(scores.cpu().double().unbind(1), labels.cpu().unbind(1), strict=True)
    return torch.stack([_of_class(*pair) for pair in pairs])


def _of_class(scores: Float[Tensor, " m"], labels: Bool[Tensor, " m"]) -> Float[Tensor, ""]:
    if not bool(labels.any()):
        return torch.tensor(torch.nan, dtype=torch.float64)
    ranked, order = scores.sort(descending=True)
    last = torch.cat([ranked[1:] != ranked[:-1], labels.new_ones(1)])  # of those that tie
    hits = labels[order].double().cumsum(0)[last]
    precision = hits / (last.nonzero().flatten() + 1)
    recall = hits / hits[-1]
    return (recall.diff(prepend=recall.new_zeros(1)) * precision).sum()
