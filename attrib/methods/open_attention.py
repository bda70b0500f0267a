"""The attention of every layer of a vision transformer, also where it is computed fused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.calls import Function, answered, bare_name
from attrib.errors import ModelError
from attrib.models import SpatialClassifier

__all__ = ["Attention", "attention_of", "no_transformer"]

Attention = Float[Tensor, "b heads t t"]


def attention_of(
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
        raise no_transformer(classifier, seen)
    return found, logits


def no_transformer(classifier: SpatialClassifier, seen: str) -> ModelError:
    """Say why a model is refused; `seen` is what it has instead of plain self-attention."""
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
