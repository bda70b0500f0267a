"""What a faithfulness metric is, and how a model is asked about many changed pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attrib import surgery
from attrib.errors import InputError, TargetError
from attrib.localize import status_of, to_source
from attrib.methods.memory import in_steps
from attrib.models import SpatialClassifier
from attrib.registry import Registry, check_fields
from attrib.types import Frame, Targets

__all__ = [
    "METRICS",
    "Better",
    "Change",
    "Explain",
    "Metric",
    "Score",
    "ask",
    "at_input",
    "check_maps",
    "ordered",
    "resolve_metric",
]

CHUNK_VALUES = 1 << 22
"""At most so many values of changed pictures enter the network at once; one picture's always do."""

Better = Literal["higher", "lower"]
Score = Literal["probability", "logit", "accuracy"]
"""What is asked of the model about a class: its probability (softmax, or sigmoid for multi-label
models), its logit, or 1 where it is said (the most likely class, or a positive logit), else 0."""

Explain = Callable[[SpatialClassifier, Float[Tensor, "b _ h w"], Targets], Float[Tensor, "n h w"]]
"""Explains other pictures, or another model, as the maps at hand were made: at the input's size."""

Change = Callable[[Int[Tensor, " m"], Int[Tensor, " m"]], Float[Tensor, "m _ h w"]]
"""Of indices of pairs and of variants, makes the pictures that the model is asked about."""


class Metric(ABC):
    """Abstract; every metric is final. Its fields are its options and its spec.

    A metric scores maps without ground truth. It works on the model's device, in chunks of bounded
    memory, draws from generators of its own, and leaves model, pictures and maps as they are.
    """

    name: ClassVar[str]
    """As in spec strings and on the command line."""
    summary: ClassVar[str]
    """One line for tables."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    @abstractmethod
    def better(self) -> Better:
        """Which end of the scale is the good one."""

    @abstractmethod
    def __call__(
        self,
        classifier: SpatialClassifier,
        images: Float[Tensor, "b _ h w"],
        maps: Float[Tensor, "n h w"],
        targets: Targets,
        explain: Explain | None = None,
    ) -> Float[Tensor, " n"]:
        """Score one map per (image, class) pair.

        Args:
            classifier: The model, split.
            images: Normalised as `classifier.spec` says, on its device.
            maps: Raw maps at the input's size.
            targets: The pairs.
            explain: What made the maps; only metrics that explain anew ask for it.

        Returns:
            One score per pair; NaN where a map is not finite, or constant where the order of its
            pixels counts.

        Raises:
            InputError: the maps are not of the images' size, or `explain` is needed.
            TargetError: a pair outside the batch or the classes.
        """


METRICS: Registry[Metric] = Registry("metric")
"""Every faithfulness metric by name."""


def resolve_metric(metric: str | Metric) -> Metric:
    """Return a metric as it is, or build it from its spec string."""
    return metric if isinstance(metric, Metric) else METRICS.make(metric)


def check_maps(
    classifier: SpatialClassifier, images: Tensor, maps: Tensor, targets: Targets
) -> Targets:
    """Return the pairs on the images' device, or say what does not fit together."""
    n, size = len(targets), tuple(images.shape[-2:])
    if images.ndim != 4 or tuple(maps.shape) != (n, *size):
        raise InputError(
            f"{n} maps of images {tuple(images.shape)} have the shape {(n, *size)}, got "
            f"{tuple(maps.shape)}; resize them to the input first"
        )
    limits = (
        (targets.image, len(images), "image"),
        (targets.label, classifier.num_classes, "class"),
    )
    for index, count, what in limits:
        if n and (int(index.min()) < 0 or int(index.max()) >= count):
            raise TargetError(
                f"{what} indices lie in [0, {count}), got {int(index.min())} to {int(index.max())}"
            )
    return Targets(image=targets.image.to(images.device), label=targets.label.to(images.device))


def at_input(
    maps: Float[Tensor, "n u v"], images: Float[Tensor, "b _ h w"]
) -> Float[Tensor, "n h w"]:
    """Resize raw maps to the input's size, for metrics."""
    size = (images.shape[-2], images.shape[-1])
    return to_source(maps.float(), Frame(source=size, resized=size, tensor=size))


def ordered(maps: Float[Tensor, "n h w"]) -> Bool[Tensor, " n"]:
    """Tell which maps put their pixels into an order."""
    good = [status in ("ok", "negative") for status in status_of(maps)]
    return torch.tensor(good, dtype=torch.bool, device=maps.device)


def ask(
    classifier: SpatialClassifier,
    images: Float[Tensor, "b _ h w"],
    targets: Targets,
    change: Change,
    variants: int,
    score: Score = "probability",
) -> Float[Tensor, "n s"]:
    """Score each pair's class on a number of variants of its picture, in chunks.

    A chunk that the device has no room for is halved, with a `MemoryWarning`.

    Args:
        classifier: The model; run in evaluation mode and without gradients.
        images: What the variants are made from.
        targets: The pairs, on the images' device.
        change: Makes the variants.
        variants: `s`, how many of each.
        score: What is asked.
    """
    total = len(targets) * variants
    if not total:
        return images.new_zeros(len(targets), variants, dtype=torch.float32)

    def step(part: slice, _batch: int) -> Tensor:
        row = torch.arange(part.start, part.stop, device=images.device)
        pair = row // variants
        return _asked(classifier, change(pair, row % variants), targets.label[pair], score)

    size = max(1, CHUNK_VALUES // images[0].numel())
    return torch.cat(in_steps(total, size, step, option=False)).view(len(targets), variants)


def _asked(
    classifier: SpatialClassifier,
    images: Float[Tensor, "m _ h w"],
    label: Int[Tensor, " m"],
    score: Score,
) -> Float[Tensor, " m"]:
    with surgery.inference(classifier.model):
        logits = classifier.logits_of(classifier.model(images)).float()
    own, multi_label = logits.gather(1, label[:, None])[:, 0], classifier.spec.multi_label
    if score == "logit":
        return own
    if score == "accuracy":
        return (own > 0 if multi_label else logits.argmax(1) == label).float()
    return own.sigmoid() if multi_label else (own - logits.logsumexp(1)).exp()
