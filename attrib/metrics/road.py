"""ROAD: remove and debias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attrib.errors import InputError
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
from attrib.metrics.faithfulness import ranks
from attrib.metrics.impute import impute
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast
from attrib.types import Targets

__all__ = ["ROAD"]


@METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class ROAD(Metric):
    """Score of the class when parts of the picture are removed so that it does not show where.

    Rong et al., *A Consistent and Efficient Evaluation Strategy for Attribution Methods*. Removed
    pixels are filled in from their neighbours (see `attrib.metrics.impute`) with a little noise,
    so that the shape of what was removed tells the model nothing. The score is the mean over the
    shares that are removed. Deviation: probability by default where the paper counts right
    predictions (`score="accuracy"`), which one picture has no use for.

    Args:
        percent: Shares of the pixels to remove.
        order: `"most"` relevant first (a good map makes the score fall), `"least"` relevant first
            (a good map keeps it), or half the difference of least and most, `"combined"`.
        score: What is asked about the class.
        noise: Deviation of the noise, on the scale of the normalised picture.
        seed: Of the noise, which is the same for every picture.
    """

    name = "road"
    summary = "probability without the least salient pixels, minus without the most salient"
    percent: tuple[float, ...] = (20, 40, 60, 80)
    order: Literal["combined", "most", "least"] = "combined"
    score: Score = "probability"
    noise: Annotated[float, AtLeast(0)] = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.percent or not all(0 < p < 100 for p in self.percent):
            raise InputError(f"percent are shares between 0 and 100, got {self.percent}")

    @property
    def better(self) -> Better:
        """Depends on what is removed first."""
        return "lower" if self.order == "most" else "higher"

    def __call__(
        self,
        classifier: SpatialClassifier,
        images: Float[Tensor, "b _ h w"],
        maps: Float[Tensor, "n h w"],
        targets: Targets,
        explain: Explain | None = None,
    ) -> Float[Tensor, " n"]:
        """See `Metric`."""
        pairs = check_maps(classifier, images, maps, targets)
        scores = {
            order: self._scores(classifier, images, maps if order == "most" else -maps, pairs)
            for order in ("most", "least")
            if self.order in (order, "combined")
        }
        if self.order == "combined":
            return (scores["least"] - scores["most"]) / 2
        return scores[self.order]

    def _scores(
        self,
        classifier: SpatialClassifier,
        images: Float[Tensor, "b _ h w"],
        maps: Float[Tensor, "n h w"],
        pairs: Targets,
    ) -> Float[Tensor, " n"]:
        """Remove the highest pixels of maps, and take the mean over shares."""
        rank = ranks(maps)
        pixels = images.shape[-2] * images.shape[-1]
        count = (torch.tensor(self.percent, device=images.device) / 100 * pixels).round()
        noise = self.noise * torch.randn(
            images[:1].shape, generator=torch.Generator().manual_seed(self.seed)
        ).to(images)

        def change(pair: Int[Tensor, " m"], variant: Int[Tensor, " m"]) -> Float[Tensor, "m _ h w"]:
            missing = rank[pair] < count[variant][:, None, None]
            return impute(images[pairs.image[pair]], missing, noise)

        found = ask(classifier, images, pairs, change, len(self.percent), self.score)
        return torch.where(ordered(maps), found.mean(1), torch.nan)
