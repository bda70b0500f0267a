"""A mask network, a classifier that sees through the mask, and what puts a price on seeing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib.bottleneck.mask_autoencoder import Autoencoder
from attrib.bottleneck.mask_layers import LineNet
from attrib.bottleneck.mask_nets import MaskArchitecture
from attrib.bottleneck.mask_terms import (
    CodeTerms,
    MaskTerms,
    Objective,
    bounded,
    grown_mask,
    mask_entropy,
    mask_nll,
    masked,
    pixel_nll,
    random_rectangles,
    sample_mask,
)
from attrib.errors import InputError

__all__ = ["MaskModel", "MaskNoise", "MaskOptions"]

FIRST_LOGIT = 2.0
"""Of every pixel before training: the mask begins mostly transparent."""


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """What a mask model minimises.

    The paper leaves open every default but `objective`, `randomise` and `exact_entropy`.

    Args:
        objective: `"ib"` (eq. 2), `"ceb"` (eq. 13) or `"cmi"` (eq. 11).
        randomise: The classifier also sees a random rectangle of each picture, which keeps the mask
            from telling it the class; not for `cmi`, which does so by itself.
        temperature: Of the relaxed masks, see `sample_mask`.
        hard: Boolean masks in training, with the gradient of relaxed ones.
        variance: Of a pixel around the autoencoder's, see `pixel_nll`.
        normalised: See `pixel_nll`.
        exact_entropy: Equation 6 instead of 8, see `mask_entropy`.
        first_logit: Of every pixel before training; masks begin mostly transparent. Where the class
            shows in fine strokes, a larger one keeps the mask's noise from hiding it at first.
        bound: Of logits, see `bounded`; inf for none, as in the paper. At 6 a pixel of a closed
            mask is still seen in 0.25 % of the draws, and one of an open mask hidden in as many.

    Raises:
        InputError: an option out of its range.
    """

    objective: Objective = "ib"
    randomise: bool = False
    temperature: float = 2 / 3
    hard: bool = False
    variance: float = 1 / 8
    normalised: bool = False
    exact_entropy: bool = False
    first_logit: float = FIRST_LOGIT
    bound: float = 6.0

    def __post_init__(self) -> None:
        if self.objective not in ("ib", "ceb", "cmi"):
            raise InputError(f"objective is 'ib', 'ceb' or 'cmi', got {self.objective!r}")
        if self.objective == "cmi" and self.randomise:
            raise InputError("cmi has no randomised mask; set randomise=False")
        if min(self.temperature, self.variance) <= 0:
            raise InputError(
                f"temperature and variance must be positive, got {self.temperature} "
                f"and {self.variance}"
            )
        if abs(self.first_logit) >= self.bound:
            raise InputError(
                f"first_logit lies within the bound of logits, got {self.first_logit} "
                f"and {self.bound}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskNoise:
    """The random numbers of one batch.

    Args:
        u: Of the mask, uniform in (0, 1), on the mask's own grid.
        z: Of the latent vectors, standard normal; one row per autoencoder, three for `cmi`.
        rectangle: What the classifier sees besides the mask, ones and zeros; or None.
    """

    u: Float[Tensor, "b 1 u v"]
    z: Float[Tensor, "_k b _d"]
    rectangle: Float[Tensor, "b 1 h w"] | None = None


class MaskModel(nn.Module):
    """Mask network, classifier and autoencoders as one model.

    Zhmoginov et al., *Information-Bottleneck Approach to Salient Region Discovery*.

    Args:
        architecture: One of `ARCHITECTURES`, or `any_size(...)`.
        channels: Of the pictures, whose values are in [0, 1].
        classes: That the classifier tells apart.
        options: What is minimised.

    Raises:
        InputError: the architecture's lines do not fit together.
    """

    def __init__(
        self,
        architecture: MaskArchitecture,
        *,
        channels: int,
        classes: int,
        options: MaskOptions | None = None,
    ) -> None:
        super().__init__()
        options = MaskOptions() if options is None else options
        self.architecture, self.options = architecture, options
        self.channels, self.classes = channels, classes
        grid = (architecture.size, architecture.size)
        self.mask = LineNet(architecture.mask, (channels, *grid), outputs=1)
        if self.mask.shape != (1, *grid):
            raise InputError(f"the mask line {architecture.mask!r} makes {self.mask.shape}")
        nn.init.constant_(list(self.mask.parameters())[-1], options.first_logit)
        self.classifier = LineNet(
            architecture.classifier, (channels + 1, *grid), outputs=classes, relu6=True
        )
        nn.init.zeros_(next(self.classifier.parameters()).data[:, channels:])
        parts = _autoencoders(architecture, channels, classes, options)
        bias = list(parts["shape" if options.objective == "cmi" else "seen"].parameters())[-1].data
        bias[0] = options.first_logit  # an autoencoder that expects noise rewards it at first
        self.autoencoders = nn.ModuleDict(parts)

    @torch.no_grad()
    def begin_mask(self) -> None:
        """Give the mask network's first layers the classifier's weights, as far as they are alike.

        Its first layer takes those of the picture's channels; an open mask adds nothing to them.
        """
        own, others = (
            [step for step in net.steps if isinstance(step, nn.Conv2d)]
            for net in (self.mask, self.classifier)
        )
        for mine, given in zip(own, others, strict=False):
            weight = given.weight[:, : self.channels] if mine is own[0] else given.weight
            if mine.weight.shape != weight.shape or mine is own[-1]:
                break
            mine.weight.copy_(weight)
            cast(Tensor, mine.bias).copy_(cast(Tensor, given.bias))

    def mask_logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return the logit of the probability that a pixel is seen, within the bound."""
        return bounded(self.mask(images), self.options.bound)

    def classify(
        self, images: Float[Tensor, "b c h w"], mask: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b _classes"]:
        """Return the class logits of what a mask leaves of the pictures.

        The classifier is given the mask less one, with weights that begin at zero: an open mask
        adds nothing, a hidden pixel is black at first, and both are told apart where that helps.
        The paper gives it the mask itself; then weights that whole pictures never teach make noise
        of every hidden pixel.
        """
        return self.classifier(masked(images, mask, shift=1))  # type: ignore[no-any-return]

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _classes"]:
        """Return the class logits under each picture's most likely Boolean mask."""
        return self.classify(images, (self.mask_logits(images) > 0).to(images))

    def noise(self, images: Float[Tensor, "b c h w"], generator: torch.Generator) -> MaskNoise:
        """Draw what a batch needs; the generator may be on another device than the pictures."""
        b, _, h, w = images.shape
        device = generator.device
        u = torch.rand(b, 1, h, w, generator=generator, device=device)
        z = torch.randn(
            len(self.autoencoders), b, self.architecture.latent, generator=generator, device=device
        )
        rectangle = random_rectangles(images, generator) if self.options.randomise else None
        return MaskNoise(u=u.to(images), z=z.to(images), rectangle=rectangle)

    def terms(
        self,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        noise: MaskNoise,
        *,
        gated: bool = False,
    ) -> MaskTerms:
        """Compute every term of a batch's loss.

        Args:
            images: In [0, 1].
            labels: Classes; for `cmi` they also stand for the paper's c'.
            noise: Drawn by `noise`, or injected.
            gated: Terms that β multiplies have no gradient in the mask network.
        """
        options = self.options
        logits = self.mask_logits(images)
        mask = sample_mask(logits, noise.u, temperature=options.temperature, hard=options.hard)
        shown = mask if noise.rectangle is None else grown_mask(mask, noise.rectangle)
        costs = F.cross_entropy(self.classify(images, shown), labels, reduction="none")
        priced = mask.detach() if gated else mask
        if options.objective == "cmi":
            codes = self._cmi_codes(images, labels, mask, priced, noise.z)
        else:
            codes = {"seen": self._masked_code(images, labels, priced, noise.z[0])}
            mask, logits = priced, logits.detach() if gated else logits
        entropy = mask_entropy(mask, logits, exact=options.exact_entropy)
        return MaskTerms(cross_entropy=costs, entropy=entropy, **codes)

    def _masked_code(self, images: Tensor, labels: Tensor, mask: Tensor, z: Tensor) -> CodeTerms:
        decoded, kl = self.autoencoders["seen"](masked(images, mask), z, labels)
        return CodeTerms(
            mask=mask_nll(mask, decoded[:, :1]),
            pixels=self._pixels(images, decoded[:, 1:], mask),
            kl=kl,
        )

    def _cmi_codes(
        self, images: Tensor, labels: Tensor, mask: Tensor, priced: Tensor, z: Tensor
    ) -> dict[str, CodeTerms]:
        decoded, kl = self.autoencoders["seen"](masked(images, priced), z[0], labels, priced)
        none = torch.zeros_like(kl)
        seen = CodeTerms(mask=none, pixels=self._pixels(images, decoded, priced), kl=kl)
        decoded, kl = self.autoencoders["shape"](mask, z[1], labels)
        shape = CodeTerms(mask=mask_nll(mask, decoded), pixels=none, kl=kl)
        decoded, kl = self.autoencoders["whole"](torch.cat([images, mask], 1), z[2], labels, mask)
        everywhere = self._pixels(images, decoded, torch.ones_like(mask))
        whole = CodeTerms(mask=none, pixels=everywhere, kl=kl)
        return {"seen": seen, "shape": shape, "whole": whole}

    def _pixels(self, images: Tensor, decoded: Tensor, mask: Tensor) -> Tensor:
        return pixel_nll(
            images,
            decoded,
            mask,
            variance=self.options.variance,
            normalised=self.options.normalised,
        )


def _autoencoders(
    architecture: MaskArchitecture, channels: int, classes: int, options: MaskOptions
) -> dict[str, Autoencoder]:
    k = channels + 1
    if options.objective == "cmi":
        return {
            "seen": Autoencoder(architecture, k, channels, told_mask=True),
            "shape": Autoencoder(architecture, 1, 1),
            "whole": Autoencoder(architecture, k, channels, classes=classes, told_mask=True),
        }
    told = classes if options.objective == "ceb" else 0
    return {"seen": Autoencoder(architecture, k, k, classes=told)}
