"""Maps from the attention of a vision transformer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.calls import Function, answered, bare_name
from attrib.errors import ModelError, SpecError
from attrib.methods.base import METHODS, Method
from attrib.methods.memory import in_steps
from attrib.models import SpatialClassifier
from attrib.models.layout import Layout, detect
from attrib.registry import AtLeast
from attrib.types import Attribution, TargetRule

__all__ = ["GenericAttention", "Rollout"]

Attention = Float[Tensor, "b heads t t"]


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
                layers, _ = _attention(classifier, images[shown[rows]])
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
                layers, out = _attention(classifier, pictures)
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


def _attention(
    classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"]
) -> tuple[list[Attention], Float[Tensor, "b c"]]:
    """Run the model; give the attention of every layer and the logits.

    Raises:
        ModelError: a layer attends to something else than all patches, or there is no attention.
    """
    found: list[Attention] = []
    shapes: list[tuple[int, ...]] = []

    def answer(function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        name = bare_name(function)
        if name not in _ANSWERS:
            return function(*args, **kwargs)
        out, attention = _ANSWERS[name](function, args, kwargs)
        if attention.ndim >= 4:
            found.append(attention)
            shapes.append(tuple(attention.shape))
        return out

    with answered(answer):
        returned = classifier.model.forward(images.clone())
    logits = classifier.logits_of(returned)
    whole = {(len(images), s[-1], s[-1]) for s in shapes[:1]}
    if not found or {(s[0], *s[2:]) for s in shapes} != whole:
        seen = f"its attention has the shapes {sorted(set(shapes))}" if shapes else "it has none"
        raise _no_transformer(classifier, seen)
    return found, logits


def _no_transformer(classifier: SpatialClassifier, seen: str) -> ModelError:
    return ModelError(
        "attention methods need self-attention between all patches of a picture at every layer, "
        f"and {classifier.spec.name} is no such transformer: {seen} (windows, pooled tokens and "
        "channels do not count). Use a gradient method such as 'gradcam'"
    )


def _softmax(function: Function, args: Any, kwargs: Any) -> tuple[Any, Tensor]:
    out = function(*args, **kwargs)
    return out, out


def _scaled_dot_product(_function: Function, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    """Compute fused attention in the open."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    named = dict(zip(names, args, strict=False)) | kwargs
    q, k, v = named["query"], named["key"], named["value"]
    scores = (q * (named.get("scale") or q.shape[-1] ** -0.5)) @ k.mT
    mask = named.get("attn_mask")
    if named.get("is_causal"):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    attention = scores.softmax(-1)
    return attention @ v, attention


def _multi_head(function: Function, args: Any, kwargs: Any) -> tuple[Any, Tensor]:
    """Compute torch's own multi-head self-attention in the open: it returns a mere view of it.

    Raises:
        ModelError: it is more than plain self-attention.
    """
    named = dict(zip(inspect.signature(function).parameters, args, strict=False)) | kwargs
    extras = ("bias_k", "bias_v", "add_zero_attn", "key_padding_mask", "attn_mask")
    used = [name for name in extras if named.get(name) not in (None, False)]
    query, heads = named["query"], named["num_heads"]
    if used or named["key"] is not query or named["value"] is not query:
        raise ModelError(
            "attention methods follow torch's multi-head attention where it is plain "
            f"self-attention; here it has {', '.join(used) or 'other keys or values'}"
        )
    t, b, k = query.shape
    projected = F.linear(query, named["in_proj_weight"], named["in_proj_bias"])
    q, key, v = projected.view(t, b, 3, heads, k // heads).permute(2, 1, 3, 0, 4)
    out, attention = _scaled_dot_product(function, (q, key, v), {})
    joined = out.permute(2, 0, 1, 3).reshape(t, b, k)
    out = F.linear(joined, named["out_proj_weight"], named["out_proj_bias"])
    if not named.get("need_weights", True):
        return (out, None), attention
    average = named.get("average_attn_weights", True)
    return (out, attention.mean(1) if average else attention), attention


_ANSWERS: dict[str, Callable[[Function, Any, Any], tuple[Any, Tensor]]] = {
    "softmax": _softmax,
    "scaled_dot_product_attention": _scaled_dot_product,
    "multi_head_attention_forward": _multi_head,
}
"""Functions that attention ends in: written out, fused, or all of it."""


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
            layers, logits = _attention(classifier, picture.requires_grad_())
            weights = torch.linspace(-1, 1.3, logits.shape[1]).to(logits).expand_as(logits)
            (gradient,) = torch.autograd.grad(logits, layers[-1:], weights, allow_unused=True)
        layout = _layout(classifier, picture.detach(), layers[-1].shape[-1])
        if gradient is None or layout is None:
            t = layers[-1].shape[-1]
            raise _no_transformer(classifier, f"the {t} that attend are not the patches")
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
