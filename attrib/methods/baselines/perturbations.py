"""Methods that take parts of the picture away and see what the class score does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attrib.methods.base import METHODS, Method
from attrib.methods.baselines.parts import (
    Parts,
    draw_half,
    draw_orders,
    draw_shapley,
    least_squares,
    parts_of,
)
from attrib.methods.baselines.run import Batch, Count, Reference
from attrib.methods.baselines.seen import Seen, attribute_seen
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast
from attrib.transfer import to_host
from attrib.types import Attribution, TargetRule

__all__ = ["LIME", "FeatureAblation", "KernelSHAP", "Occlusion", "ShapleySampling"]

Automatic = Annotated[int, AtLeast(0)]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class Occlusion(Method):
    r"""What the class score loses when a window slides over the picture.

    $$M_y(p) = \operatorname{mean}_{W \ni p} \big(n_y(x) - n_y(x \text{ without } W)\big)$$

    Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, section 4.2; the same
    as Captum's `Occlusion`. Costs a forward pass per place of the window, 169 by default, whatever
    the number of classes.

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

        down, across = (
            _windows(size, window, step).to(images.device, non_blocking=True)
            for size in images.shape[-2:]
        )
        columns = len(across)

        def rest(places: slice) -> Bool[Tensor, "s h w"]:
            at = torch.arange(places.start, places.stop, device=images.device)
            return ~(down[at // columns, :, None] & across[at % columns, None])

        def explain(seen: Seen) -> Tensor:
            lost = seen.whole - seen.scores(len(down) * columns, rest)
            by_row, by_column = down.to(lost), across.to(lost)
            total = by_row.T @ lost.T.unflatten(1, (-1, columns)) @ by_column
            mean: Tensor = total / (by_row.sum(0)[:, None] * by_column.sum(0))
            return mean

        return attribute_seen(self, classifier, images, targets, explain)


def _windows(size: int, window: int, step: int) -> Bool[Tensor, "places size"]:
    """Say which pixels in a row a window covers at each of its places; the last may hang over."""
    starts = torch.arange(-(-(size - window) // step) + 1)[:, None] * step
    pixels = torch.arange(size)
    return (pixels >= starts) & (pixels < starts + window)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class FeatureAblation(Method):
    r"""What the class score loses when one part of the picture is taken away.

    $$M_y(p) = n_y(x) - n_y(x \text{ without the part of } p)$$

    The same as Captum's `FeatureAblation`. Costs a forward pass per part, whatever the number of
    classes.

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

        def values(seen: Seen, parts: Tensor, count: int) -> Tensor:
            return seen.whole - seen.scores_of_sets(parts, ~torch.eye(count, dtype=torch.bool))

        return _by_parts(self, classifier, images, targets, values)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class ShapleySampling(Method):
    r"""What a part of the picture adds to those before it, over random orders.

    $$M_y(p) = \mathbb{E}_{\pi}\big[n_y(x_{\pi \le P}) - n_y(x_{\pi < P})\big], \quad P \ni p$$

    with only the parts before P, and P, seen. Castro et al., *Polynomial calculation of the Shapley
    value based on sampling*; the same as Captum's `ShapleyValueSampling`. Costs `samples` forward
    passes per part, whatever the number of classes.

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

        def values(seen: Seen, parts: Tensor, count: int) -> Tensor:
            places = draw_orders(count, self.samples, self.seed)
            some = places[:, None] < torch.arange(1, count)[:, None]  # [order, how many, part]
            kept = torch.cat([some.new_zeros(1, count), some.flatten(0, 1)])
            scores = seen.scores_of_sets(parts, kept)
            between = scores[1:].unflatten(0, (self.samples, count - 1))
            none, whole = (x.expand(self.samples, 1, -1) for x in (scores[0], seen.whole))
            gains = torch.cat([none, between, whole], 1).diff(dim=1)
            own = places.to(gains.device, non_blocking=True)[:, :, None].expand_as(gains)
            return gains.gather(1, own).mean(0)

        return _by_parts(self, classifier, images, targets, values)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class KernelSHAP(Method):
    r"""Shapley values of a picture's parts, by regression on random sets of them.

    $$M_y(p) = \phi_P, \quad \min_{\phi} \sum_{S} \big(n_y(x_S) - \phi_0 -
    \textstyle\sum_{P \in S} \phi_P\big)^2, \quad p(S) \propto
    \frac{M - 1}{\binom{M}{|S|}\, |S|\, (M - |S|)}$$

    with M parts, and the sets of all and none weighing a million times as much. Lundberg and Lee,
    *A Unified Approach to Interpreting Model Predictions*, section 4.1; the same as Captum's
    `KernelShap`, but for rounding: the regression is in float64. Costs a forward pass per set,
    whatever the number of classes.

    Args:
        samples: Sets: all, none and random ones.
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

        def values(seen: Seen, parts: Tensor, count: int) -> Tensor:
            ends = torch.tensor([True, False])[:, None].expand(2, count)
            drawn = draw_shapley(count, self.samples - 2, self.seed)
            kept = torch.cat([ends, drawn])[: self.samples]
            some = seen.scores_of_sets(parts, kept[1:])
            (scores,) = to_host(torch.cat([seen.whole[None], some]))
            weights = torch.ones(len(kept))
            weights[:2] = 1e6
            return least_squares(kept, scores, weights, 0)

        return _by_parts(self, classifier, images, targets, values)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class LIME(Method):
    r"""Coefficients of a linear model of the class score near the picture.

    $$\min_{w} \sum_{S} e^{-D(S)^2 / \sigma^2} \big(n_y(x_S) - w_0 -
    \textstyle\sum_{P \in S} w_P\big)^2 + \lambda \lVert w \rVert^2, \quad
    D(S) = 1 - \sqrt{|S| / M}$$

    over sets S that hold each of M parts with probability ½; D is the cosine distance from the set
    of all. Ribeiro et al., *"Why Should I Trust You?"*, eq. 2; the same as Captum's `Lime` with the
    distance and the ridge regression of the authors' code for pictures. Deviations from that code:
    the class score is the logit, not the probability, and all parts stay in the model. Costs a
    forward pass per set, whatever the number of classes.

    Args:
        samples: Random sets.
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

        def values(seen: Seen, parts: Tensor, count: int) -> Tensor:
            kept = draw_half(count, self.samples, self.seed)
            (scores,) = to_host(seen.scores_of_sets(parts, kept))
            distance = 1 - kept.float().mean(1).sqrt()
            weights = torch.exp(-(distance**2) / self.width**2)
            return least_squares(kept, scores, weights, self.penalty)

        return _by_parts(self, classifier, images, targets, values)


Values = Callable[[Seen, Int[Tensor, "h w"], int], Float[Tensor, "p n"]]
"""Takes a picture, its parts and how many they are; gives each part's value for each class."""


def _by_parts(
    method: FeatureAblation | ShapleySampling | KernelSHAP | LIME,
    classifier: SpatialClassifier,
    images: Float[Tensor, "b _ h w"],
    targets: TargetRule,
    values: Values,
) -> Attribution:
    """Give every pixel the value of its part."""

    def explain(seen: Seen) -> Tensor:
        parts = parts_of(seen.picture, method.parts, method.count, classifier.spec)
        found = values(seen, parts, int(parts.max()) + 1).T.to(images.device, non_blocking=True)
        return found[:, parts.to(images.device, non_blocking=True)]

    return attribute_seen(method, classifier, images, targets, explain)
