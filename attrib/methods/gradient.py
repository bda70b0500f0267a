"""Maps from features and the gradient of the class score with respect to them.

They work at any layer of any differentiable model. By default that is the last layer whose cells
the logits depend on, and the network before it is run without recording anything. Where a linear
head follows average pooling, the gradient there is known: no pass back is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.methods.base import METHODS, Method
from attrib.models import SpatialClassifier
from attrib.transfer import to_device, to_host
from attrib.types import Attribution, TargetRule, Targets

__all__ = ["GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM"]

Combine = Callable[[Float[Tensor, "n k u v"], Float[Tensor, "n k _ _"]], Float[Tensor, "n u v"]]
"""Makes maps of features and gradients, which may be one value for all cells."""


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class GradCAM(Method):
    r"""Features weighted by the mean gradient of their channel.

    $$M_y = \mathrm{ReLU}\Big(\sum_k \alpha^y_k A_k\Big), \quad
    \alpha^y_k = \frac{1}{uv}\sum_{a,b} \frac{\partial n_y}{\partial A_k(a,b)}$$

    Selvaraju et al., *Grad-CAM*, eqs. 1 and 2.

    Args:
        layer: Module path of the features A; by default the last usable one.
        relu: Cut negative evidence off, as the paper does.
    """

    name = "gradcam"
    summary = "features weighted by their channel's mean gradient; any model"
    family = "features and their gradients"
    needs_class_maps = False
    layer: str = ""
    relu: bool = True

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        return _attribute(self, classifier, images, targets, _by_mean_gradient)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class GradCAMPlusPlus(Method):
    r"""Features weighted by gradients that count where the class grows.

    $$w^y_k = \sum_{a,b} \alpha_k(a,b)\, \mathrm{ReLU}(g_k(a,b)), \quad
    \alpha_k = \frac{g_k^2}{2 g_k^2 + g_k^3 \sum_{a,b} A_k}$$

    with g the gradient of the class score; alpha is 0 where its denominator is. Chattopadhay et
    al., *Grad-CAM++*, eqs. 10 and 19, for the score exp(logit), whose common factor is left out.

    Args:
        layer: Module path of the features A; by default the last usable one.
        relu: Cut negative evidence off, as the paper does.
    """

    name = "gradcam++"
    summary = "features weighted by gradients that count where the class grows; any model"
    family = "features and their gradients"
    needs_class_maps = False
    layer: str = ""
    relu: bool = True

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        return _attribute(self, classifier, images, targets, _by_growth)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class HiResCAM(Method):
    r"""Features times gradient, cell by cell.

    $$M_y(a,b) = \mathrm{ReLU}\Big(\sum_k A_k(a,b)\, \frac{\partial n_y}{\partial A_k(a,b)}\Big)$$

    Draelos and Carin, *Use HiResCAM instead of Grad-CAM*, eq. 4.

    Args:
        layer: Module path of the features A; by default the last usable one.
        relu: Cut negative evidence off.
    """

    name = "hirescam"
    summary = "features times gradient at every cell; any model"
    family = "features and their gradients"
    needs_class_maps = False
    layer: str = ""
    relu: bool = True

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        return _attribute(self, classifier, images, targets, _by_gradient)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class LayerCAM(Method):
    r"""Features times positive gradient, cell by cell; sharp at early layers too.

    $$M_y(a,b) = \mathrm{ReLU}\Big(\sum_k \mathrm{ReLU}\Big(\frac{\partial n_y}{\partial
    A_k(a,b)}\Big) A_k(a,b)\Big)$$

    Jiang et al., *LayerCAM*, eqs. 6 to 8.

    Args:
        layer: Module path of the features A; by default the last usable one.
        relu: Cut negative evidence off, as the paper does.
    """

    name = "layercam"
    summary = "features times positive gradient at every cell; any model, any layer"
    family = "features and their gradients"
    needs_class_maps = False
    layer: str = ""
    relu: bool = True

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        return _attribute(self, classifier, images, targets, _by_positive_gradient)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class XGradCAM(Method):
    r"""Features weighted by their channel's gradient, averaged where the channel is active.

    $$M_y = \mathrm{ReLU}\Big(\sum_k \alpha^y_k A_k\Big), \quad
    \alpha^y_k = \sum_{a,b} \frac{A_k(a,b)}{\sum_{a',b'} A_k(a',b')}
    \frac{\partial n_y}{\partial A_k(a,b)}$$

    Fu et al., *Axiom-based Grad-CAM*, eq. 8. A channel whose sum is 0 has no weight.

    Args:
        layer: Module path of the features A; by default the last usable one.
        relu: Cut negative evidence off, as the paper does.
    """

    name = "xgradcam"
    summary = "features weighted by their channel's gradient where it is active; any model"
    family = "features and their gradients"
    needs_class_maps = False
    layer: str = ""
    relu: bool = True

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        return _attribute(self, classifier, images, targets, _by_active_gradient)


Maps = Float[Tensor, "n k u v"]
Slopes = Float[Tensor, "n k _ _"]


def _by_mean_gradient(a: Maps, g: Slopes) -> Float[Tensor, "n u v"]:
    return torch.einsum("nk,nkuv->nuv", g.mean((2, 3)), a)


def _by_growth(a: Maps, g: Slopes) -> Float[Tensor, "n u v"]:
    # alpha divided through by g^2: the cubes of small gradients underflow float32
    alpha = 1 / (2 + g * a.sum((2, 3), keepdim=True))
    alpha = torch.where((g == 0) | ~alpha.isfinite(), 0, alpha)
    weight = (alpha * g.relu()).mean((2, 3)) * (a.shape[2] * a.shape[3])
    return torch.einsum("nk,nkuv->nuv", weight, a)


def _by_gradient(a: Maps, g: Slopes) -> Float[Tensor, "n u v"]:
    return (a * g).sum(1)


def _by_positive_gradient(a: Maps, g: Slopes) -> Float[Tensor, "n u v"]:
    return (a * g.relu()).sum(1)


def _by_active_gradient(a: Maps, g: Slopes) -> Float[Tensor, "n u v"]:
    total = a.sum((2, 3))
    weight = (a * g).sum((2, 3)) / torch.where(total == 0, 1, total)
    return torch.einsum("nk,nkuv->nuv", torch.where(total == 0, 0, weight), a)


def _attribute(
    method: GradCAM | GradCAMPlusPlus | HiResCAM | LayerCAM | XGradCAM,
    classifier: SpatialClassifier,
    images: Tensor,
    targets: TargetRule,
    combine: Combine,
) -> Attribution:
    known = not method.layer and classifier.constant_gradient
    logits, pairs, features, gradients = (
        _known(classifier, images, targets)
        if known
        else _taken_back(classifier, method.layer, images, targets)
    )
    maps = combine(features, gradients)
    maps = maps.relu() if method.relu else maps
    return method._result(classifier, images, maps, pairs, logits)


Found = tuple[Float[Tensor, "b c"], Targets, Maps, Slopes]
"""The logits of the batch; pairs; features and gradients of each."""


def _taken_back(
    classifier: SpatialClassifier, layer: str, images: Tensor, targets: TargetRule
) -> Found:
    with classifier.differentiable(images, layer) as (features, raw, layout):
        pairs = targets(features.logits.detach())
        owners, labels = (tensor.tolist() for tensor in to_host(pairs.image, pairs.label))
        again = classifier.recall is not None  # may be differentiated by other pairs too
        gradients = classifier.recalled(
            "gradients",
            (layer, owners, labels),
            images,
            lambda _: gradients_of(features.logits, raw, pairs, owners, again),
        )
        size = (images.shape[-2], images.shape[-1])
        own = rows_of(features.grid, owners)
        return features.logits.detach(), pairs, own, layout.grid(gradients, size)


def _known(classifier: SpatialClassifier, images: Tensor, targets: TargetRule) -> Found:
    """Take the head's weights over the number of cells for the gradients of all of them."""
    features = classifier.forward(images)
    pairs = targets(features.logits)
    u, v = features.grid.shape[2:]
    gradients = (classifier.weight[pairs.label] / (u * v))[:, :, None, None]
    once = len(pairs) == len(images) == 1  # else a copy of a picture's features for each of its
    grid = features.grid if once else features.grid[pairs.image]
    return features.logits, pairs, grid, gradients


