"""Baselines that differentiate the class score by the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.methods.base import METHODS, Method
from attrib.methods.baselines.once import Back, attribute_once, plainly
from attrib.methods.baselines.run import (
    Batch,
    Channels,
    Count,
    Explain,
    Reference,
    attribute,
    baseline,
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

    Simonyan et al., *Deep Inside Convolutional Networks*, section 3.1; the same as Captum's
    `Saliency`.

    Args:
        channels: How the colours of a pixel become one value; the paper takes the largest.
        batch: Pictures per pass.
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
        return Back(run=plainly(classifier)).by_colour()

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; one pass and one back."""
        return attribute_once(self, classifier, images, targets, Back(run=plainly(classifier)))


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class InputXGradient(Method):
    r"""The picture times the class score's gradient by it.

    $$M_y(p) = \sum_c x_c(p)\, \frac{\partial n_y}{\partial x_c(p)}$$

    Shrikumar et al., *Not Just a Black Box*; the same as Captum's `InputXGradient`. x is the
    normalised picture, so that the data's mean colour counts for nothing.

    Args:
        channels: How the colours of a pixel become one value.
        batch: Pictures per pass.
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
        return self._back(classifier).by_colour()

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; one pass and one back."""
        return attribute_once(self, classifier, images, targets, self._back(classifier))

    def _back(self, classifier: SpatialClassifier) -> Back:
        def finish(gradient: Tensor, pictures: Tensor, _score: Tensor) -> Tensor:
            return gradient * pictures

        return Back(run=plainly(classifier), finish=finish)


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
                baseline(pictures, self.reference, classifier.spec),
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
