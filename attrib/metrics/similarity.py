"""How alike two maps are: structural similarity and rank correlation, batched."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError

__all__ = ["spearman", "ssim"]

WINDOW = 7
K1, K2 = 0.01, 0.03


def ssim(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Compute the structural similarity of maps in [0, 1], with a uniform window of 7 pixels.

    Wang et al., *Image quality assessment: from error visibility to structural similarity*; the
    mean over windows that lie within the map, with unbiased variances, as in scikit-image.

    Raises:
        InputError: the maps differ in shape or are smaller than the window.
    """
    if a.shape != b.shape or min(a.shape[1:]) < WINDOW:
        raise InputError(
            f"maps to compare are of one shape and at least {WINDOW} pixels a side, got "
            f"{tuple(a.shape)} and {tuple(b.shape)}"
        )
    x, y = a.double()[:, None], b.double()[:, None]
    mx, my, xx, yy, xy = (F.avg_pool2d(z, WINDOW, 1) for z in (x, y, x * x, y * y, x * y))
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    vx, vy, cov = (unbiased * v for v in (xx - mx * mx, yy - my * my, xy - mx * my))
    c1, c2 = K1**2, K2**2
    each = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return each.mean((1, 2, 3)).float()


def spearman(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Compute Spearman's rank correlation; equal values share their mean rank.

    NaN where one of the two is constant.
    """
    x, y = (_ranks(z.flatten(1).double()) for z in (a, b))
    x, y = (z - z.mean(1, keepdim=True) for z in (x, y))
    return ((x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()).float()


def _ranks(values: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    ordered = values.sort(dim=1).values
    below = torch.searchsorted(ordered, values)
    upto = torch.searchsorted(ordered, values, right=True)
    return (below + upto).double() / 2
