"""Training IB attention on top of a classifier that stays as it is."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib.bottleneck.aib_attached import AttachedAIB
from attrib.bottleneck.aib_loss import AIBObjective, aib_loss, official
from attrib.bottleneck.aib_module import Modulation
from attrib.bottleneck.aib_recipe import AIBRecipe, parameter_groups
from attrib.datasets.labelled import LabelledDataset, LabelledSample
from attrib.errors import InputError
from attrib.fit import checkpoint
from attrib.fit.attached import fitting_samples, follow_cosine, mirrored_batches, settings_of
from attrib.fit.loop import train as train_loop
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast, check_fields

__all__ = ["FILE", "AttentionConfig", "fit_attention"]

FILE = "attention.safetensors"


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """How attention is trained on top of a classifier.

    Deviation from the paper, which trains all together by SGD: Adam, since only attention, encoder
    and decoder are trained. The rate falls to nothing along a cosine's half.

    Args:
        epochs: Passes over the pictures.
        batch_size: Pictures per step.
        lr: First learning rate.
        beta: Price of information.
        objective: `"paper"`, or `"official"` for bits and the divergence of the authors' code, at
            full weight as for their WRN and CUB networks. See `AIBObjective`, also for the next
            four.
        lambda_q: Price of the anchors' distance to the scores.
        lambda_c: Price of the scores' distance to the anchors.
        units: `"nats"` or `"bits"`; None for the objective's, which are nats in the paper.
        distance: Squared distances are averaged over a map's cells (`"mean"`) or summed.
        anchors: Of the quantiser; 0 for continuous attention.
        anchor_ratio: Learning rate of the anchors, relative to that of all else. With that of the
            authors' code, the default, and Adam they stay where they begin, spread evenly.
        latent: Length of the latent vector.
        layer: Path of the module on whose output the attention sits; the feature map if left.
        modulation: `"residual"` multiplies features by 1 + a, as the authors' code; `"gate"`, ours,
            by a.
        flip: Mirror every other picture.
        bfloat16: Compute the loss under autocast.
        seed: Of weights, order, mirroring and noise.
        readers: Threads that read ahead; changes no result.
    """

    name: ClassVar[str] = "fit aib"
    epochs: Annotated[int, AtLeast(1)] = 5
    batch_size: Annotated[int, AtLeast(1)] = 16
    lr: Annotated[float, AtLeast(0)] = 1e-3
    beta: Annotated[float, AtLeast(0)] = AIBObjective.beta
    objective: Literal["paper", "official"] = "paper"
    lambda_q: Annotated[float, AtLeast(0)] = AIBObjective.lambda_q
    lambda_c: Annotated[float, AtLeast(0)] = AIBObjective.lambda_c
    units: Literal["nats", "bits"] | None = None
    distance: Literal["mean", "sum"] = AIBObjective.distance
    anchors: Annotated[int, AtLeast(0)] = 0
    anchor_ratio: Annotated[float, AtLeast(0)] = AIBRecipe.anchor_ratio
    latent: Annotated[int, AtLeast(1)] = 256
    layer: str = ""
    modulation: Modulation = "residual"
    flip: bool = True
    bfloat16: bool = False
    seed: Annotated[int, AtLeast(0)] = 0
    readers: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def terms(self) -> AIBObjective:
        """Weights and units of the loss's terms."""
        chosen = official("cub_vgg16") if self.objective == "official" else AIBObjective()
        return replace(
            chosen,
            beta=self.beta,
            lambda_q=self.lambda_q,
            lambda_c=self.lambda_c,
            units=self.units or chosen.units,
            distance=self.distance,
        )

    @property
    def recipe(self) -> AIBRecipe:
        """What the optimiser is told of each parameter; the rate itself falls along a cosine."""
        return AIBRecipe(
            lr=self.lr, milestones=(), factor=1.0, weight_decay=0.0, anchor_ratio=self.anchor_ratio
        )


def fit_attention(
    classifier: SpatialClassifier,
    train: LabelledDataset,
    *,
    out: str | Path,
    config: AttentionConfig | None = None,
    tensorboard: bool = False,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Train attention for a classifier, to be used as `aib(weights='OUT/attention.safetensors')`.

    Goes on where an earlier run stopped, to the same weights.

    Args:
        classifier: Single-label; not changed.
        train: Pictures with exactly one class each, which are the classifier's.
        out: Folder of this run.
        config: The constants.
        tensorboard: Write the log for TensorBoard too.
        progress: Show a bar; None for one on terminals only.

    Returns:
        The settings and, as `history`, the mean of every term per epoch and the share of training
        pictures that are classified rightly through the bottleneck.

    Raises:
        InputError: pictures without exactly one class, other classes than the model's, or a folder
            of another run.
    """
    out, config = Path(out), config or AttentionConfig()
    if classifier.spec.multi_label:
        raise InputError("attention is trained for classes that exclude each other")
    samples = fitting_samples(classifier, train)
    attached = AttachedAIB(
        classifier,
        latent=config.latent,
        anchors=config.anchors,
        layer=config.layer,
        modulation=config.modulation,
        seed=config.seed,
    )
    settings = settings_of("attrib.fit-aib/1", classifier, train, samples, config)
    optimizer = torch.optim.Adam(parameter_groups(attached.aib, config.recipe))
    task = _Task(attached=attached, optimizer=optimizer, samples=samples, config=config)
    report = train_loop(
        task, out, settings, bfloat16=config.bfloat16, tensorboard=tensorboard, progress=progress
    )
    attached.save(out / FILE)
    checkpoint.finish(out, report, attached.aib, {})
    return report


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """See `attrib.fit.loop.Task`."""

    attached: AttachedAIB
    optimizer: torch.optim.Optimizer
    samples: list[LabelledSample]
    config: AttentionConfig

    @property
    def model(self) -> nn.Module:
        return self.attached.aib

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
        given = mirrored_batches(
            self.attached.classifier,
            self.samples,
            batch_size=config.batch_size,
            flip=config.flip,
            seed=config.seed,
            epoch=epoch,
            readers=config.readers,
        )
        with closing(given) as pairs:
            for images, labels in pairs:
                yield images, labels.int().argmax(1)

    def terms(self, batch: tuple[Tensor, Tensor]) -> dict[str, Float[Tensor, ""]]:
        images, labels = batch
        output = self.attached(images)
        terms = aib_loss(output, labels, self.config.terms)
        right = (output.logits.argmax(1) == labels).to(images.dtype).mean()
        return {
            "loss": terms.total,
            "cross_entropy": terms.cross_entropy,
            "kl": terms.kl,
            "vq": terms.vq,
            "commit": terms.commit,
            "accuracy": right,
        }

    def schedule(self, step: int) -> None:
        follow_cosine(self.optimizer, self.config.lr, step, self.epochs * self.steps)

    def scores(self) -> dict[str, Any]:
        return {}
