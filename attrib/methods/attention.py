"""Where a trained attention lets a classifier look: IB attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.bottleneck.aib_attached import load_attached
from attrib.bottleneck.aib_module import Attention
from attrib.errors import SpecError
from attrib.methods.base import METHODS, Method
from attrib.models import SpatialClassifier
from attrib.types import Attribution, TargetRule

__all__ = ["AIB"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class AIB(Method):
    r"""Mean attention of a variational bottleneck trained on top of the classifier.

    $$A(a,b) = \mu_a = \sigma\big(\mathrm{conv}_{3\times3}(g)\big)(a,b) \in [0, 1]$$

    rounded to the nearest anchor where it was trained with anchors. Lai et al., *Information
    Bottleneck Approach to Spatial Attention Learning*. Deviation: attention, encoder and decoder
    are trained on the feature map of a classifier that stays as it is (`attrib fit aib`), where
    the paper trains all together. The map is the same for every class.

    Args:
        weights: File that `attrib fit aib` wrote for this very classifier.
    """

    name = "aib"
    summary = "attention of a bottleneck trained on top of the classifier; needs weights"
    family = "bottlenecks"
    unit = "attention"
    needs_weights = True
    weights: str = ""

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        features = classifier.forward(images)
        pairs = targets(features.logits)
        with torch.no_grad():
            maps = self._attention(classifier).map(features.grid)
        return self._result(classifier, images, maps[pairs.image], pairs, features.logits)

    def _attention(self, classifier: SpatialClassifier) -> Attention:
        """Read the file once for a classifier, and forget it with that."""
        of_classifier = _LOADED.setdefault(classifier, {})
        if self.weights not in of_classifier:
            attention = load_attached(self.weights, classifier).aib.attention
            of_classifier[self.weights] = attention
        return of_classifier[self.weights]

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not self.weights:
            raise SpecError(
                "aib explains with a trained attention: aib(weights='FILE'); `attrib fit aib` "
                "trains one for a model"
            )


_LOADED: WeakKeyDictionary[SpatialClassifier, dict[str, Attention]] = WeakKeyDictionary()
