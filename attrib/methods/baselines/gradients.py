"""Baselines that differentiate the class score by the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.methods.base import METHODS, Method
from attrib.methods.baselines.run import (
    Batch,
    Channels,
    Count,
    Explain,
    Reference,
    attribute,
    by_pixel,
    explainers,
    forward_of,
    noise_of,
    reference,
)
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast
from attrib.types import Attribution, TargetRule

__all__ = ["GradientSHAP", "InputXGradient", "IntegratedGradients", "Saliency"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class Saliency(Method):
    r"""Magnitude of the class score's gradient by the picture.

    $$M_y(p) = \max_c \Big|\frac{\partial n_y}{\partial x_c(p)}\Big|$$

    Simonyan et al., *Deep Inside Convolutional Networks*, section 3.1, by Captum's `Saliency`.

    Args:
        channels: How the colours of a pixel become one value; the paper takes the largest.
        batch: Pictures per backward pass.
    """

    name = "saliency"
    summary = "largest gradient among a pixel's colours; any model"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    channels: Channels = "abs-max"
    batch: Batch = 16

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """See `ByColour`."""
        saliency = explainers().Saliency(forward_of(classifier))

        def explain(pictures: Tensor, labels: Tensor, _batch: int) -> Tensor:
            return saliency.attribute(pictures, labels, abs=False)  # type: ignore[no-any-return]

        return explain

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; one backward pass."""
        chunk = by_pixel(self.by_colour(classifier), self.channels)
        return attribute(self, classifier, images, targets, chunk, together=self.batch)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class InputXGradient(Method):
    r"""The picture times the class score's gradient by it.

    $$M_y(p) = \sum_c x_c(p)\, \frac{\partial n_y}{\partial x_c(p)}$$

    Shrikumar et al., *Not Just a Black Box*, by Captum's `InputXGradient`. x is the normalised
    picture, so that the data's mean colour counts for nothing.

    Args:
        channels: How the colours of a pixel become one value.
        batch: Pictures per backward pass.
    """

    name = "input-x-gradient"
    summary = "picture times gradient; any model"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    channels: Channels = "sum"
    batch: Batch = 16

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """See `ByColour`."""
        product = explainers().InputXGradient(forward_of(classifier))

        def explain(pictures: Tensor, labels: Tensor, _batch: int) -> Tensor:
            with torch.enable_grad():
                values = product.attribute(pictures, labels)
            return values.detach()  # type: ignore[no-any-return]

        return explain

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; one backward pass."""
        chunk = by_pixel(self.by_colour(classifier), self.channels)
        return attribute(self, classifier, images, targets, chunk, together=self.batch)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Method):
    r"""Gradients summed along the straight line from a reference to the picture.

    $$M_y(p) = \sum_c (x_c - x^0_c)(p) \int_0^1
    \frac{\partial n_y(x^0 + \alpha (x - x^0))}{\partial x_c(p)}\, d\alpha, \qquad
    \sum_p M_y(p) = n_y(x) - n_y(x^0)$$

    Sundararajan et al., *Axiomatic Attribution for Deep Networks*, eq. 1, by Captum's
    `IntegratedGradients`. The integral is a sum over `steps` points.

    Args:
        steps: Points on the line; each costs a backward pass.
        rule: How points are placed and weighted.
        reference: Where the line starts.
        channels: How the colours of a pixel become one value.
        batch: Pictures per backward pass.
    """

    name = "integrated-gradients"
    summary = "gradients along the line from a reference to the picture; any model"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    steps: Count = 50
    rule: Literal["gausslegendre", "riemann_trapezoid", "riemann_middle"] = "gausslegendre"
    reference: Reference = "mean"
    channels: Channels = "sum"
    batch: Batch = 16

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """See `ByColour`."""
        integrated = explainers().IntegratedGradients(forward_of(classifier))

        def explain(pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
            values: Tensor = integrated.attribute(
                pictures,
                reference(pictures, self.reference, classifier.spec),
                labels,
                n_steps=self.steps,
                method=self.rule,
                internal_batch_size=batch,
            )
            return values

        return explain

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; `steps` backward passes."""
        chunk = by_pixel(self.by_colour(classifier), self.channels)
        # one pair at a time fills a batch with its steps as well, and is summed the same anywhere
        return attribute(self, classifier, images, targets, chunk)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class GradientSHAP(Method):
    r"""Expected gradients: at random points between a reference and the noisy picture.

    $$M_y(p) = \sum_c \mathbb{E}_{\alpha, \epsilon}\Big[(\tilde x_c - x^0_c)(p)
    \frac{\partial n_y(x^0 + \alpha(\tilde x - x^0))}{\partial x_c(p)}\Big], \quad
    \tilde x = x + \epsilon, \quad \alpha \sim U(0, 1)$$

    Erion et al., *Improving Performance of Deep Learning Models with Axiomatic Attribution Priors
    and Expected Gradients*, by Captum's `GradientShap`. Deviation: one reference, not a data set.

    Args:
        samples: Random points; each costs a backward pass.
        noise: Deviation of the noise, as a fraction of the picture's range.
        reference: Where the line starts.
        seed: Of points and noise.
        channels: How the colours of a pixel become one value.
        batch: Pictures per backward pass.
    """

    name = "gradient-shap"
    summary = "gradients at random points between a reference and the picture; any model"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    samples: Count = 32
    noise: Annotated[float, AtLeast(0)] = 0.1
    reference: Reference = "mean"
    seed: int = 0
    channels: Channels = "sum"
    batch: Batch = 16

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """See `ByColour`."""
        shap = explainers().GradientShap(forward_of(classifier))

        def explain(pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
            start = reference(pictures, self.reference, classifier.spec)
            stdevs = noise_of(pictures, self.noise)
            total, most = torch.zeros_like(pictures), max(1, batch // len(pictures))
            for done in range(0, self.samples, most):
                n = min(most, self.samples - done)
                part = shap.attribute(pictures, start, n_samples=n, stdevs=stdevs, target=labels)
                total += n / self.samples * part
            return total

        return explain

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; `samples` backward passes."""
        chunk = by_pixel(self.by_colour(classifier), self.channels)
        return attribute(self, classifier, images, targets, chunk, seed=self.seed)
