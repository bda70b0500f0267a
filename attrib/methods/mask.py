"""What a trained mask network leaves a classifier to see: the IB mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.bottleneck.attached_file import Loaded
from attrib.bottleneck.mask_attached import load_mask, look
from attrib.errors import SpecError
from attrib.methods.base import METHODS, Method
from attrib.models import SpatialClassifier
from attrib.types import Attribution, TargetRule

__all__ = ["IBMask"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class IBMask(Method):
    r"""Probability that a cell stays visible, by a mask network trained for the classifier.

    $$\rho(a,b) = \sigma\big(\mathrm{net}(x)(a,b)\big) \in [0, 1]$$

    Zhmoginov et al., *Information-Bottleneck Approach to Salient Region Discovery*. Deviation: the
    mask network is trained for a classifier that stays as it is (`attrib fit ib-mask`), which is
    shown no mask, where the paper trains both together. One forward pass of the classifier and of
    the network. The map is the same for every class, unless the network was trained with
    `conditional`: then it is the asked class's.

    Args:
        weights: File that `attrib fit ib-mask` wrote for this very classifier.
    """

    name = "ib-mask"
    summary = "mask of a network trained to hide what the class does not need; needs weights"
    family = "bottlenecks"
    unit = "probability"
    needs_class_maps = False
    needs_weights = True
    weights: str = ""

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        network = _NETWORKS(self.weights, classifier)
        features = look(classifier, images, network.options.reads)
        pairs = targets(features.logits)
        with torch.no_grad():
            maps = network.masks(features, (images.shape[-2], images.shape[-1]), pairs)
        return self._result(classifier, images, maps, pairs, features.logits)

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not self.weights:
            raise SpecError(
                "ib-mask explains with a trained mask network: ib-mask(weights='FILE'); "
                "`attrib fit ib-mask` trains one for a model"
            )


_NETWORKS = Loaded(lambda path, classifier: load_mask(path, classifier).network)
