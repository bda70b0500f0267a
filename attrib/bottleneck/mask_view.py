"""What a finished classifier is shown of a masked picture, and what it then answers worse."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError

__all__ = ["Fill", "blend", "class_cost", "filling"]

Fill = Literal["mean", "data-mean", "blur"]
"""What a hidden pixel shows: the mean colour that the model's spec subtracts, that of the training
pictures, or the picture as means over squares of 16 pixels, enlarged bilinearly."""
BLUR = 16
"""Sides of those squares."""


def filling(
    images: Float[Tensor, "b k h w"], fill: Fill, colour: Float[Tensor, " k"] | None = None
) -> Float[Tensor, "b k h w"]:
    """Return what hidden pixels show; see `Fill`.

    Args:
        images: Normalised, so that the spec's mean colour is 0.
        fill: See `Fill`.
        colour: Of the training pictures, normalised likewise, for `"data-mean"`.

    Raises:
        InputError: no colour where one is needed.
    """
    if fill == "mean":
        return torch.zeros_like(images)
    if fill == "data-mean":
        if colour is None:
            raise InputError("fill='data-mean' takes the mean colour of the training pictures")
        return colour.to(images)[:, None, None].expand_as(images)
    squares = [max(1, round(side / BLUR)) for side in images.shape[2:]]
    means = F.adaptive_avg_pool2d(images, squares)  # type: ignore[arg-type]
    return F.interpolate(means, size=images.shape[2:], mode="bilinear")


def blend(
    images: Float[Tensor, "b k h w"],
    mask: Float[Tensor, "b 1 h w"],
    fill: Float[Tensor, "b k h w"],
) -> Float[Tensor, "b k h w"]:
    """Show the pictures where the mask is 1, what is filled in where it is 0."""
    return fill + mask * (images - fill)


def class_cost(
    logits: Float[Tensor, "b c"],
    whole: Float[Tensor, "b c"],
    classes: Bool[Tensor, "b c"],
    asked: Int[Tensor, " b"] | None,
    *,
    multi_label: bool,
) -> Float[Tensor, " b"]:
    """Price what masks take from a classifier's answers, in nats; see `PosthocMask`.

    Args:
        logits: Through the masks.
        whole: For whole pictures.
        classes: That masks have to keep; exactly one unless the classifier is multi-label.
        asked: Class of each mask, or None where masks are of no class.
        multi_label: Outputs are independent.
    """
    if asked is None and multi_label:
        costs = F.binary_cross_entropy_with_logits(logits, classes.to(logits), reduction="none")
        return costs.sum(1)
    if asked is None:
        return F.cross_entropy(logits, classes.int().argmax(1), reduction="none")
    own = classes.gather(1, asked[:, None])[:, 0]
    found, given = (_log_probability(x, asked, multi_label) for x in (logits, whole))
    return torch.where(own, -found, (given - found).clamp(min=0))


def _log_probability(
    logits: Float[Tensor, "b c"], asked: Int[Tensor, " b"], multi_label: bool
) -> Float[Tensor, " b"]:
    scores = F.logsigmoid(logits) if multi_label else F.log_softmax(logits, 1)
    return scores.gather(1, asked[:, None])[:, 0]
