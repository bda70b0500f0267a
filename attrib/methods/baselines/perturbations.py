"""Baselines that take parts of the picture away and see what the class score does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.methods.base import METHODS, Method
from attrib.methods.baselines.features import LinearModel, Parts, parts_of
from attrib.methods.baselines.run import (
    Batch,
    Count,
    Reference,
    attribute,
    baseline,
    explainers,
    forward_of,
)
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast
from attrib.types import Attribution, TargetRule

__all__ = ["LIME", "FeatureAblation", "KernelSHAP", "Occlusion", "ShapleySampling"]

Automatic = Annotated[int, AtLeast(0)]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class Occlusion(Method):
    r"""What the class score loses when a window slides over the picture.

    $$M_y(p) = \operatorname{mean}_{W \ni p} \big(n_y(x) - n_y(x \text{ without } W)\big)$$

    Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, section 4.2, by
    Captum's `Occlusion`. Costs a forward pass per place of the window: 169 by default.

    Args:
        window: Side of the window in pixels; 0 for a seventh of the picture's shorter side.
        stride: Step of the window in pixels; 0 for half its side.
        reference: What is seen through the window.
        batch: Pictures per forward pass.
    """

    name = "occlusion"
    summary = "loss of the class score under a sliding window; any model"
    family = "perturbed pictures"
    normalize = "max"
    needs_class_maps = False
    window: Automatic = 0
    stride: Automatic = 0
    reference: Reference = "mean"
    batch: Batch = 16

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        window = self.window or max(1, round(min(images.shape[-2:]) / 7))
        window = min(window, *images.shape[-2:])
        step = self.stride or max(1, window // 2)
        step = min(step, window)

        def chunk(pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
            c = pictures.shape[1]
            values = (
                explainers()
                .Occlusion(forward_of(classifier))
                .attribute(
                    pictures,
                    (c, window, window),
                    (c, step, step),
                    baseline(pictures, self.reference, classifier.spec),
                    labels,
                    perturbations_per_eval=batch,
                )
            )
            return values[:, 0]  # type: ignore[no-any-return]  # a window has one value for all colours

        return attribute(self, classifier, images, targets, chunk)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class FeatureAblation(Method):
    r"""What the class score loses when one part of the picture is taken away.

    $$M_y(p) = n_y(x) - n_y(x \text{ without the part of } p)$$

    By Captum's `FeatureAblation`. Costs a forward pass per part.

    Args:
        parts: What the picture is divided into.
        count: About so many parts.
        reference: What is seen in the place of a part.
        batch: Pictures per forward pass.
    """

    name = "feature-ablation"
    summary = "loss of the class score without each superpixel or square; any model"
    family = "perturbed pictures"
    normalize = "max"
    needs_class_maps = False
    parts: Parts = "slic"
    count: Count = 50
    reference: Reference = "mean"
    batch: Batch = 16

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        return _by_parts(self, classifier, images, targets, explainers().FeatureAblation)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class ShapleySampling(Method):
    r"""What a part of the picture adds to those before it, over random orders.

    $$M_y(p) = \mathbb{E}_{\pi}\big[n_y(x_{\pi \le P}) - n_y(x_{\pi < P})\big], \quad P \ni p$$

    with only the parts before P, and P, seen. Castro et al., *Polynomial calculation of the Shapley
    value based on sampling*, by Captum's `ShapleyValueSampling`. Costs `samples` forward passes
    per part.

    Args:
        samples: Random orders.
        parts: What the picture is divided into.
        count: About so many parts.
        reference: What is seen in the place of a part.
        seed: Of the orders.
        batch: Pictures per forward pass.
    """

    name = "shapley-sampling"
    summary = "Shapley values of superpixels by random orders; any model, slow"
    family = "perturbed pictures"
    normalize = "max"
    needs_class_maps = False
    samples: Count = 25
    parts: Parts = "slic"
    count: Count = 50
    reference: Reference = "mean"
    seed: int = 0
    batch: Batch = 16

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""

        options = {"n_samples": self.samples}
        make = explainers().ShapleyValueSampling
        return _by_parts(self, classifier, images, targets, make, self.seed, **options)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class KernelSHAP(Method):
    r"""Shapley values of a picture's parts, by regression on random sets of them.

    $$M_y(p) = \phi_P, \quad \min_{\phi} \sum_{S} \big(n_y(x_S) - \phi_0 -
    \textstyle\sum_{P \in S} \phi_P\big)^2, \quad p(S) \propto
    \frac{M - 1}{\binom{M}{|S|}\, |S|\, (M - |S|)}$$

    with M parts, and the sets of all and none weighing a million times as much. Lundberg and Lee,
    *A Unified Approach to Interpreting Model Predictions*, section 4.1, by Captum's `KernelShap`.

    Args:
        samples: Random sets; each costs a forward pass.
        parts: What the picture is divided into.
        count: About so many parts.
        reference: What is seen in the place of a part.
        seed: Of the sets.
        batch: Pictures per forward pass.
    """

    name = "kernel-shap"
    summary = "Shapley values of superpixels by regression; any model"
    family = "perturbed pictures"
    normalize = "max"
    needs_class_maps = False
    samples: Count = 300
    parts: Parts = "slic"
    count: Count = 50
    reference: Reference = "mean"
    seed: int = 0
    batch: Batch = 16

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""

        def make(forward: Forward) -> Any:
            shap = explainers().KernelShap(forward)
            shap.interpretable_model = LinearModel(0)
            return shap

        options = {"n_samples": self.samples}
        return _by_parts(self, classifier, images, targets, make, self.seed, **options)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class LIME(Method):
    r"""Coefficients of a linear model of the class score near the picture.

    $$\min_{w} \sum_{S} e^{-D(S)^2 / \sigma^2} \big(n_y(x_S) - w_0 -
    \textstyle\sum_{P \in S} w_P\big)^2 + \lambda \lVert w \rVert^2, \quad
    D(S) = 1 - \sqrt{|S| / M}$$

    over sets S that hold each of M parts with probability ½; D is the cosine distance from the set
    of all. Ribeiro et al., *"Why Should I Trust You?"*, eq. 2, by Captum's `Lime`, with the
    distance and the ridge regression of the authors' code for pictures. Deviations from that code:
    the class score is the logit, not the probability, and all parts stay in the model.

    Args:
        samples: Random sets; each costs a forward pass.
        width: Kernel width sigma.
        penalty: Weight lambda of the coefficients' squares.
        parts: What the picture is divided into.
        count: About so many parts.
        reference: What is seen in the place of a part.
        seed: Of the sets.
        batch: Pictures per forward pass.
    """

    name = "lime"
    summary = "linear model of the class score over superpixels; any model"
    family = "perturbed pictures"
    normalize = "max"
    needs_class_maps = False
    samples: Count = 300
    width: Annotated[float, AtLeast(1e-6)] = 0.25
    penalty: Annotated[float, AtLeast(0)] = 1.0
    parts: Parts = "slic"
    count: Count = 50
    reference: Reference = "mean"
    seed: int = 0
    batch: Batch = 16

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""

        def closeness(_picture: Tensor, _changed: Tensor, kept: Tensor, **_: Any) -> Tensor:
            distance = 1 - kept.float().mean(1).sqrt()
            return torch.exp(-(distance**2) / self.width**2)

        def make(forward: Forward) -> Any:
            return explainers().Lime(
                forward, interpretable_model=LinearModel(self.penalty), similarity_func=closeness
            )

        options = {"n_samples": self.samples}
        return _by_parts(self, classifier, images, targets, make, self.seed, **options)


Forward = Callable[[Tensor], Tensor]


def _by_parts(
    method: FeatureAblation | ShapleySampling | KernelSHAP | LIME,
    classifier: SpatialClassifier,
    images: Float[Tensor, "b _ h w"],
    targets: TargetRule,
    make: Callable[[Forward], Any],
    seed: int = 0,
    **options: Any,
) -> Attribution:
    """Give every pixel the value of its part; pictures have parts of their own, so one by one."""

    def chunk(pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
        spec = classifier.spec
        values = make(forward_of(classifier)).attribute(
            pictures,
            baselines=baseline(pictures, method.reference, spec),
            target=labels,
            feature_mask=parts_of(pictures[0], method.parts, method.count, spec),
            perturbations_per_eval=batch,
            **options,
        )
        return values[:, 0]  # type: ignore[no-any-return]

    return attribute(method, classifier, images, targets, chunk, seed=seed)
