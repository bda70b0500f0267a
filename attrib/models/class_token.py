"""The end of a transformer whose head reads the class token, followed for that token alone.

What the last block and the head do for the patches is lost. Without it the way from the block's
input to the logits costs next to nothing, and so does the way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.models.probe import close, gradients_by, noise, probing

if TYPE_CHECKING:
    from attrib.models.classifier import SpatialClassifier

__all__ = ["ClassToken", "class_token_after"]

Tokens = Float[Tensor, "b t k"]
_NORM = ".norm1"
"""What the input of a block's attention comes from, in timm's transformers."""


@dataclass(frozen=True, kw_only=True)
class ClassToken:
    """A way from the input of the last attention to the logits, through the class token.

    Args:
        layer: Module path of the norm before that attention, in a block of timm's making.
        prefix: Tokens before those of the patches: the class token, and what stands beside it.
    """

    layer: str
    prefix: int = 1

    def recorded(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"]
    ) -> tuple[Float[Tensor, "b c"], Tokens]:
        """Run the model without gradients, then its end with them.

        Returns:
            The logits, as the model has them; the layer's output to differentiate them by.
        """
        model, first = classifier.model, list[Tensor]()

        def keep(inputs: Any, _output: object) -> None:
            first.append(inputs[0][:, : self.prefix].clone())

        before = surgery.hooked(surgery.submodule(model, self.layer), keep)
        with torch.no_grad(), before, surgery.tap(model, self.layer) as tapped:
            logits = classifier.logits_of(model(images))
        raw = tapped.value(self.layer).requires_grad_()
        with torch.enable_grad():
            own = self.logits(classifier, first[0], raw)
            return logits + (own - own.detach()), raw

    def logits(
        self, classifier: SpatialClassifier, first: Float[Tensor, "b p k"], raw: Tokens
    ) -> Float[Tensor, "b c"]:
        """Go on without the patches.

        Args:
            classifier: The model, split.
            first: The block's input at the tokens before them.
            raw: Output of the layer, at all tokens.
        """
        model: Any = classifier.model
        path = self.layer.removesuffix(_NORM)
        block = surgery.submodule(model, path)
        attended = _attended(block.attn, raw, first.shape[1])
        with surgery.passed_over(model, (), f"{path}.attn", attended):
            tokens = block(first)
        return classifier.logits_of(model.forward_head(model.norm(tokens)))


def class_token_after(classifier: SpatialClassifier, layer: str) -> ClassToken | None:
    """Find out whether a `ClassToken` makes the logits of a layer's output, and their gradient.

    Tried on noise. Nothing is known by the name of an architecture.
    """
    model = classifier.model
    if not layer.endswith(_NORM) or not hasattr(model, "forward_head"):
        return None
    if not _is_plain(getattr(surgery.submodule(model, layer.removesuffix(_NORM)), "attn", None)):
        return None
    found = ClassToken(layer=layer, prefix=max(1, getattr(model, "num_prefix_tokens", 1)))
    images = noise(model, classifier.spec)
    with probing(model, images):
        with surgery.tap(model, layer, leaf=True) as tapped:
            want = classifier.logits_of(model(images))
        slopes = gradients_by(want, [tapped.value(layer)])
        try:
            own, raw = found.recorded(classifier, images)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
            return None  # the head reads the patches, or the block is another
        if slopes[0] is None or not close(own, want):
            return None
        return found if close(gradients_by(own, [raw])[0], slopes[0]) else None  # type: ignore[arg-type]


def _is_plain(attention: Any) -> bool:
    """Tell whether attention is made of the linear layers that `_attended` reads, and no more."""
    try:
        linear = isinstance(attention.qkv, nn.Linear) and isinstance(attention.proj, nn.Linear)
        between = (attention.q_norm, attention.k_norm, getattr(attention, "norm", nn.Identity()))
        return linear and all(isinstance(module, nn.Identity) for module in between)
    except AttributeError:
        return False


def _attended(attention: Any, tokens: Tokens, first: int) -> Float[Tensor, "b {first} k"]:
    """Do what the attention of timm does, for the first few tokens.

    Their queries are taken through the weights of the keys to all tokens, and means of the tokens
    through the weights of the values: neither keys nor values are made.
    """
    heads, bias = attention.num_heads, attention.qkv.bias
    by_query, by_key, by_value = attention.qkv.weight.chunk(3)
    offset, _, own = (None, None, 0) if bias is None else bias.chunk(3)
    query = F.linear(tokens[:, :first], by_query, offset).unflatten(2, (heads, -1))
    # what the keys' bias adds is the same for all tokens, and the softmax forgets it
    asked = torch.einsum("bphd,hdk->bphk", query, by_key.unflatten(0, (heads, -1)))
    scores = asked.flatten(1, 2) @ tokens.mT * attention.scale
    means = (scores.softmax(-1) @ tokens).unflatten(1, (first, heads))
    values = torch.einsum("bphk,hdk->bphd", means, by_value.unflatten(0, (heads, -1)))
    return attention.proj(values.flatten(2) + own)  # type: ignore[no-any-return]
