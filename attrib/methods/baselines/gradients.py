"""Baselines that differentiate the class score by the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.methods.base import METHODS, Method
from attrib.methods.baselines.run import (
    Batch,
    Channels,
    Chunk,
    Count,
    Reference,
    attribute,
    explainers,
    forward_of,
    reference,
    without_channels,
)
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast
from attrib.types import Attribution, TargetRule

__all__ = ["GradientSHAP", "InputXGradient", "IntegratedGradients", "Saliency", "SmoothGrad"]


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

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; one backward pass."""

        def explain(captum: Any, pictures: Tensor, labels: Tensor, _batch: int) -> Tensor:
            saliency = captum.Saliency(forward_of(classifier))
            values: Tensor = saliency.attribute(pictures, labels, abs=False)
            return values

        chunk = _chunk(self.channels, explain)
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

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; one backward pass."""

        def explain(captum: Any, pictures: Tensor, labels: Tensor, _batch: int) -> Tensor:
            with torch.enable_grad():
                values = captum.InputXGradient(forward_of(classifier)).attribute(pictures, labels)
            return values.detach()  # type: ignore[no-any-return]

        chunk = _chunk(self.channels, explain)
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

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; `steps` backward passes."""

        def explain(captum: Any, pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
            values: Tensor = captum.IntegratedGradients(forward_of(classifier)).attribute(
                pictures,
                reference(pictures, self.reference, classifier.spec),
                labels,
                n_steps=self.steps,
                method=self.rule,
                internal_batch_size=batch,
            )
            return values

        # one pair at a time fills a batch with its steps as well, and is summed the same anywhere
        return attribute(self, classifier, images, targets, _chunk(self.channels, explain))


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

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; `samples` backward passes."""

        def explain(captum: Any, pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
            shap = captum.GradientShap(forward_of(classifier))
            start = reference(pictures, self.reference, classifier.spec)
            stdevs = _noise(pictures, self.noise)
            total = torch.zeros_like(pictures)
            for done in range(0, self.samples, batch):
                n = min(batch, self.samples - done)
                part = shap.attribute(pictures, start, n_samples=n, stdevs=stdevs, target=labels)
                total += n / self.samples * part
            return total

        chunk = _chunk(self.channels, explain)
        return attribute(self, classifier, images, targets, chunk, seed=self.seed)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Method):
    r"""A gradient method averaged over noisy copies of the picture.

    $$M_y(p) = \sum_c \big|\mathbb{E}_{\epsilon}[G_c(x + \epsilon)(p)]\big|, \quad
    \epsilon \sim N\big(0, (\text{noise} \cdot (\max x - \min x))^2\big)$$

    with G the gradient, or what `of` says. Smilkov et al., *SmoothGrad: removing noise by adding
    noise*, section 3, by Captum's `NoiseTunnel`. `smooth(method=...)` does the like around any
    method.

    Args:
        of: What is averaged.
        kind: The mean, the mean of squares, or the variance.
        samples: Noisy copies.
        noise: Deviation of the noise, as a fraction of the picture's range.
        steps: Points on the line, for integrated gradients.
        seed: Of the noise.
        channels: How the colours of a pixel become one value.
        batch: Pictures per backward pass.
    """

    name = "smoothgrad"
    summary = "a gradient method averaged over noisy pictures; any model"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    of: Literal["saliency", "input-x-gradient", "integrated-gradients"] = "saliency"
    kind: Literal["smoothgrad", "smoothgrad_sq", "vargrad"] = "smoothgrad"
    samples: Count = 25
    noise: Annotated[float, AtLeast(0)] = 0.15
    steps: Count = 20
    seed: int = 0
    channels: Channels = "abs-sum"
    batch: Batch = 16

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; `samples` backward passes, `steps` times as many with steps."""

        def explain(captum: Any, pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
            options: dict[str, Any] = {}
            if self.of == "saliency":
                inner, options["abs"] = captum.Saliency(forward_of(classifier)), False
            elif self.of == "input-x-gradient":
                inner = captum.InputXGradient(forward_of(classifier))
            else:
                inner = captum.IntegratedGradients(forward_of(classifier))
                options |= {"n_steps": self.steps, "internal_batch_size": batch}
            values: Tensor = captum.NoiseTunnel(inner).attribute(
                pictures,
                nt_type=self.kind,
                nt_samples=self.samples,
                nt_samples_batch_size=min(batch, self.samples),
                stdevs=_noise(pictures, self.noise),
                target=labels,
                **options,
            )
            return values.detach()

        chunk = _chunk(self.channels, explain)
        return attribute(self, classifier, images, targets, chunk, seed=self.seed)


Explain = Callable[[Any, Tensor, Tensor, int], Tensor]
"""Takes Captum's explainers, then what a `Chunk` takes; gives `[n, c, h, w]`."""


def _chunk(channels: Channels, explain: Explain) -> Chunk:
    """Load Captum where it is used, and make one value of a pixel's colours."""
    captum = explainers()

    def chunk(pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
        return without_channels(explain(captum, pictures, labels, batch), channels)

    return chunk


def _noise(pictures: Tensor, fraction: float) -> float:
    """Return the deviation of noise that is a fraction of a picture's range."""
    return fraction * float(pictures.max() - pictures.min())
