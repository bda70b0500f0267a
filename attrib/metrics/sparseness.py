"""Sparseness: how few pixels hold what a map says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.metrics.base import METRICS, Better, Explain, Metric, check_maps
from attrib.models import SpatialClassifier
from attrib.types import Targets

__all__ = ["Sparseness", "gini"]


@METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class Sparseness(Metric):
    """Gini index of the map's magnitudes: 0 if all pixels say the same, 1 if only one speaks.

    Chalasani et al., *Concise Explanations of Neural Networks using Adversarial Training*. It
    says nothing about the model: read it beside a metric that does.
    """

    name = "sparseness"
    summary = "Gini index of the map's magnitudes, 0 even to 1 concentrated"

    @property
    def better(self) -> Better:
        """Of two faithful maps the concise one."""
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
        check_maps(classifier, images, maps, targets)
        return gini(maps)


def gini(maps: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    r"""Compute the Gini index of magnitudes.

    $$\frac{\sum_i (2i - N - 1)\, a_{(i)}}{N \sum_i a_{(i)}}$$

    with a the magnitudes in ascending order, i from 1 to N. NaN for maps of zeros.
    """
    values = maps.flatten(1).double().abs().sort(dim=1).values
    count = values.shape[1]
    place = 2 * torch.arange(1, count + 1, device=maps.device) - count - 1
    return ((values * place).sum(1) / (count * values.sum(1))).float()
