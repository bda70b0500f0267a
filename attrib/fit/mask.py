"""Training a mask network for a classifier that stays as it is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib.bottleneck.mask_control import BetaControl
from attrib.bottleneck.mask_network import MaskNetworkOptions, Reads
from attrib.bottleneck.mask_posthoc import PosthocMask, PosthocOptions, PosthocOutput
from attrib.bottleneck.mask_view import Fill
from attrib.datasets.batches import mean_colour
from attrib.datasets.labelled import LabelledDataset, LabelledSample
from attrib.fit import checkpoint
from attrib.fit.attached import (
    bare_samples,
    fitting_samples,
    follow_cosine,
    mirrored_batches,
    settings_of,
)
from attrib.fit.loop import train as train_loop
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast, check_fields

__all__ = ["FILE", "MaskConfig", "fit_mask"]

FILE = "mask.safetensors"
Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """How a mask network is trained for a classifier. The paper leaves open every constant here.

    The defaults are those that were measured on CUB (see the documentation), for masks of 14 x 14
    cells; with m times as many cells, β has to be m times smaller. The optimiser is
    Adam; its rate falls to nothing along half a cosine.

    Args:
        epochs: Passes over the pictures.
        batch_size: Pictures per step.
        lr: First learning rate, of mask network and autoencoder.
        control: How β follows V, see `BetaControl`.
        beta: Price of what is seen, to begin with.
        target: Goal for V in nats; `control="fixed"` ignores it. A larger one gives larger masks.
        reads: See `MaskNetworkOptions`, also for the next four.
        stride: Pixels per cell of the mask.
        width: Channels of the network's first layer.
        halvings: Of the grid, reading pixels.
        conditional: The mask is that of a class.
        fill: See `PosthocOptions`, also for the others down to `latent`.
        signal: Classes to keep: labels or predictions, which need no labels.
        others: Share of masks that are asked for another class.
        randomise: Show a random rectangle too.
        temperature: Of relaxed masks.
        hard: Boolean masks.
        variance: Of a pixel.
        normalised: Price a pixel by the Gaussian's constant too.
        latent: Numbers in the autoencoder's latent vector.
        flip: Mirror every other picture.
        bfloat16: Compute the loss under autocast.
        seed: Of weights, order, mirroring and noise.
        readers: Threads that read ahead; changes no result.

    Raises:
        SpecError: an option of a wrong type or out of its range.
        InputError: β or its target is out of its range.
    """

    name: ClassVar[str] = "fit ib-mask"
    epochs: Annotated[int, AtLeast(1)] = 2
    batch_size: Annotated[int, AtLeast(1)] = 8
    lr: Annotated[float, AtLeast(0)] = 3e-3
    control: Literal["fixed", "gate", "adaptive"] = "fixed"
    beta: Annotated[float, AtLeast(0)] = 0.009
    target: Annotated[float, AtLeast(0)] = 60.0
    reads: Reads = MaskNetworkOptions.reads
    stride: int = 16
    width: int = MaskNetworkOptions.width
    halvings: int = MaskNetworkOptions.halvings
    conditional: bool = MaskNetworkOptions.conditional
    fill: Fill = PosthocOptions.fill
    signal: Literal["label", "prediction"] = PosthocOptions.signal
    others: float = PosthocOptions.others
    randomise: bool = False
    temperature: float = PosthocOptions.temperature
    hard: bool = PosthocOptions.hard
    variance: float = 0.5
    normalised: bool = True
    latent: int = PosthocOptions.latent
    flip: bool = True
    bfloat16: bool = False
    seed: Annotated[int, AtLeast(0)] = 0
    readers: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        self.part(MaskNetworkOptions), self.part(PosthocOptions), self.beta_control()

    def part(self, kind: type[Part]) -> Part:
        """Return those of the options that another dataclass takes."""
        return kind(**{f.name: getattr(self, f.name) for f in fields(kind)})  # type: ignore[arg-type]

    def beta_control(self) -> BetaControl:
        """Return the control of β as it begins."""
        return BetaControl(kind=self.control, beta=self.beta, target=self.target)


def fit_mask(
    classifier: SpatialClassifier,
    train: LabelledDataset,
    *,
    out: str | Path,
    config: MaskConfig | None = None,
    tensorboard: bool = False,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Train a mask network for a classifier, to be used by `ib-mask`.

    The file is `OUT/mask.safetensors`. Goes on where an earlier run stopped, to the same weights.

    Args:
        classifier: Single- or multi-label; not changed.
        train: Pictures with the classifier's classes; with `signal="prediction"` any pictures,
            whose classes, if they have any, are not looked at.
        out: Folder of this run.
        config: The constants.
        tensorboard: Write the log for TensorBoard too.
        progress: Show a bar; None for one on terminals only.

    Returns:
        The settings and, as `history`, the mean of every term per epoch in nats, β, the mean
        probability that a cell is seen, and the share of pictures for which the classifier answers
        the classes that masks have to keep, through the masks and, where those are labels, whole.

    Raises:
        InputError: pictures without exactly one class for a single-label model, other classes than
            the model's, a folder of another run, or a loss that is not finite.
    """
    out, config = Path(out), config or MaskConfig()
    if config.signal == "label":
        samples = fitting_samples(classifier, train)
    else:
        samples = bare_samples(train)
    model = PosthocMask(
        classifier,
        network=config.part(MaskNetworkOptions),
        options=config.part(PosthocOptions),
        control=config.beta_control(),
        colour=mean_colour(classifier, train) if config.fill == "data-mean" else None,
        seed=config.seed,
    )
    settings = settings_of("attrib.fit-ib-mask/1", classifier, train, samples, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    task = _Task(model=model, optimizer=optimizer, samples=samples, config=config)
    report = train_loop(
        task, out, settings, bfloat16=config.bfloat16, tensorboard=tensorboard, progress=progress
    )
    model.attached.save(out / FILE)
    checkpoint.finish(out, report, model, {})
    return report


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """See `attrib.fit.loop.Task`."""

    model: PosthocMask
    optimizer: torch.optim.Optimizer
    samples: list[LabelledSample]
    config: MaskConfig

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def steps(self) -> int:
        return max(1, len(self.samples) // self.config.batch_size)

    @property
    def seed(self) -> int:
        return self.config.seed

    def batches(self, epoch: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        config = self.config
        return mirrored_batches(
            self.model.classifier,
            self.samples,
            batch_size=config.batch_size,
            flip=config.flip,
            seed=config.seed,
            epoch=epoch,
            readers=config.readers,
        )

    def terms(self, batch: tuple[Tensor, Tensor]) -> dict[str, Float[Tensor, ""]]:
        images, labels = batch
        control = self.model.beta.control
        output = self.model(images, labels, torch.default_generator)
        code, terms = output.terms.seen, output.terms
        self.model.beta.follow(**terms.means())
        return {
            "loss": terms.loss("ib", control.beta).mean(),
            "cross_entropy": terms.cross_entropy.mean(),
            "entropy": terms.entropy.mean(),
            "vae": code.total.mean(),
            "vae_mask": code.mask.mean(),
            "vae_pixels": code.pixels.mean(),
            "vae_kl": code.kl.mean(),
            "beta": torch.tensor(control.beta),
            "probability": output.probability.mean(),
            **self._accuracies(output, labels),
        }

    def _accuracies(self, output: PosthocOutput, labels: Tensor) -> dict[str, Float[Tensor, ""]]:
        multi_label = self.model.classifier.spec.multi_label
        kept = self.model.classes(labels, output.whole)
        found = {"accuracy": _accuracy(output.logits, kept, multi_label)}
        if self.config.signal == "prediction":
            return found
        return {**found, "accuracy_whole": _accuracy(output.whole, kept, multi_label)}

    def schedule(self, step: int) -> None:
        follow_cosine(self.optimizer, self.config.lr, step, self.epochs * self.steps)

    def scores(self) -> dict[str, Any]:
        return {}


def _accuracy(
    logits: Float[Tensor, "b c"], labels: Bool[Tensor, "b c"], multi_label: bool
) -> Float[Tensor, ""]:
    """Return the share of pictures, or of independent classes, that are answered rightly."""
    if multi_label:
        return ((logits > 0) == labels).float().mean()
    return labels.gather(1, logits.argmax(1, keepdim=True)).float().mean()
