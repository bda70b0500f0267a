"""The IB mask objective, term by term: pure functions of logits, masks and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError

__all__ = [
    "CodeTerms",
    "MaskTerms",
    "Objective",
    "bounded",
    "grown_mask",
    "mask_entropy",
    "mask_nll",
    "masked",
    "pixel_nll",
    "prior_kl",
    "random_rectangles",
    "sample_mask",
]

Objective = Literal["ib", "ceb", "cmi"]
"""Equations 2, 13 and 11 of the paper."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeTerms:
    """What one autoencoder pays per picture, in nats.

    Args:
        mask: For the mask; zero where it decodes none.
        pixels: For the pixels' values, up to the constant named in `pixel_nll`.
        kl: For the latent vector.
    """

    mask: Float[Tensor, " b"]
    pixels: Float[Tensor, " b"]
    kl: Float[Tensor, " b"]

    @property
    def total(self) -> Float[Tensor, " b"]:
        """The upper bound of the entropy."""
        return self.mask + self.pixels + self.kl


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskTerms:
    """Every term of a batch's loss per picture, in nats.

    Args:
        cross_entropy: Of the class, given what the classifier sees.
        entropy: Of the mask given the picture; equation 8, or 6.
        seen: Autoencoder of the masked picture: V. Of objective `cmi`, of its pixels given the
            mask.
        shape: Autoencoder of the mask alone; `cmi` only.
        whole: Autoencoder of the whole picture, given mask and class; `cmi` only.
    """

    cross_entropy: Float[Tensor, " b"]
    entropy: Float[Tensor, " b"]
    seen: CodeTerms
    shape: CodeTerms | None = None
    whole: CodeTerms | None = None

    def means(self) -> dict[str, float]:
        """Return the batch's mean cross-entropy, entropy and V, which β follows."""
        parts = {
            "cross_entropy": self.cross_entropy,
            "entropy": self.entropy,
            "vae": self.seen.total,
        }
        return {name: float(part.detach().mean()) for name, part in parts.items()}

    def loss(self, objective: Objective, beta: float) -> Float[Tensor, " b"]:
        """Combine the terms as the objective says.

        | objective | loss |
        |---|---|
        | `ib` | cross_entropy + β (seen − entropy) |
        | `ceb` | the same with β / (1 − β) for β |
        | `cmi` | cross_entropy + β seen + shape − entropy + whole |

        Raises:
            InputError: β is negative or, for `ceb`, not below 1; a term of `cmi` is missing.
        """
        if beta < 0 or (objective == "ceb" and beta >= 1):
            raise InputError(f"beta is 0 or more, below 1 for ceb; got {beta} for {objective}")
        if objective == "cmi":
            if self.shape is None or self.whole is None:
                raise InputError("these terms are not of a model for cmi: shape or whole is None")
            return (
                self.cross_entropy
                + beta * self.seen.total
                + self.shape.total
                - self.entropy
                + self.whole.total
            )
        weight = beta / (1 - beta) if objective == "ceb" else beta
        return self.cross_entropy + weight * (self.seen.total - self.entropy)


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.bound = bound
        return logits.clamp(-bound, bound)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (logits,) = ctx.saved_tensors
        outward = (logits.abs() >= ctx.bound) & (gradient * logits < 0)
        return gradient.masked_fill(outward, 0), None


def bounded(logits: Float[Tensor, "b 1 h w"], bound: float) -> Float[Tensor, "b 1 h w"]:
    """Clamp logits, with a gradient that leads back from beyond the bound and never further out.

    The gradient of a mask shrinks with the chance that a draw turns a pixel over. Without a bound a
    mask that is fully open (or closed) has none left, and no price moves it any more.

    Args:
        logits: Of the probability that a pixel is seen.
        bound: Largest absolute value.
    """
    return _Bounded.apply(logits, bound)  # type: ignore[no-any-return]


