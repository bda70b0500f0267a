"""AIB's objective, as the paper writes it and as the authors' code computes it, term by term."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.bottleneck.aib_module import AIBOutput
from attrib.errors import UnknownNameError
from attrib.registry import AtLeast, check_fields

__all__ = ["AIBObjective", "AIBTerms", "aib_loss", "latent_kl", "official"]

KL_SCALES = {"vgg32": 0.5, "wrn28_10": 1.0, "cub_vgg16": 1.0}
"""By network, in the authors' code."""

KLKind = Literal["std", "official"]


@dataclass(frozen=True, kw_only=True)
class AIBObjective:
    """Weights and units of the terms. The defaults are the paper's; `official` gives the code's.

    Args:
        beta: Of the information in the latent vector.
        lambda_q: Of the anchors' distance to the scores.
        lambda_c: Of the scores' distance to the anchors.
        units: Of cross-entropy and information.
        kl_scale: Further factor on the information.
        kl: `"official"` takes `exp(std)` for the standard deviation, a slip of the authors' code,
            which draws with `std`.
        distance: Squared distances are averaged over the cells of a map, as in the code, or
            summed, as the paper's norm says.
    """

    name: ClassVar[str] = "aib objective"

    beta: Annotated[float, AtLeast(0)] = 0.01
    lambda_q: Annotated[float, AtLeast(0)] = 0.4
    lambda_c: Annotated[float, AtLeast(0)] = 0.1
    units: Literal["nats", "bits"] = "nats"
    kl_scale: Annotated[float, AtLeast(0)] = 1.0
    kl: KLKind = "std"
    distance: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        check_fields(self)


def official(network: str = "vgg32") -> AIBObjective:
    """Return the objective of the authors' code: bits, `exp(std)`, and half of it for VGG-32.

    Args:
        network: `"vgg32"`, `"wrn28_10"` or `"cub_vgg16"`.

    Raises:
        UnknownNameError: another network.
    """
    if network not in KL_SCALES:
        raise UnknownNameError("network", network, KL_SCALES)
    return AIBObjective(units="bits", kl="official", kl_scale=KL_SCALES[network])


@dataclass(frozen=True, kw_only=True, eq=False)
class AIBTerms:
    """The loss and its terms before they are weighted.

    `total = cross_entropy + beta * kl_scale * kl + lambda_q * vq + lambda_c * commit`.

    Args:
        total: To be minimised.
        cross_entropy: Of the mean logits, mean over images, in the objective's units.
        kl: From the latent vector's distribution to the standard normal one, mean over attention
            maps, in the objective's units.
        vq: See `Quantised`; 0 without a quantiser.
        commit: Likewise.
    """

    total: Float[Tensor, ""]
    cross_entropy: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    vq: Float[Tensor, ""]
    commit: Float[Tensor, ""]


def aib_loss(
    output: AIBOutput, labels: Int[Tensor, " b"], objective: AIBObjective | None = None
) -> AIBTerms:
    r"""Compute the objective, Lai et al., eq. 10.

    $$L = -\log q(y \mid z) + \beta\, D_{KL}[p(z \mid x, a_q) \,\|\, N(0, I)]
        + \lambda_q \|\mathrm{sg}[a] - a_q\|^2 + \lambda_c \|a - \mathrm{sg}[a_q]\|^2$$

    Deviation: with several samples the cross-entropy is that of the mean logits, as in the
    authors' code, not the mean over samples. In training there is one sample.

    Args:
        output: Of a forward pass.
        labels: True classes.
        objective: Weights and units; by default the paper's.
    """
    objective = objective or AIBObjective()
    unit = 1 / math.log(2) if objective.units == "bits" else 1.0
    attended = output.attention
    cells = attended.mean[0].numel() if objective.distance == "sum" else 1
    cross_entropy = unit * F.cross_entropy(output.logits, labels)
    kl = unit * latent_kl(output.latent_mean, output.latent_std, objective.kl).mean()
    vq, commit = cells * attended.vq, cells * attended.commit
    information = objective.beta * objective.kl_scale * kl
    distances = objective.lambda_q * vq + objective.lambda_c * commit
    return AIBTerms(
        total=cross_entropy + information + distances,
        cross_entropy=cross_entropy,
        kl=kl,
        vq=vq,
        commit=commit,
    )


def latent_kl(
    mean: Float[Tensor, "*rows z"], std: Float[Tensor, "*rows z"], kind: KLKind = "std"
) -> Float[Tensor, "*rows"]:
    """Divergence of independent normal numbers from standard normal ones, in nats per vector.

    Args:
        mean: Of each number.
        std: Of each number.
        kind: `"official"` takes `exp(std)` for the standard deviation.

    Returns:
        In float32 at least.
    """
    exact = torch.promote_types(std.dtype, torch.float32)  # autocast leaves half of the digits
    mean, std = mean.to(exact), std.to(exact)
    # a standard deviation that underflows to 0 has no logarithm
    log_std = std if kind == "official" else std.clamp(min=torch.finfo(exact).tiny).log()
    return (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(-1) / 2
