"""Maps from the attention of a vision transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attrib import surgery
from attrib.errors import ModelError, SpecError
from attrib.methods.base import METHODS, Method
from attrib.methods.gradient import rounds_of
from attrib.methods.memory import in_steps
from attrib.methods.open_attention import Attention, attention_of, no_transformer
from attrib.models import SpatialClassifier
from attrib.models.layout import Layout, detect
from attrib.registry import AtLeast
from attrib.transfer import to_device, to_host
from attrib.types import Attribution, TargetRule, Targets

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

        def step(rows: slice, _batch: int) -> tuple[Tensor, Tensor]:
            layers, logits = attention_of(classifier, images[rows])
            total = torch.eye(layers[0].shape[-1], device=images.device)
            for layer in layers:
                total = self._with_residual(_fused(layer.float(), self.heads)) @ total
            return _to_patches(classifier, total, images), logits

        with surgery.inference(classifier.model):
            found = in_steps(max(1, len(images)), self.batch, step)
        maps, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        pairs = targets(logits)
        return self._result(classifier, images, maps[pairs.image], pairs, logits)

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
        batch: Pictures per backward pass. More of them than that cost a forward pass of their own,
            where classes are chosen by the logits.
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
        chosen = targets

        def step(rows: slice, _batch: int) -> tuple[Tensor, Tensor]:
            nonlocal chosen
            if rows.stop - rows.start < len(images) and not isinstance(chosen, Targets):
                chosen = targets(classifier.predict(images))  # a rule sees all logits at once
            with torch.enable_grad():
                layers, logits = attention_of(classifier, images[rows].requires_grad_())
            own = _part(chosen, rows) if isinstance(chosen, Targets) else chosen
            flow = _relevance(layers, logits, own(logits.detach()))
            return _to_patches(classifier, flow, images), logits.detach()

        with surgery.inference(classifier.model):
            found = in_steps(max(1, len(images)), self.batch, step)
        maps, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self._result(classifier, images, maps, chosen(logits), logits)


def _part(pairs: Targets, rows: slice) -> Targets:
    """Cut out the pairs of some images."""
    own = (pairs.image >= rows.start) & (pairs.image < rows.stop)
    return Targets(image=pairs.image[own] - rows.start, label=pairs.label[own])


def _relevance(
    layers: list[Attention], logits: Float[Tensor, "b c"], pairs: Targets
) -> Float[Tensor, "n t t"]:
    """Go back once for all images, and once more for each further class of one."""
    rounds = rounds_of(to_host(pairs.image)[0].tolist())
    t = layers[0].shape[-1]
    out = torch.zeros(len(pairs), t, t, device=logits.device)
    for rows in rounds:
        picked = to_device(rows, logits.device)
        image, label = pairs.image[picked], pairs.label[picked]
        seed, again = torch.zeros_like(logits), rows is not rounds[-1]
        seed[image, label] = 1
        gradients = torch.autograd.grad(logits, layers, seed, allow_unused=True, retain_graph=again)
        flow = torch.eye(t, device=logits.device)
        for layer, gradient in zip(layers, gradients, strict=True):
            if gradient is not None:
                weighted = (gradient[image] * layer.detach()[image]).relu().float().mean(1)
                flow = flow + weighted @ flow
        out[picked] = flow
    return out


def _fused(attention: Attention, how: Literal["mean", "max", "min"]) -> Float[Tensor, "b t t"]:
    if how == "mean":
        return attention.mean(1)
    return attention.amax(1) if how == "max" else attention.amin(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    """How tokens lie over a picture, and the numbers of those that the head reads."""

    layout: Layout
    read: Int[Tensor, " s"]


def _to_patches(
    classifier: SpatialClassifier, flow: Float[Tensor, "b t t"], images: Tensor
) -> Float[Tensor, "b u v"]:
    """Lay what the tokens that the head reads get from each patch over the picture."""
    reading = _reading(classifier, images)
    from_read = flow[:, reading.read].mean(1)
    return reading.layout.grid(from_read[..., None], _size(images))[:, 0]


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _reading(classifier: SpatialClassifier, images: Tensor) -> _Reading:
    """Find out on noise what the head reads: the tokens whose last attention changes the logits.

    Raises:
        ModelError: the tokens that attend to each other are not the patches of the picture.
    """
    known = _READINGS.setdefault(classifier, {})
    size = _size(images)
    if size not in known:
        generator = torch.Generator().manual_seed(0)
        picture = torch.randn(images.shape[1:], generator=generator)
        picture = picture.to(images, non_blocking=True)[None]
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
        known[size] = _Reading(layout=layout, read=gradient.abs().amax((0, 1, 3)).nonzero()[:, 0])
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
