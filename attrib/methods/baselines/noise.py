"""A gradient method averaged over noise."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import SpecError
from attrib.methods.base import METHODS, Method, resolve
from attrib.methods.baselines.run import (
    Batch,
    ByColour,
    Channels,
    Count,
    Explain,
    attribute,
    by_pixel,
    noise_of,
)
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast, format_spec
from attrib.types import Attribution, TargetRule

__all__ = ["SmoothGrad"]

Kind = Literal["smoothgrad", "smoothgrad_sq", "vargrad"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Method):
    r"""A gradient method averaged over noisy copies of the picture.

    $$M_y(p) = \sum_c \big|\mathbb{E}_{\epsilon}[G_c(x + \epsilon)(p)]\big|, \quad
    \epsilon \sim N\big(0, (\text{noise} \cdot (\max x - \min x))^2\big)$$

    with G the gradient, or what `of` says, colour by colour. Smilkov et al., *SmoothGrad: removing
    noise by adding noise*, section 3; the same as Captum's `NoiseTunnel`. `smooth(method=...)` does
    the like around any method, once colours are one value.

    Args:
        of: What is averaged: a method of the family "gradients of pixels", as a spec that leaves
            `channels`, `batch` and `seed` to this one.
        kind: The mean, the mean of squares, or the variance.
        samples: Noisy copies.
        noise: Deviation of the noise, as a fraction of the picture's range.
        seed: Of the noise, and of what `of` draws.
        channels: How the colours of a pixel become one value.
        batch: Pictures per backward pass.

    Raises:
        SpecError: `of` is another method, or has an option that is this one's.
    """

    name = "smoothgrad"
    summary = "a gradient method averaged over noisy pictures; any model that the method takes"
    family = "gradients of pixels"
    normalize = "max"
    needs_class_maps = False
    of: str | Method = "saliency"
    kind: Kind = "smoothgrad"
    samples: Count = 25
    noise: Annotated[float, AtLeast(0)] = 0.15
    seed: int = 0
    channels: Channels = "abs-sum"
    batch: Batch = 16

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        object.__setattr__(self, "of", format_spec(_averaged(self.of)))

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; `samples` times the passes of `of`, and raises what it raises."""
        chunk = by_pixel(self._noisy(_averaged(self.of).by_colour(classifier)), self.channels)
        return attribute(self, classifier, images, targets, chunk, seed=self.seed)

    def _noisy(self, explain: Explain) -> Explain:
        """Explain noisy copies of one picture, `batch` at a time, and put them together."""

        def explain_noisy(picture: Tensor, label: Tensor, batch: int) -> Tensor:
            deviation = noise_of(picture, self.noise)
            total = square = torch.zeros_like(picture)
            for n in _shares(self.samples, batch):
                copies = picture.expand(n, *picture.shape[1:])
                noisy = copies + deviation * torch.randn_like(copies)
                values = explain(noisy, label.expand(n), batch)
                total = total + values.sum(0, keepdim=True)
                square = square + values.square().sum(0, keepdim=True)
            mean, mean_square = total / self.samples, square / self.samples
            if self.kind == "vargrad":
                return mean_square - mean.square()
            return mean if self.kind == "smoothgrad" else mean_square

        return explain_noisy


def _shares(total: int, most: int) -> list[int]:
    """Deal so many to steps of at most so many."""
    return [min(most, total - done) for done in range(0, total, most)]


def _averaged(of: str | Method) -> ByColour:
    """Resolve what is averaged, and say why it cannot be."""
    inner = resolve(of)
    if not isinstance(inner, ByColour):
        able = [name for name in METHODS if isinstance(METHODS[name], ByColour)]
        raise SpecError(
            f"smoothgrad: of={format_spec(inner)!r} does not explain the colours of pixels; "
            f"known: {', '.join(able)}; 'smooth(method=...)' goes around any method"
        )
    for field in fields(inner):  # type: ignore[arg-type]
        if field.name in _OWN and getattr(inner, field.name) != field.default:
            raise SpecError(
                f"smoothgrad: of={format_spec(inner)!r} has an option {field.name!r} that is "
                "smoothgrad's own; give it there"
            )
    return inner


_OWN = ("channels", "batch", "seed")
"""Options that are read from the averaging method alone."""
