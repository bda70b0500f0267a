"""Deletion and insertion: what becomes of the class as the pixels a map points at go or come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attrib.metrics.base import (
    METRICS,
    Better,
    Explain,
    Metric,
    Score,
    ask,
    check_maps,
    ordered,
)
from attrib.metrics.reference import Reference, reference_of
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast
from attrib.types import Targets

__all__ = ["Deletion", "Direction", "Insertion", "area", "curve", "ranks"]

Steps = Annotated[int, AtLeast(1)]
Direction = Literal["deletion", "insertion"]
"""Whether the picture's pixels give way to the reference's, or take their place."""


@METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class Deletion(Metric):
    r"""Area under the class's score while the most salient pixels are removed.

    $$\frac{1}{S} \sum_{i=0}^{S-1} \tfrac{1}{2}\big(f_y(x^{(i)}) + f_y(x^{(i+1)})\big)$$

    with x(i) the picture without the i/S of its pixels that are highest in the map. Petsiuk et
    al., *RISE*, section 4.2. Deviations: a number of steps instead of 224 pixels each; ties are
    removed in reading order.

    Args:
        steps: S, how often pixels are removed; the model runs S + 1 times.
        reference: What takes their place; 0 after normalisation in the authors' code.
        score: f.
    """

    name = "deletion"
    summary = "area under the probability while the most salient pixels are removed"
    steps: Steps = 32
    reference: Reference = "zero"
    score: Score = "probability"

    @property
    def better(self) -> Better:
        """A map is good if the class is soon gone."""
        return "lower"

    def __call__(
        self,
        classifier: SpatialClassifier,
        images: Float[Tensor, "b _ h w"],
        maps: Float[Tensor, "n h w"],
        targets: Targets,
        explain: Explain | None = None,
    ) -> Float[Tensor, " n"]:
        """See `Metric`."""
        return area(
            curve("deletion", classifier, images, maps, targets,
                  steps=self.steps, reference=self.reference, score=self.score)
        )  # fmt: skip


@METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class Insertion(Metric):
    """Area under the class's score while the most salient pixels are added to a reference.

    Petsiuk et al., *RISE*, section 4.2. Deviations as for `Deletion`.

    Args:
        steps: How often pixels are added; the model runs once more.
        reference: What they are added to; the blurred picture in the authors' code.
        score: What is asked about the class.
    """

    name = "insertion"
    summary = "area under the probability while the most salient pixels are added"
    steps: Steps = 32
    reference: Reference = "blur"
    score: Score = "probability"

    @property
    def better(self) -> Better:
        """A map is good if the class is soon there."""
        return "higher"

    def __call__(
        self,
        classifier: SpatialClassifier,
        images: Float[Tensor, "b _ h w"],
        maps: Float[Tensor, "n h w"],
        targets: Targets,
        explain: Explain | None = None,
    ) -> Float[Tensor, " n"]:
        """See `Metric`."""
        return area(
            curve("insertion", classifier, images, maps, targets,
                  steps=self.steps, reference=self.reference, score=self.score)
        )  # fmt: skip


def curve(
    direction: Direction,
    classifier: SpatialClassifier,
    images: Float[Tensor, "b _ h w"],
    maps: Float[Tensor, "n h w"],
    targets: Targets,
    *,
    steps: int = 32,
    reference: Reference = "zero",
    score: Score = "probability",
) -> Float[Tensor, "n s"]:
    """Score the class after each step of a deletion or an insertion.

    Args:
        direction: Which.
        classifier: The model, split.
        images: Normalised, on the model's device.
        maps: Raw maps at the input's size; only the order of their pixels counts.
        targets: The pairs.
        steps: How many, of equally many pixels but for rounding.
        reference: The picture without what it shows.
        score: What is asked about the class.

    Returns:
        `steps + 1` scores per pair, from no pixel changed to all; NaN for maps without an order.
    """
    pairs = check_maps(classifier, images, maps, targets)
    other, rank = reference_of(images, reference), ranks(maps)
    pixels = rank[0].numel() if len(rank) else 0
    count = (torch.arange(steps + 1, device=images.device) * pixels / steps).round()

    def change(pair: Int[Tensor, " m"], variant: Int[Tensor, " m"]) -> Float[Tensor, "m _ h w"]:
        first = (rank[pair] < count[variant][:, None, None])[:, None]
        image, base = images[pairs.image[pair]], other[pairs.image[pair]]
        return torch.where(first == (direction == "insertion"), image, base)

    found = ask(classifier, images, pairs, change, steps + 1, score)
    return torch.where(ordered(maps)[:, None], found, torch.nan)


def area(curves: Float[Tensor, "n s"]) -> Float[Tensor, " n"]:
    """Compute the area under curves over [0, 1] by the trapezoid rule; a mean height."""
    return torch.trapezoid(curves, dim=1) / (curves.shape[1] - 1)


def ranks(maps: Float[Tensor, "n h w"]) -> Int[Tensor, "n h w"]:
    """Number each map's pixels from the highest on, equal ones in reading order."""
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    place = torch.arange(order.shape[1], device=maps.device).expand_as(order)
    return torch.zeros_like(order).scatter_(1, order, place).view(maps.shape)