def sample_mask(
    logits: Float[Tensor, "b 1 h w"],
    u: Float[Tensor, "b 1 h w"],
    *,
    temperature: float = 2 / 3,
    hard: bool = False,
) -> Float[Tensor, "b 1 h w"]:
    r"""Draw a mask by the Gumbel-softmax trick: $m=\sigma((\mathrm{logit}\rho+\mathrm{logit}u)/T)$.

    Args:
        logits: Of the probability ρ that a pixel is seen.
        u: Noise, uniform in (0, 1).
        temperature: Small values bring masks near to Boolean ones and raise the gradient's
            variance; large ones bias it (the paper's footnote 3 has it the wrong way round).
        hard: Boolean masks, with the gradient of the relaxed ones (straight-through).

    Raises:
        InputError: the temperature is not positive.
    """
    if temperature <= 0:
        raise InputError(f"temperature must be positive, got {temperature}")
    total = logits + torch.logit(u)
    relaxed = torch.sigmoid(total / temperature)
    return (total > 0).to(relaxed) + (relaxed - relaxed.detach()) if hard else relaxed


def masked(
    images: Float[Tensor, "b c h w"], mask: Float[Tensor, "b 1 h w"], *, shift: float = 0
) -> Float[Tensor, "b _k h w"]:
    """Hide pixels and append the mask, less a shift, as one more channel: eq. 5.

    So black is told from hidden.
    """
    return torch.cat([images * mask, mask - shift], 1)


def random_rectangles(
    images: Float[Tensor, "b c h w"], generator: torch.Generator
) -> Float[Tensor, "b 1 h w"]:
    """Draw one rectangle of ones per picture.

    Deviation: the paper gives no size; sides are uniform from an eighth to a third of the
    picture's, and the rectangle lies anywhere inside it.
    """
    spans = []
    for side in images.shape[2:]:
        low, high = max(1, side // 8), max(1, side // 3)
        draw = torch.rand(2, len(images), generator=generator, device=generator.device)
        length = low + (draw[0] * (high - low + 1)).floor()
        start = (draw[1] * (side - length + 1)).floor()
        at = torch.arange(side, device=generator.device)
        spans.append((at >= start[:, None]) & (at < (start + length)[:, None]))
    rows, columns = spans
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(images)


def grown_mask(
    mask: Float[Tensor, "b 1 h w"], rectangle: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 1 h w"]:
    """Show the rectangle too: m' = max(m, rectangle), never less than m."""
    return torch.maximum(mask, rectangle)


def mask_nll(
    mask: Float[Tensor, "b 1 h w"], logits: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """Cost of a mask under independent probabilities, summed over pixels; the start of eq. 7."""
    return (F.softplus(logits) - mask * logits).sum((1, 2, 3))


def mask_entropy(
    mask: Float[Tensor, "b 1 h w"], logits: Float[Tensor, "b 1 h w"], *, exact: bool = False
) -> Float[Tensor, " b"]:
    """Entropy of the mask given the picture: eq. 8, or eq. 6 with `exact`, summed over pixels.

    Equation 8 is `mask_nll` under the mask's own probabilities and so cancels it when the
    autoencoder gets those right, whatever mask was drawn. Its gradient needs that of the mask: with
    a detached mask the expected gradient is zero.
    """
    return mask_nll(torch.sigmoid(logits) if exact else mask, logits)


def pixel_nll(
    images: Float[Tensor, "b c h w"],
    decoded: Float[Tensor, "b c h w"],
    mask: Float[Tensor, "b 1 h w"],
    *,
    variance: float = 1 / 8,
    normalised: bool = False,
) -> Float[Tensor, " b"]:
    """Cost of the seen pixels: squared error over twice the variance, summed over the picture.

    Args:
        images: In [0, 1].
        decoded: Means of the Gaussians.
        mask: Weight of each pixel.
        variance: Of the Gaussians; the paper gives 1/8, and for SVHN only.
        normalised: Add the Gaussian's constant, which the paper calls C although it grows with the
            number of seen pixels.
    """
    cost = (images - decoded).square().sum(1, keepdim=True) / (2 * variance)
    if normalised:
        scale = torch.tensor(2 * torch.pi * variance, dtype=cost.dtype, device=cost.device)
        cost = cost + images.shape[1] / 2 * scale.log()
    return (mask * cost).sum((1, 2, 3))


def prior_kl(mean: Float[Tensor, "b d"], logvar: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """Kullback-Leibler divergence of a diagonal Gaussian from the standard one."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)
