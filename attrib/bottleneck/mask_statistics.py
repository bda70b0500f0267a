"""What a mask shows and hides, and what the classifier makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attrib.bottleneck.mask_model import MaskModel
from attrib.bottleneck.mask_terms import grown_mask, random_rectangles
from attrib.errors import InputError

__all__ = [
    "MaskStatistics",
    "area_accuracy",
    "inside_outside",
    "mask_area",
    "mask_statistics",
    "mean_by_class",
]

BINS = 50
"""Of a mask's area, for the classifier that knows nothing else."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskStatistics:
    """Scores over a set of pictures; fractions, but for `vae`.

    Args:
        accuracy: Under Boolean masks drawn from the model.
        accuracy_likely: Under each picture's most likely Boolean mask, as `MaskModel.forward`.
        accuracy_grown: Under the drawn masks with a random rectangle shown too.
        class_accuracy: `accuracy` per class; NaN for one without pictures.
        class_accuracy_grown: `accuracy_grown`, likewise.
        area: Mean share of seen pixels per class (the paper's per-pixel l1 norm).
        area_accuracy: Of a classifier that knows a mask's area only.
        inside: Mean of the mask inside the true regions, over pictures that have one.
        outside: The same outside.
        vae: V in nats, with the masks of the training.
        probability: The model's ρ for every picture.
    """

    accuracy: float
    accuracy_likely: float
    accuracy_grown: float
    class_accuracy: Float[Tensor, " classes"]
    class_accuracy_grown: Float[Tensor, " classes"]
    area: Float[Tensor, " classes"]
    area_accuracy: float
    inside: float
    outside: float
    vae: float
    probability: Float[Tensor, "m 1 h w"]


def mask_area(mask: Float[Tensor, "m 1 h w"]) -> Float[Tensor, " m"]:
    """Return the share of seen pixels: the mask's l1 norm per pixel."""
    return mask.abs().mean((1, 2, 3))


def inside_outside(
    mask: Float[Tensor, "m 1 h w"], regions: Bool[Tensor, "m h w"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Average each mask inside and outside a region; NaN where there is no such pixel."""
    plane, inside = mask[:, 0], regions.to(mask)
    outside = 1 - inside
    return (
        (plane * inside).sum((1, 2)) / inside.sum((1, 2)),
        (plane * outside).sum((1, 2)) / outside.sum((1, 2)),
    )


def mean_by_class(
    values: Float[Tensor, " m"], labels: Int[Tensor, " m"], classes: int
) -> Float[Tensor, " classes"]:
    """Average a number over the pictures of each class; NaN for a class without pictures."""
    totals = values.new_zeros(classes).index_add_(0, labels, values)
    return totals / torch.bincount(labels, minlength=classes)


def area_accuracy(area: Float[Tensor, " m"], labels: Int[Tensor, " m"], classes: int) -> float:
    """Score the classifier that knows a mask's area only.

    It answers with the class that is most frequent among areas of the same bin of 50, learnt from
    a random half of the pictures, the same in every call, and scored on the other.

    Raises:
        InputError: fewer than two pictures.
    """
    if len(area) < 2:
        raise InputError(f"half of the pictures teach, half are scored; got {len(area)}")
    low, high = area.min(), area.max()
    bins = ((area - low) / (high - low).clamp(min=1e-12) * BINS).long().clamp(max=BINS - 1)
    order = torch.randperm(len(area), generator=torch.Generator().manual_seed(0)).to(area.device)
    learnt, scored = order.chunk(2)
    counts = torch.zeros(BINS, classes, dtype=torch.long, device=area.device)
    one = torch.ones_like(learnt)
    counts.index_put_((bins[learnt], labels[learnt]), one, accumulate=True)
    answers = torch.where(counts.sum(1) > 0, counts.argmax(1), counts.sum(0).argmax())
    return (answers[bins[scored]] == labels[scored]).float().mean().item()


@torch.no_grad()
def mask_statistics(
    model: MaskModel,
    images: Float[Tensor, "m c h w"],
    labels: Int[Tensor, " m"],
    regions: Bool[Tensor, "m h w"],
    *,
    seed: int = 0,
    batch: int = 256,
) -> MaskStatistics:
    """Score a model on pictures whose telling regions are known.

    Args:
        model: Stays as it is.
        images: In [0, 1].
        labels: Classes.
        regions: Where the class shows; all False in a picture without such a place.
        seed: Of masks and rectangles.
        batch: Pictures at a time.

    Raises:
        InputError: fewer than two pictures.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = [
        _score(model, x, y, generator)
        for x, y in zip(images.split(batch), labels.split(batch), strict=True)
    ]
    mask, probability, right, right_likely, right_grown, vae = (
        torch.cat(r) for r in zip(*rows, strict=True)
    )
    inside, outside = inside_outside(mask, regions)
    there = regions.any(2).any(1)
    area = mask_area(mask)
    return MaskStatistics(
        accuracy=right.mean().item(),
        accuracy_likely=right_likely.mean().item(),
        accuracy_grown=right_grown.mean().item(),
        class_accuracy=mean_by_class(right, labels, model.classes),
        class_accuracy_grown=mean_by_class(right_grown, labels, model.classes),
        area=mean_by_class(area, labels, model.classes),
        area_accuracy=area_accuracy(area, labels, model.classes),
        inside=inside[there].mean().item(),
        outside=outside[there].mean().item(),
        vae=vae.mean().item(),
        probability=probability,
    )


def _score(
    model: MaskModel, images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Draw Boolean masks; return them, ρ, the three kinds of hits, and V."""
    noise = model.noise(images, generator)
    logits = model.mask_logits(images)
    mask = (logits + torch.logit(noise.u) > 0).to(images)
    grown = grown_mask(mask, random_rectangles(images, generator))
    shown = (mask, (logits > 0).to(images), grown)
    hits = [(model.classify(images, m).argmax(1) == labels).to(images) for m in shown]
    vae = model.terms(images, labels, noise).seen.total
    return mask, logits.sigmoid(), *hits, vae
