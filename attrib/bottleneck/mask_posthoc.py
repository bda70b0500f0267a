"""The IB mask's objective for a classifier that is finished: what a mask network learns from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.bottleneck.mask_attached import AttachedMask, look
from attrib.bottleneck.mask_autoencoder import Autoencoder
from attrib.bottleneck.mask_control import Beta, BetaControl
from attrib.bottleneck.mask_model import FIRST_LOGIT, MaskNoise
from attrib.bottleneck.mask_nets import any_size
from attrib.bottleneck.mask_network import MaskNetworkOptions
from attrib.bottleneck.mask_terms import (
    CodeTerms,
    MaskTerms,
    grown_mask,
    mask_entropy,
    mask_nll,
    masked,
    pixel_nll,
    random_rectangles,
    sample_mask,
)
from attrib.bottleneck.mask_view import Fill, blend, class_cost, filling
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast, check_fields

__all__ = ["PosthocMask", "PosthocOptions", "PosthocOutput"]

SMALLEST = 16
"""Side of the smallest grid that the autoencoder works on."""


@dataclass(frozen=True, kw_only=True)
class PosthocOptions:
    """What a mask network for a finished classifier minimises.

    Args:
        fill: What a hidden pixel shows, see `Fill`.
        signal: Classes that the mask has to keep: `"label"`, those of the data set, or
            `"prediction"`, the classifier's own answer for the whole picture.
        others: Of a conditional network, the share of masks that are asked for another class.
        randomise: The classifier also sees a random rectangle of each picture.
        temperature: Of the relaxed masks, see `sample_mask`.
        hard: Boolean masks in training, with the gradient of relaxed ones.
        variance: Of a pixel around the autoencoder's, see `pixel_nll`.
        normalised: See `pixel_nll`.
        latent: Numbers in the autoencoder's latent vector.

    Raises:
        SpecError: an option of a wrong type or out of its range.
    """

    name: ClassVar[str] = "mask objective"
    fill: Fill = "mean"
    signal: Literal["label", "prediction"] = "label"
    others: Annotated[float, AtLeast(0)] = 0.3
    randomise: bool = True
    temperature: Annotated[float, AtLeast(1e-3)] = 2 / 3
    hard: bool = False
    variance: Annotated[float, AtLeast(1e-6)] = 1 / 8
    normalised: bool = False
    latent: Annotated[int, AtLeast(1)] = 64

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class PosthocOutput:
    """What one batch comes to.

    Args:
        terms: Of the loss, per picture.
        logits: Of the classifier, through the masks.
        whole: Of the classifier, for whole pictures.
        probability: That a cell is seen, ρ.
    """

    terms: MaskTerms
    logits: Float[Tensor, "b c"]
    whole: Float[Tensor, "b c"]
    probability: Float[Tensor, "b 1 u v"]


class PosthocMask(nn.Module):
    r"""A mask network, the autoencoder that prices what it shows, and β: all that is trained.

    $$L = CE\big(f(x \odot m' + (1 - m') \odot \mathrm{fill}), y\big) + \beta (V - H_8(m))$$

    The terms are those of `MaskModel`; f is a private copy of the finished classifier, in
    evaluation mode, without gradients of its own. Deviations: f is fed the blended picture alone,
    and no channel tells it the mask, since it was not trained with one; it can mistake what is
    filled in for content. Masks are drawn on the grid of the network and enlarged bilinearly. V
    prices the grid: the mask of each cell and, where it shows, the mean colour of the picture's
    pixels in it, in [0, 1]; finer detail is free.

    For a multi-label classifier CE is the binary cross-entropy, summed over classes. For a
    conditional network it is that of the asked class alone, $-\log p_y$, and where a class is asked
    that the picture is not of, what its mask takes away: $\max(0, \log p_c(x) - \log p_c)$, which
    closes the mask of a class without evidence. The paper has no such network.

    Args:
        classifier: Is copied.
        network: How the mask network is built.
        options: What is minimised.
        control: Of β.
        colour: Mean of each channel of the training pictures, in [0, 1]; kept among the weights,
            normalised, where `fill="data-mean"` needs it.
        seed: Of the initial weights; torch's own random state is not touched.

    Raises:
        SplitError: features are read and the classifier has no feature map.
    """

    hidden: Tensor | None

    def __init__(
        self,
        classifier: SpatialClassifier,
        *,
        network: MaskNetworkOptions | None = None,
        options: PosthocOptions | None = None,
        control: BetaControl | None = None,
        colour: Float[Tensor, " k"] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.options = options or PosthocOptions()
        self.beta = Beta(control or BetaControl(target=60)).to(classifier.device)
        twin = surgery.frozen_copy(classifier.model).to(memory_format=torch.channels_last)
        self.classifier = replace(classifier, model=twin)
        self.attached = AttachedMask(self.classifier, options=network, seed=seed)
        channels = len(classifier.spec.mean) + 1
        side = max(SMALLEST, *self.attached.options.grid(classifier.spec.input_size))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            lines = any_size(side, latent=self.options.latent)
            autoencoder = Autoencoder(lines, channels, channels)
        start = torch.tensor([FIRST_LOGIT, *classifier.spec.mean])  # open, of the mean colour
        list(autoencoder.decoder.parameters())[-1].data.copy_(start)
        self.side = side
        hidden = None
        if colour is not None and self.options.fill == "data-mean":
            mean, std = (colour.new_tensor(x) for x in (classifier.spec.mean, classifier.spec.std))
            hidden = ((colour - mean) / std).to(classifier.device)
        self.register_buffer("hidden", hidden)
        self.autoencoder = autoencoder.to(classifier.device, surgery.dtype_of(classifier.model))

    def noise(self, images: Float[Tensor, "b _ h w"], generator: torch.Generator) -> MaskNoise:
        """Draw what a batch needs; the generator may be on another device than the pictures."""
        b, device = len(images), generator.device
        grid = self.attached.options.grid((images.shape[2], images.shape[3]))
        u = torch.rand(b, 1, *grid, generator=generator, device=device)
        z = torch.randn(1, b, self.options.latent, generator=generator, device=device)
        rectangle = random_rectangles(images, generator) if self.options.randomise else None
        return MaskNoise(u=u.to(images), z=z.to(images), rectangle=rectangle)

    def ask(
        self, classes: Bool[Tensor, "b c"], generator: torch.Generator
    ) -> Int[Tensor, " b"] | None:
        """Choose a class for each mask of a conditional network, None for any other network.

        Of the classes that a picture has, or, with the probability `others`, of those it has not.
        """
        if not self.attached.options.conditional:
            return None
        device = generator.device
        draw = torch.rand(len(classes), 1, generator=generator, device=device)
        score = torch.rand(classes.shape, generator=generator, device=device)
        score, other = score.to(classes.device), draw.to(classes.device) < self.options.others
        return (score + (classes != other)).argmax(1)

    def classes(
        self, labels: Bool[Tensor, "b c"], whole: Float[Tensor, "b c"]
    ) -> Bool[Tensor, "b c"]:
        """Return the classes that masks have to keep, see `PosthocOptions.signal`."""
        if self.options.signal == "label":
            return labels
        if self.classifier.spec.multi_label:
            return whole > 0
        return F.one_hot(whole.argmax(1), whole.shape[1]) > 0

    def forward(
        self,
        images: Float[Tensor, "b _k h w"],
        labels: Bool[Tensor, "b c"],
        generator: torch.Generator,
        *,
        noise: MaskNoise | None = None,
        asked: Int[Tensor, " b"] | None = None,
    ) -> PosthocOutput:
        """Compute every term of a batch's loss.

        Args:
            images: Normalised as the classifier's spec says.
            labels: Classes of each picture; exactly one unless the classifier is multi-label.
            generator: Draws what is not injected.
            noise: See `MaskNoise`.
            asked: Class of each mask, for a conditional network.
        """
        options, network = self.options, self.attached.network
        grid = self.attached.options.grid((images.shape[2], images.shape[3]))
        noise = self.noise(images, generator) if noise is None else noise
        seen = look(self.classifier, images, self.attached.options.reads)
        classes = self.classes(labels, seen.logits)
        asked = self.ask(classes, generator) if asked is None else asked
        logits = network(seen.grid, grid, asked)
        mask = sample_mask(logits, noise.u, temperature=options.temperature, hard=options.hard)
        answers = self._answers(images, mask, noise)
        cost = class_cost(
            answers, seen.logits, classes, asked, multi_label=self.classifier.spec.multi_label
        )
        if self.beta.control.gated:
            mask, priced = mask.detach(), logits.detach()
        else:
            priced = logits
        code = self._code(images, mask, noise.z[0])
        entropy = mask_entropy(mask, priced)
        return PosthocOutput(
            terms=MaskTerms(cross_entropy=cost, entropy=entropy, seen=code),
            logits=answers,
            whole=seen.logits,
            probability=torch.sigmoid(logits),
        )

    def _answers(self, images: Tensor, mask: Tensor, noise: MaskNoise) -> Tensor:
        shown = F.interpolate(mask, size=images.shape[2:], mode="bilinear")
        if noise.rectangle is not None:
            shown = grown_mask(shown, noise.rectangle)
        blended = blend(images, shown, filling(images, self.options.fill, self.hidden))
        return self.classifier.logits_of(self.classifier.model(blended))

    def _code(self, images: Tensor, mask: Tensor, z: Tensor) -> CodeTerms:
        """Price a mask and the mean colours that it shows."""
        spec, grid = self.classifier.spec, mask.shape[2:]
        std, mean = (images.new_tensor(x)[:, None, None] for x in (spec.std, spec.mean))
        colours = F.adaptive_avg_pool2d(images * std + mean, list(grid))  # type: ignore[arg-type]
        square = F.interpolate(masked(colours, mask), size=(self.side, self.side), mode="bilinear")
        decoded, kl = self.autoencoder(
            square, z, torch.zeros(len(z), dtype=torch.long, device=z.device)
        )
        decoded = F.interpolate(decoded, size=grid, mode="bilinear")
        pixels = pixel_nll(
            colours,
            decoded[:, 1:],
            mask,
            variance=self.options.variance,
            normalised=self.options.normalised,
        )
        return CodeTerms(mask=mask_nll(mask, decoded[:, :1]), pixels=pixels, kl=kl)
