"""Parts of a picture that are taken away together, and a linear model of what that does."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attrib.errors import InputError
from attrib.types import ModelSpec

__all__ = ["LinearModel", "Parts", "parts_of"]

Parts = Literal["slic", "grid"]
"""What a picture is divided into: superpixels of like colour (scikit-image's SLIC), or squares."""


def parts_of(
    picture: Float[Tensor, "c h w"], kind: Parts, count: int, spec: ModelSpec
) -> Int[Tensor, "1 1 h w"]:
    """Number the parts of a picture from 0.

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
    own: Tensor = numbers.view(1, 1, *picture.shape[1:]).to(picture.device)
    return own


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


class LinearModel:
    """Weighted least squares with a free intercept, in the form that Captum's explainers fit.

    In float64 on the CPU, exactly: there are as many unknowns as parts.

    Args:
        penalty: Of the squared coefficients, as ridge regression has it.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty
        self.coefficients: Tensor | None = None

    def fit(self, train_data: Any, **_options: Any) -> dict[str, Any]:
        """Fit to batches of (parts kept, class score, weight)."""
        batches = [[x.double().cpu() for x in batch] for batch in train_data]
        kept, scores, weights = (torch.cat(column) for column in zip(*batches, strict=True))
        self._device, share = train_data.dataset.tensors[0].device, weights / weights.sum()
        kept = kept - share @ kept
        scores = scores - share @ scores
        root = weights.sqrt()
        ridge = self.penalty**0.5 * torch.eye(kept.shape[1], dtype=kept.dtype)
        left = torch.cat([root[:, None] * kept, ridge])
        right = torch.cat([root * scores, scores.new_zeros(len(ridge))])
        solved = torch.linalg.lstsq(left, right[:, None], driver="gelsd").solution
        self.coefficients = solved.T.float().to(self._device)
        return {}

    def representation(self) -> Float[Tensor, "1 parts"]:
        """Give the coefficients."""
        if self.coefficients is None:
            raise RuntimeError("a linear model has coefficients once it is fitted")
        return self.coefficients
