"""AIB's spatial attention: a variational map on a feature grid, a latent vector, and its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib.bottleneck.aib_quantiser import Quantiser
from attrib.errors import InputError

__all__ = ["AIB", "AIBNetwork", "AIBOutput", "Attended", "Attention", "Modulation", "NoAttention",
           "Noise"]  # fmt: skip

SHIFT = 5.0
"""Taken off before the softplus, so that standard deviations start small."""
TRAINING_SAMPLES, TEST_SAMPLES = (1, 1), (4, 12)
"""How many attention maps per image, and latent vectors per map."""

Modulation = Literal["residual", "gate"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """Standard normal draws; with them a forward pass can be replayed.

    Args:
        attention: For `s` attention maps per image.
        latent: For `t` latent vectors of `z` numbers per attention map.
    """

    attention: Float[Tensor, "s b 1 u v"]
    latent: Float[Tensor, "t s b z"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attended:
    """Attention over a feature grid.

    Args:
        mean: Of the scores, in (0, 1).
        std: Of the scores.
        maps: Drawn scores, not clamped, or the anchors they were rounded to.
        vq: See `Quantised`; 0 without a quantiser.
        commit: Likewise.
    """

    mean: Float[Tensor, "b 1 u v"]
    std: Float[Tensor, "b 1 u v"]
    maps: Float[Tensor, "s b 1 u v"]
    vq: Float[Tensor, ""]
    commit: Float[Tensor, ""]


@dataclass(frozen=True, kw_only=True, eq=False)
class AIBOutput:
    """What one forward pass leaves.

    Args:
        logits: Means over all samples.
        sample_logits: Of every latent vector.
        attention: The maps.
        latent_mean: Per attention map.
        latent_std: Per attention map.
    """

    logits: Float[Tensor, "b c"]
    sample_logits: Float[Tensor, "t s b c"]
    attention: Attended
    latent_mean: Float[Tensor, "s b z"]
    latent_std: Float[Tensor, "s b z"]


@final
class Attention(nn.Module):
    r"""Draw attention scores for each cell of a feature grid.

    $$a = \mu_a + \sigma_a \varepsilon, \quad \sigma_a = \mathrm{softplus}(g(\mu_a) - 5)$$

    Deviation from the paper: `g` is a 3x3 convolution, as in the authors' code, not 1x1.

    Args:
        mean: Makes scores `[b, 1, u, v]` in (0, 1) of features `[b, k, u, v]`.
        quantiser: Rounds the scores; None leaves them continuous.
    """

    def __init__(self, mean: nn.Module, quantiser: Quantiser | None = None) -> None:
        super().__init__()
        self.mean = mean
        self.std = nn.Conv2d(1, 1, 3, padding=1)
        self.quantiser = quantiser

    def forward(
        self, features: Float[Tensor, "b k u v"], noise: Float[Tensor, "s b 1 u v"]
    ) -> Attended:
        """Draw as many maps per image as there is noise for."""
        mean: Tensor = self.mean(features)
        std = F.softplus(self.std(mean) - SHIFT)
        scores = mean + std * noise
        if self.quantiser is None:
            zero = mean.new_zeros(())
            return Attended(mean=mean, std=std, maps=scores, vq=zero, commit=zero)
        found = self.quantiser(scores)
        return Attended(mean=mean, std=std, maps=found.values, vq=found.vq, commit=found.commit)

    def map(self, features: Float[Tensor, "b k u v"]) -> Float[Tensor, "b u v"]:
        """Return the mean scores, rounded to anchors where there is a quantiser; no randomness."""
        mean: Tensor = self.mean(features)
        return (mean if self.quantiser is None else self.quantiser(mean).values).squeeze(1)


@final
class NoAttention(nn.Module):
    """In the place of attention: a map of zeros, so that features pass as they are.

    What is left is the deep variational information bottleneck (Alemi et al.), the row VGG-DVIB
    of the paper's table.
    """

    def forward(
        self, features: Float[Tensor, "b k u v"], noise: Float[Tensor, "s b 1 u v"]
    ) -> Attended:
        """Return as many maps of zeros as there is noise for."""
        zero = features.new_zeros(())
        maps = torch.zeros_like(noise)
        return Attended(mean=maps[0], std=maps[0], maps=maps, vq=zero, commit=zero)

    def map(self, features: Float[Tensor, "b k u v"]) -> Float[Tensor, "b u v"]:
        """Return zeros."""
        return torch.zeros_like(features[:, 0])


@final
class AIB(nn.Module):
    """Spatial attention by the information bottleneck, Lai et al., on a given feature grid.

    Features are modulated as `f * (1 + a)`, encoded to a latent vector, a draw of which is decoded
    to logits. Deviation from the paper, which encodes features and map together: the residual
    modulation is the authors' code's. With `modulation="gate"`, ours, they are modulated as
    `f * a`, so that a cell without attention is hidden.

    Args:
        attention: Draws the maps.
        encode: Makes `2 * latent` numbers of features `[b, k, u, v]`: mean, and what the softplus
            turns into the standard deviation.
        decode: Makes logits of a latent vector.
        latent: Length of the latent vector, K in the paper.
        modulation: `"residual"` or `"gate"`.
    """

    def __init__(
        self,
        attention: Attention | NoAttention,
        encode: nn.Module,
        decode: nn.Module,
        latent: int,
        modulation: Modulation = "residual",
    ) -> None:
        super().__init__()
        self.modulation = modulation
        self.attention = attention
        self.encode = encode
        self.decode = decode
        self.latent = latent

    def draw(
        self,
        features: Float[Tensor, "b k u v"],
        samples: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> Noise:
        """Draw the noise of one forward pass.

        Args:
            features: To be attended to.
            samples: Attention maps per image, and latent vectors per map; by default 1 and 1 in
                training, else 4 and 12, as the paper says (its code: 4 and 4).
            generator: Of the CPU; by default torch's own.

        Raises:
            InputError: less than one sample.
        """
        s, t = samples or (TRAINING_SAMPLES if self.training else TEST_SAMPLES)
        if min(s, t) < 1:
            raise InputError(f"samples are two numbers of 1 or more, got {(s, t)}")
        b, _, u, v = features.shape
        shapes = (s, b, 1, u, v), (t, s, b, self.latent)
        attention, latent = (torch.randn(shape, generator=generator) for shape in shapes)
        return Noise(attention=attention.to(features), latent=latent.to(features))

    def still(self, features: Float[Tensor, "b k u v"]) -> Noise:
        """Make no noise: the pass then takes the mean attention and the mean latent vector."""
        b, _, u, v = features.shape
        attention = features.new_zeros(1, b, 1, u, v)
        return Noise(attention=attention, latent=features.new_zeros(1, 1, b, self.latent))

    def forward(
        self,
        features: Float[Tensor, "b k u v"],
        noise: Noise | tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> AIBOutput:
        """Attend, encode and decode.

        Args:
            features: The grid.
            noise: Or how many samples to draw; see `draw`.
            generator: Of the CPU; by default torch's own.

        Raises:
            InputError: the noise does not fit the features.
        """
        if not isinstance(noise, Noise):
            noise = self.draw(features, noise, generator)
        self._check(features, noise)
        attended: Attended = self.attention(features, noise.attention)
        s, b = attended.maps.shape[:2]
        factor = attended.maps if self.modulation == "gate" else 1 + attended.maps
        modulated = (features * factor).flatten(0, 1)
        statistics = self.encode(modulated).view(s, b, -1)
        mean, rest = statistics.split(self.latent, dim=2)
        std = F.softplus(rest - SHIFT)
        latent = mean + std * noise.latent
        logits = self.decode(latent.flatten(0, 2)).view(*latent.shape[:3], -1)
        return AIBOutput(
            logits=logits.mean((0, 1)),
            sample_logits=logits,
            attention=attended,
            latent_mean=mean,
            latent_std=std,
        )

    def _check(self, features: Tensor, noise: Noise) -> None:
        b, _, u, v = features.shape
        s, t = noise.attention.shape[0], noise.latent.shape[0]
        expected = (s, b, 1, u, v), (t, s, b, self.latent)
        found = tuple(noise.attention.shape), tuple(noise.latent.shape)
        if found != expected:
            raise InputError(
                f"noise is {found[0]} and {found[1]}; these features take {expected[0]} and "
                f"{expected[1]}, drawn by AIB.draw"
            )


@final
class AIBNetwork(nn.Module):
    """A whole classifier: features, then attention and what follows it.

    Args:
        features: Makes features `[b, k, u, v]` of images.
        aib: What follows.
    """

    def __init__(self, features: nn.Module, aib: AIB) -> None:
        super().__init__()
        self.features = features
        self.aib = aib

    def forward(
        self,
        images: Float[Tensor, "b _ h w"],
        noise: Noise | tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> AIBOutput:
        """Classify images; the other arguments are those of `AIB.forward`."""
        output: AIBOutput = self.aib(self.features(images), noise, generator)
        return output

    def attention_map(self, images: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b u v"]:
        """Return the mean attention, rounded to anchors where there are any."""
        return self.aib.attention.map(self.features(images))
