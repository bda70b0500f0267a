"""Maps from the attention of a vision transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib import surgery
from attrib.errors import ModelError, SpecError
from attrib.methods.base import METHODS, Method
from attrib.methods.memory import in_steps
from attrib.methods.open_attention import Attention, attention_of, no_transformer
from attrib.models import SpatialClassifier
from attrib.models.layout import Layout, detect
from attrib.registry import AtLeast
from attrib.types import Attribution, TargetRule

__all__ = ["GenericAttention", "Rollout"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class Rollout(Method):
    r"""Attention multiplied through all layers, from the tokens that the head reads.

    $$R = \prod_{l=L}^{1} \hat A_l, \quad \hat A_l = \tfrac{1}{2} A_l + \tfrac{1}{2} I$$

    with A the heads' attention as one, rows brought to a sum of 1; the map is R from the class
    token, or the mean from all tokens that the head reads, to the patches. Abnar and Zuidema,
    *Quantifying Attention Flow in Transformers*, eq. 1. The map is the same for every class.

    Args:
        heads: How the heads' attention becomes one; the paper takes the mean.
        discard: Fraction of each row, its smallest values, that is set to 0 first; the paper
            discards nothing. A token's attention to itself stays.
        batch: Pictures per forward pass.
    """

    name = "rollout"
    summary = "attention multiplied through all layers; transformers, the same for every class"
    family = "attention"
    unit = "attention"
    needs_class_maps = False
    needs_attention = True
    heads: Literal["mean", "max", "min"] = "mean"
    discard: Annotated[float, AtLeast(0)] = 0.0
    batch: Annotated[int, AtLeast(1)] = 16

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if self.discard >= 1:
            raise SpecError(f"rollout: discard is a fraction in [0, 1), got {self.discard}")

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`.

        Raises:
            ModelError: the model has no attention over the whole picture.
        """
        logits = classifier.predict(images)
        pairs = targets(logits)
        shown = pairs.image.unique()

        def step(rows: slice, _batch: int) -> Tensor:
            with surgery.inference(classifier.model):
                layers, _ = attention_of(classifier, images[shown[rows]])
            total = torch.eye(layers[0].shape[-1], device=images.device)
            for layer in layers:
                total = self._with_residual(_fused(layer.float(), self.heads)) @ total
            return _to_patches(classifier, total, images)

        with surgery.inference(classifier.model):
            found = in_steps(len(shown), self.batch, step)
        if not found:
            return self._result(classifier, images, _no_maps(classifier, images), pairs, logits)
        maps = torch.cat(found)[torch.searchsorted(shown, pairs.image)]
        return self._result(classifier, images, maps, pairs, logits)

    def _with_residual(self, attention: Float[Tensor, "b t t"]) -> Float[Tensor, "b t t"]:
        t = attention.shape[-1]
        own = torch.eye(t, device=attention.device)
        least = attention.masked_fill(own.bool(), torch.inf).topk(
            int(self.discard * t), dim=2, largest=False
        )
        kept = attention.scatter(2, least.indices, 0) + own
        return kept / kept.sum(2, keepdim=True)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class GenericAttention(Method):
    r"""Attention weighted by the class score's gradient, added up through all layers.

    $$R \leftarrow R + \bar A_l R, \quad
    \bar A_l = \mathbb{E}_h\Big[\Big(\frac{\partial n_y}{\partial A_l} \odot A_l\Big)^{+}\Big],
    \quad R_0 = I$$

    The map is R from the class token, or the mean from all tokens that the head reads, to the
    patches. Chefer et al., *Generic Attention-model Explainability*, eqs. 5 and 6, for
    self-attention.

    Args:
        batch: Pictures per backward pass.
    """

    name = "generic-attention"
    summary = "attention weighted by its gradient through all layers; transformers"
    family = "attention"
    unit = "attention"
    needs_class_maps = False
    needs_attention = True
    batch: Annotated[int, AtLeast(1)] = 8

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`.

        Raises:
            ModelError: the model has no attention over the whole picture.
        """
        logits = classifier.predict(images)
        pairs = targets(logits)

        def step(rows: slice, _batch: int) -> Tensor:
            labels = pairs.label[rows]
            with torch.enable_grad():
                pictures = images[pairs.image[rows]].requires_grad_()
                layers, out = attention_of(classifier, pictures)
                score = out.gather(1, labels[:, None]).sum()
                gradients = torch.autograd.grad(score, layers, allow_unused=True)
            relevance = torch.eye(layers[0].shape[-1], device=images.device)
            for layer, gradient in zip(layers, gradients, strict=True):
                if gradient is not None:
                    weighted = (gradient * layer.detach()).relu().float().mean(1)
                    relevance = relevance + weighted @ relevance
            return _to_patches(classifier, relevance, images)

        with surgery.inference(classifier.model):
            found = in_steps(len(pairs), self.batch, step)
        maps = torch.cat(found) if found else _no_maps(classifier, images)
        return self._result(classifier, images, maps, pairs, logits)


def _fused(attention: Attention, how: Literal["mean", "max", "min"]) -> Float[Tensor, "b t t"]:
    if how == "mean":
        return attention.mean(1)
    return attention.amax(1) if how == "max" else attention.amin(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    """How tokens lie over a picture, and which of them the head reads."""

    layout: Layout
    read: Bool[Tensor, " t"]


def _to_patches(
    classifier: SpatialClassifier, flow: Float[Tensor, "b t t"], images: Tensor
) -> Float[Tensor, "b u v"]:
    """Lay what the tokens that the head reads get from each patch over the picture."""
    reading = _reading(classifier, images)
    from_read = flow[:, reading.read].mean(1)
    return reading.layout.grid(from_read[..., None], _size(images))[:, 0]


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _no_maps(classifier: SpatialClassifier, images: Tensor) -> Float[Tensor, "0 u v"]:
    reading = _reading(classifier, images)
    t = len(reading.read)
    return reading.layout.grid(images.new_zeros(0, t, 1).float(), _size(images))[:, 0]


def _reading(classifier: SpatialClassifier, images: Tensor) -> _Reading:
    """Find out on noise what the head reads: the tokens whose last attention changes the logits.

    Raises:
        ModelError: the tokens that attend to each other are not the patches of the picture.
    """
    known = _READINGS.setdefault(classifier, {})
    size = _size(images)
    if size not in known:
        generator = torch.Generator().manual_seed(0)
        picture = torch.randn(images.shape[1:], generator=generator).to(images)[None]
        with surgery.inference(classifier.model), torch.enable_grad():
            layers, logits = attention_of(classifier, picture.requires_grad_())
            weights = torch.linspace(-1, 1.3, logits.shape[1]).to(logits).expand_as(logits)
            (gradient,) = torch.autograd.grad(logits, layers[-1:], weights, allow_unused=True)
        layout = _layout(classifier, picture.detach(), layers[-1].shape[-1])
        if gradient is None or layout is None:
            t = layers[-1].shape[-1]
            raise no_transformer(classifier, f"the {t} that attend are not the patches")
        if not gradient.any():
            raise ModelError(f"the logits of {classifier.spec.name} depend on no attention")
        known[size] = _Reading(layout=layout, read=gradient.abs().amax((0, 1, 3)) > 0)
    return known[size]


_READINGS: WeakKeyDictionary[SpatialClassifier, dict[tuple[int, int], _Reading]]
_READINGS = WeakKeyDictionary()


def _layout(classifier: SpatialClassifier, picture: Tensor, t: int) -> Layout | None:
    """Tell how `t` tokens lie over a picture; None where the feature map has other ones."""
    size = _size(picture)
    prefix = getattr(classifier.model, "num_prefix_tokens", None)
    row = picture.new_zeros(1, t, 1)
    layout = detect(row, size, prefix) or detect(row, size)
    if layout is None or not isinstance(classifier.layout, Layout):
        return layout
    features = classifier.forward(picture).grid.shape[2:]
    return layout if layout.grid(row, size).shape[2:] == features else None
