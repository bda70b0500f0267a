"""Parts of a picture that are seen or hidden together, sets of them, and linear models of both."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attrib.errors import InputError
from attrib.types import ModelSpec

__all__ = ["Parts", "draw_half", "draw_orders", "draw_shapley", "least_squares", "parts_of"]

Parts = Literal["slic", "grid"]
"""What a picture is divided into: superpixels of like colour (scikit-image's SLIC), or squares."""


def parts_of(
    picture: Float[Tensor, "c h w"], kind: Parts, count: int, spec: ModelSpec
) -> Int[Tensor, "h w"]:
    """Number the parts of a picture from 0, on the CPU.

    Args:
        picture: Normalised as `spec` says.
        kind: See `Parts`.
        count: About so many.
        spec: How to find the colours again.

    Raises:
        InputError: all of the picture is one part.
    """
    labels = _superpixels(picture, count, spec) if kind == "slic" else _squares(picture, count)
    found, numbers = labels.unique(return_inverse=True)
    if len(found) < 2:
        raise InputError(
            f"parts={kind!r}, count={count} leaves a picture of {tuple(picture.shape[1:])} pixels "
            "in one part; give a larger count=, or parts='grid'"
        )
    return numbers  # type: ignore[no-any-return]


def _superpixels(picture: Tensor, count: int, spec: ModelSpec) -> Tensor:
    from skimage.segmentation import slic

    own = picture.detach().float().cpu()
    mean, std = (torch.tensor(x)[:, None, None] for x in (spec.mean, spec.std))
    colours = (own * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    labels = np.asarray(slic(colours, count, compactness=20, sigma=1, start_label=0))
    return torch.from_numpy(labels)


def _squares(picture: Tensor, count: int) -> Tensor:
    h, w = picture.shape[1:]
    side = max(1, round((h * w / count) ** 0.5))
    rows, cols = torch.arange(h) // side, torch.arange(w) // side
    numbers: Tensor = rows[:, None] * (cols[-1] + 1) + cols
    return numbers


def draw_half(count: int, samples: int, seed: int) -> Bool[Tensor, "s p"]:
    """Draw sets that hold each of so many parts with probability one half."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.full((1, count), 0.5)
    drawn = [torch.bernoulli(half, generator=generator) for _ in range(samples)]
    return torch.cat(drawn) > 0


def draw_shapley(count: int, samples: int, seed: int) -> Bool[Tensor, "s p"]:
    """Draw sets of parts, neither none nor all of them, by the weight of Kernel SHAP."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.arange(count)
    chance = (count - 1) / (sizes * (count - sizes))
    chance[0] = 0
    sets = [torch.zeros(0, count, dtype=torch.bool)]
    for _ in range(samples):
        size = int(torch.multinomial(chance / chance.sum(), 1, True, generator=generator))
        drawn = torch.randn(1, count, generator=generator)
        sets.append(drawn > drawn.kthvalue(count - size).values)
    return torch.cat(sets)


def draw_orders(count: int, samples: int, seed: int) -> Int[Tensor, "s p"]:
    """Draw orders of so many parts: the place of each part in each order."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(count, generator=generator) for _ in range(samples)]
    return torch.stack(orders).argsort(1)


def least_squares(
    kept: Bool[Tensor, "s p"],
    scores: Float[Tensor, "s n"],
    weights: Float[Tensor, " s"],
    penalty: float,
) -> Float[Tensor, "p n"]:
    """Fit linear models with a free intercept to scores of sets, in float64 on the CPU.

    Args:
        kept: Which parts each set holds.
        scores: Of each class.
        weights: Of the sets.
        penalty: Of the squared coefficients, as ridge regression has it.

    Returns:
        Coefficients of the parts; the shortest where several fit alike.
    """
    x, y, w = kept.double(), scores.double(), weights.double()
    share = w / w.sum()
    root, ridge = w.sqrt()[:, None], penalty**0.5 * torch.eye(x.shape[1], dtype=x.dtype)
    left = torch.cat([root * (x - share @ x), ridge])
    right = torch.cat([root * (y - share @ y), y.new_zeros(len(ridge), y.shape[1])])
    found: Tensor = torch.linalg.lstsq(left, right, driver="gelsd").solution
    return found
