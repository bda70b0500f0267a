"""Noisy linear imputation: missing pixels as weighted means of their neighbours, all at once."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError

__all__ = ["impute"]

TOLERANCE = 1e-5
"""Of the residual against the right-hand side: a fiftieth of the noise that ROAD adds."""

CHECK = 5
"""Steps between two looks at the residual, each of which makes a GPU wait."""
TINY = 1e-30


def impute(
    images: Float[Tensor, "m k h w"],
    missing: Bool[Tensor, "m h w"],
    noise: Float[Tensor, "#m k h w"] | None = None,
) -> Float[Tensor, "m k h w"]:
    r"""Fill missing pixels in so that each is the weighted mean of its eight neighbours.

    $$x_i = \sum_j w_{ij} x_j \Big/ \sum_j w_{ij}, \quad w = \tfrac{1}{6}
    \text{ for the four nearest}, \tfrac{1}{12} \text{ for the diagonal ones}$$

    Rong et al., *A Consistent and Efficient Evaluation Strategy for Attribution Methods*, section
    4.2, weights as in the authors' code; neighbours beyond the edge do not count. The linear
    system is symmetric and is solved by conjugate gradients, a picture and channel each on its
    own, from the picture's own pyramid of means, all in one batch on the pictures' device.

    Args:
        images: Of any values.
        missing: Which pixels are to be filled in; their values are not read.
        noise: Added to what was filled in.

    Raises:
        InputError: nothing is known of a picture.
    """
    if bool(missing.flatten(1).all(1).any()):
        raise InputError("no pixel of a picture is known; there is nothing to fill it in from")
    kind = torch.promote_types(images.dtype, torch.float32)
    hole = missing[:, None].to(kind)
    known = torch.where(missing[:, None], 0, images.to(kind))
    weight = _neighbours(torch.ones_like(hole[:1]))
    filled = _solve(weight, hole, hole * _neighbours(known), hole * _pyramid(known, 1 - hole))
    out = (known + filled).to(images.dtype)
    return out if noise is None else out + hole.to(out.dtype) * noise


def _neighbours(x: Float[Tensor, "m k h w"]) -> Float[Tensor, "m k h w"]:
    """Sum the weighted neighbours: (1 2 1) along both axes, without the middle, over 12."""
    rows = F.pad(x, (0, 0, 1, 1))
    rows = rows[:, :, :-2] + rows[:, :, 2:] + 2 * x
    columns = F.pad(rows, (1, 1))
    out = columns[..., :-2] + columns[..., 2:] + 2 * rows
    return out.sub_(x, alpha=4).div_(12)


def _solve(
    weight: Tensor, hole: Tensor, right: Float[Tensor, "m k h w"], x: Float[Tensor, "m k h w"]
) -> Float[Tensor, "m k h w"]:
    """Run conjugate gradients for `hole * (weight * x - neighbours(x)) = right`."""

    def apply(y: Tensor) -> Tensor:
        return hole * (weight * y - _neighbours(y))

    residual = right - apply(x)
    direction, square = residual, _dot(residual, residual)
    least = TOLERANCE**2 * _dot(right, right)
    for step in range(right[0, 0].numel() + CHECK):
        if step % CHECK == 0 and bool((square <= least).all()):
            break
        image = apply(direction)
        length = square / _dot(direction, image).clamp(min=TINY)
        x, residual = x + length * direction, residual - length * image
        square, before = _dot(residual, residual), square
        direction = residual + square / before.clamp(min=TINY) * direction
    return x


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "m k 1 1"]:
    return (a * b).sum((2, 3), keepdim=True)


def _pyramid(known: Float[Tensor, "m k h w"], there: Tensor) -> Float[Tensor, "m k h w"]:
    """Guess: each pixel's mean over the smallest block of a pyramid that holds known ones."""
    h, w = known.shape[2:]
    if bool(there.all()) or max(h, w) == 1:
        return known / there.clamp(min=TINY)
    pad = (0, w % 2, 0, h % 2)
    coarse = _pyramid(*(F.avg_pool2d(F.pad(x, pad), 2) for x in (known, there)))
    above = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :h, :w]
    return torch.where(there > 0, known / there.clamp(min=TINY), above)
