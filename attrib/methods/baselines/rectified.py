"""Baselines that go back through a network by rules of their own at ReLUs, pools and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.methods.base import METHODS, Method
from attrib.methods.baselines.once import Back, attribute_once, handed_back
from attrib.methods.baselines.ruled import ruled
from attrib.methods.baselines.rules import Changes, lrp_rules, relu_rules
from attrib.methods.baselines.run import (
    Batch,
    Channels,
    Explain,
    Reference,
    reference,
    without_channels,
)
from attrib.methods.gradient import GradCAM
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast
from attrib.surgery import dtype_of
from attrib.types import Attribution, TargetRule, Targets

__all__ = ["LRP", "Deconvolution", "DeepLift", "GuidedBackprop", "GuidedGradCAM"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(Method):
    r"""Gradient of the class score that passes a ReLU where it and the ReLU's input are positive.

    $$R^{l}_i = [a^l_i > 0]\,[R^{l+1}_i > 0]\; R^{l+1}_i$$

    Springenberg et al., *Striving for Simplicity*, section 3.4. ReLU6 is a ReLU with a cap. Other
    activations pass their gradient. The same as Captum's `GuidedBackprop`, but about each use of a
    ReLU, also where it works in place, is shared, is a bare function, or reads what others read.

    Args:
        channels: How the colours of a pixel become one value.
        batch: Pictures per pass.
    """

    name = "guided-backprop"
    summary = "gradient that passes ReLUs only where it is positive; ReLU networks"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    channels: Channels = "abs-sum"
    batch: Batch = 16

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """See `ByColour`."""
        return _past_relus(classifier, self.name, gated=True).by_colour()

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`.

        Raises:
            ModelError: there is no ReLU, or something acts as one and cannot be seen as such.
        """
        back = _past_relus(classifier, self.name, gated=True)
        return attribute_once(self, classifier, images, targets, back)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class Deconvolution(Method):
    r"""Gradient of the class score that passes a ReLU only where the gradient is positive.

    $$R^{l}_i = [R^{l+1}_i > 0]\; R^{l+1}_i$$

    Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, section 2.1;
    the same as Captum's `Deconvolution`. What is said of `GuidedBackprop` holds here too.

    Args:
        channels: How the colours of a pixel become one value.
        batch: Pictures per pass.
    """

    name = "deconvolution"
    summary = "gradient that ReLUs rectify instead of gating; ReLU networks"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    channels: Channels = "abs-sum"
    batch: Batch = 16

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """See `ByColour`."""
        return _past_relus(classifier, self.name, gated=False).by_colour()

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; raises as `GuidedBackprop.attribute` does."""
        back = _past_relus(classifier, self.name, gated=False)
        return attribute_once(self, classifier, images, targets, back)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class GuidedGradCAM(Method):
    r"""Guided back-propagation inside the region that Grad-CAM finds.

    $$M_y(p) = \sum_c G_c(p)\; U\big(M^{\text{Grad-CAM}}_y\big)(p)$$

    with G the guided gradient of colour c and U bilinear enlargement. Selvaraju et al., *Grad-CAM*,
    section 3.2. Captum's `GuidedGradCam` is the same where a layer has channels first; here the
    Grad-CAM is attrib's own, at any layer of any model.

    Args:
        layer: Module path of Grad-CAM's features; by default the last usable one.
        channels: How the colours of a pixel become one value.
        batch: Pictures per pass.
    """

    name = "guided-gradcam"
    summary = "guided back-propagation times Grad-CAM; ReLU networks"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    layer: str = ""
    channels: Channels = "abs-sum"
    batch: Batch = 16

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """See `ByColour`."""
        fine = _past_relus(classifier, self.name, gated=True).by_colour()
        dtype = dtype_of(classifier.model)

        def explain(pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
            pairs = Targets(image=torch.arange(len(labels), device=labels.device), label=labels)
            coarse = self._coarse(classifier, pictures.to(dtype, copy=True), lambda _: pairs)
            return fine(pictures, labels, batch) * _enlarged(coarse.maps, pictures)[:, None]

        return explain

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; raises as `GuidedBackprop.attribute` does."""
        coarse = self._coarse(classifier, images.clone(), targets)
        known = coarse.targets, coarse.logits
        back = _past_relus(classifier, self.name, gated=True)
        fine, *_ = handed_back(classifier, images, targets, back, batch=self.batch, known=known)
        maps = without_channels(fine * _enlarged(coarse.maps, fine)[:, None], self.channels)
        return self._result(classifier, images, maps, coarse.targets, coarse.logits)

    def _coarse(
        self, classifier: SpatialClassifier, images: Tensor, targets: TargetRule
    ) -> Attribution:
        return GradCAM(layer=self.layer).attribute(classifier, images, targets)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class DeepLift(Method):
    r"""Difference from a reference, handed back through the network by the rescale rule.

    $$C_i = (x_i - x^0_i)\, m_i, \qquad \sum_i C_i = n_y(x) - n_y(x^0)$$

    where the multiplier m of an activation is its change in output over its change in input.
    Shrikumar et al., *Learning Important Features Through Propagating Activation Differences*,
    section 3.5.1. For max pooling and activations of single values, from ReLU to GELU and SiLU;
    refused where a network has other nonlinear parts: the sum would not hold. The same as Captum's
    `DeepLift` where that takes the network, but that what windows of a pool take from one place
    adds up, where Captum's rule drops all but one.

    Args:
        reference: What the picture is compared with.
        channels: How the colours of a pixel become one value.
        batch: Pictures per pass; their references are run before them.
    """

    name = "deeplift"
    summary = "difference from a reference, by the rescale rule; networks of simple activations"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    reference: Reference = "mean"
    channels: Channels = "sum"
    batch: Batch = 16

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """See `ByColour`."""
        return self._back(classifier).by_colour()

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`.

        Raises:
            ModelError: a part that is neither linear nor one of the activations above; names it.
        """
        return attribute_once(self, classifier, images, targets, self._back(classifier))

    def _back(self, classifier: SpatialClassifier) -> Back:
        def start_of(pictures: Tensor) -> Tensor:
            return reference(pictures.detach(), self.reference, classifier.spec)

        def run(pictures: Tensor, hooks: bool) -> Tensor:
            changes = Changes()
            with torch.no_grad():
                ruled(classifier, start_of(pictures), changes.reference)
            return ruled(classifier, pictures, changes.picture, hooks=hooks)

        def finish(multiplier: Tensor, pictures: Tensor, _score: Tensor) -> Tensor:
            return multiplier * (pictures - start_of(pictures))

        return Back(run=run, finish=finish)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class LRP(Method):
    r"""Relevance of the class score, handed back layer by layer in proportion to what was added.

    $$R_i = \sum_j \frac{a_i w_{ij}}{\epsilon + \sum_{i'} a_{i'} w_{i'j}}\, R_j$$

    Bach et al., *On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise
    Relevance Propagation*, eq. 58; the same as Captum's `LRP`. `rule` is that of convolutions and
    fully connected layers: `epsilon` as above; `gamma` with positive weights raised by a quarter;
    `alpha1-beta0` with positive weights alone. Pools, sums, means and batch norm follow `epsilon`.
    Activations hand relevance on. With `epsilon` and without max pooling, a ReLU network's maps are
    nearly those of `input-x-gradient`, which is cheaper.

    Args:
        rule: How convolutions and fully connected layers hand relevance on.
        epsilon: Keeps denominators from zero.
        channels: How the colours of a pixel become one value.
        batch: Pictures per pass.
    """

    name = "lrp"
    summary = "layer-wise relevance propagation; ReLU networks without gates or attention"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    rule: Literal["epsilon", "gamma", "alpha1-beta0"] = "epsilon"
    epsilon: Annotated[float, AtLeast(0)] = 1e-9
    channels: Channels = "sum"
    batch: Batch = 16

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """See `ByColour`."""
        return self._back(classifier).by_colour()

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`.

        Raises:
            ModelError: a part that relevance has no rule for, such as a gate; names it.
        """
        return attribute_once(self, classifier, images, targets, self._back(classifier))

    def _back(self, classifier: SpatialClassifier) -> Back:
        rules = lrp_rules(self.rule, self.epsilon)

        def run(pictures: Tensor, hooks: bool) -> Tensor:
            return ruled(classifier, pictures, rules, hooks=hooks)

        def finish(share: Tensor, _pictures: Tensor, score: Tensor) -> Tensor:
            return share * score[:, None, None, None]

        return Back(run=run, finish=finish)


def _past_relus(classifier: SpatialClassifier, name: str, *, gated: bool) -> Back:
    rules = relu_rules(name, gated=gated)
    return Back(run=lambda pictures, hooks: ruled(classifier, pictures, rules, hooks=hooks))


def _enlarged(
    coarse: Float[Tensor, "n u v"], like: Float[Tensor, "n _ h w"]
) -> Float[Tensor, "n h w"]:
    size = like.shape[-2:]
    return F.interpolate(coarse[:, None].to(like), size=size, mode="bilinear")[:, 0]
