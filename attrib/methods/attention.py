"""Where a trained attention lets a classifier look: IB attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib import surgery
from attrib.bottleneck.aib_attached import load_attached
from attrib.bottleneck.aib_classifier import NetworkClassifier
from attrib.bottleneck.aib_module import Attention, NoAttention
from attrib.bottleneck.attached_file import Loaded
from attrib.errors import SpecError
from attrib.methods.base import METHODS, Method
from attrib.models import SpatialClassifier
from attrib.types import Attribution, TargetRule

__all__ = ["AIB"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class AIB(Method):
    r"""Mean attention of a bottleneck that a classifier was trained with, or has on top.

    $$A(a,b) = \mu_a = \sigma\big(\mathrm{conv}_{3\times3}(g)\big)(a,b) \in [0, 1]$$

    rounded to the nearest anchor where it was trained with anchors. Lai et al., *Information
    Bottleneck Approach to Spatial Attention Learning*. A network of `attrib fit aib-network` has
    its attention in itself, as in the paper. Deviation, for any other classifier: attention,
    encoder and decoder are trained on a feature grid of it while it stays as it is (`attrib fit
    aib`). The map is the same for every class.

    Args:
        weights: File that `attrib fit aib` wrote for this very classifier; empty for a network that
            has attention in itself.

    Raises:
        SpecError: on use, no weights for a classifier without attention.
    """

    name = "aib"
    summary = "attention of a bottleneck trained with the classifier or on top; needs weights"
    family = "bottlenecks"
    unit = "attention"
    needs_class_maps = False
    needs_weights = True
    weights: str = ""

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        if self.weights:
            maps, logits = _attached(self.weights, classifier, images)
        else:
            maps, logits = _own(classifier, images)
        pairs = targets(logits)
        return self._result(classifier, images, maps[pairs.image], pairs, logits)


def _attached(
    weights: str, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"]
) -> tuple[Float[Tensor, "b u v"], Float[Tensor, "b c"]]:
    layer, attention = _ATTENTIONS(weights, classifier)
    features = classifier.features_at(images.clone(), layer)  # some models rewrite their input
    with torch.no_grad():
        return attention.map(features.grid), features.logits


def _own(
    classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"]
) -> tuple[Float[Tensor, "b u v"], Float[Tensor, "b c"]]:
    model = classifier.model
    if not isinstance(model, NetworkClassifier) or not model.attends:
        raise SpecError(
            f"{classifier.spec.name} has no attention in itself; explain it by one trained on top, "
            "aib(weights='FILE'), which `attrib fit aib` makes"
        )
    with surgery.inference(model):
        return model.attention(images)


def _read(path: str, classifier: SpatialClassifier) -> tuple[str, Attention | NoAttention]:
    attached = load_attached(path, classifier)
    return attached.layer, attached.aib.attention


_ATTENTIONS = Loaded(_read)
