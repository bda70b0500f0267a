"""How RIB's class maps become logits, and the losses on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.methods.rib.options import Preset, RIBOptions
from attrib.models import SpatialClassifier

__all__ = ["gndrp", "loss_of", "multi_scale_cam", "pool", "positive"]


def gndrp(
    maps: Float[Tensor, "n c u v"],
    labels: Bool[Tensor, "n c"],
    tau: float,
    *,
    preset: Preset = "official",
) -> Float[Tensor, "n c"]:
    """Pool class maps over their global non-discriminative region.

    For a class that a row is labelled with, cells from `tau` of its maximum on are left out; other
    classes are pooled over all cells. A class whose maximum is negative is left out entirely, and
    gives 0 without a gradient.

    Args:
        maps: Raw class maps.
        labels: Each row's classes.
        tau: See `RIBOptions`.
        preset: `"official"` selects below `tau` and divides by all cells; `"paper"` selects up to
            and including `tau` and divides by the selected cells.
    """
    ratio = (maps / maps.amax((2, 3), keepdim=True)).detach()
    ratio = torch.where(labels[:, :, None, None], ratio, -1)
    if preset == "official":
        return (maps * (ratio < tau)).mean((2, 3))
    selected = ratio <= tau
    return (maps * selected).sum((2, 3)) / selected.sum((2, 3)).clamp(min=1)


def pool(
    maps: Float[Tensor, "n c u v"], labels: Bool[Tensor, "n c"], options: RIBOptions
) -> Float[Tensor, "n c"]:
    """Pool class maps into logits as the options say."""
    if options.pooling == "gap":
        return maps.mean((2, 3))
    return gndrp(maps, labels, options.tau, preset=options.preset)


def loss_of(
    logits: Float[Tensor, "n c"], labels: Bool[Tensor, "n c"], options: RIBOptions
) -> Float[Tensor, ""]:
    """Sum the loss over rows and classes, so that it adds up over any parts of a batch."""
    if options.preset == "paper":
        logits = logits.clamp(max=options.margin)
    return LOSSES[options.loss](logits, labels)


def positive(maps: Float[Tensor, "_r c u v"]) -> Float[Tensor, "c u v"]:
    """Add the positive part of a picture's maps and, flipped back, of its mirror image's."""
    maps = maps.detach().relu()
    return maps[0] + maps[1].flip(2) if len(maps) == 2 else maps[0]


def multi_scale_cam(
    classifier: SpatialClassifier, views: Sequence[Float[Tensor, "_r _ _h _w"]]
) -> list[Float[Tensor, "c _u _v"]]:
    """Add each scale's positive class maps of the picture and, flipped back, its mirror image.

    Args:
        classifier: The model, split.
        views: Per scale, the normalised picture, and its mirror image if there is a second row.
    """
    return [positive(classifier.class_maps(classifier.forward(view).grid)) for view in views]


def _rib(logits: Float[Tensor, "n c"], labels: Bool[Tensor, "n c"]) -> Tensor:
    return -(logits * labels).sum()


def _cross_entropy(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        probability = activation(logits).clamp(1e-7, 1 - 1e-7)
        return F.binary_cross_entropy(probability, labels.to(logits.dtype), reduction="sum")

    return loss


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rib": _rib,
    "sigmoid": _cross_entropy(torch.sigmoid),
    "tanh": _cross_entropy(lambda y: (torch.tanh(y) + 1) / 2),
    "softsign": _cross_entropy(lambda y: (F.softsign(y) + 1) / 2),
}
"""By the name of the final activation; `rib` has none."""