def gradients_of(
    logits: Float[Tensor, "b c"],
    raw: Tensor,
    pairs: Targets,
    owners: list[int],
    again: bool = False,
) -> Tensor:
    """Differentiate each pair's logit: all images at once, once for each further class of one.

    Args:
        logits: Of a batch.
        raw: What to differentiate by; its first axis is the batch's.
        pairs: Images and classes.
        owners: `pairs.image`, on the host.
        again: Leave what was recorded, for another call.

    Returns:
        A gradient per pair.
    """
    rounds = rounds_of(owners)
    parts = [raw.new_zeros(0, *raw.shape[1:])]
    for rows in rounds:
        seed = torch.zeros_like(logits)
        picked = slice(None) if len(rounds) == 1 else to_device(rows, logits.device)
        seed[pairs.image[picked], pairs.label[picked]] = 1
        keep = again or rows is not rounds[-1]
        (gradient,) = torch.autograd.grad(logits, raw, seed, retain_graph=keep)
        parts.append(rows_of(gradient, [owners[row] for row in rows]))
    if len(rounds) == 1:
        return parts[1]
    order = sorted(range(len(owners)), key=list(chain.from_iterable(rounds)).__getitem__)
    return torch.cat(parts)[to_device(order, logits.device)]


def rounds_of(owners: list[int]) -> list[list[int]]:
    """Deal rows to as few rounds as possible such that no image comes twice in one."""
    rounds: list[list[int]] = []
    met = Counter[int]()
    for row, image in enumerate(owners):
        if met[image] == len(rounds):
            rounds.append([])
        rounds[met[image]].append(row)
        met[image] += 1
    return rounds


def rows_of(x: Tensor, owners: list[int]) -> Tensor:
    """Pick each pair's image; a batch with one class per image is as it is."""
    return x if owners == list(range(len(x))) else x[to_device(owners, x.device)]
