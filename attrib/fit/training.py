"""A classifier, its pictures and its loss, as a task for the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.datasets.crops import random_crop
from attrib.datasets.labelled import LabelledSample
from attrib.fit.average_precision import average_precision
from attrib.fit.config import FitConfig
from attrib.fit.loading import ahead, batches, generator_of, multi_hot
from attrib.images import preprocess, read_image
from attrib.types import ModelSpec

__all__ = ["ClassifierTask"]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "soft-margin": F.multilabel_soft_margin_loss,
    "cross-entropy": F.cross_entropy,
}
Batch = tuple[list[LabelledSample], list[Tensor]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassifierTask:
    """What a training run of a classifier works on; see `attrib.fit.loop.Task`.

    Args:
        model: Is changed.
        optimizer: Its groups say their learning rate at the first step as `first_lr`.
        samples: To learn from.
        judged: To score after each epoch; may be empty.
        spec: How the model is fed, and its classes.
        config: The constants.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    samples: list[LabelledSample]
    judged: list[LabelledSample]
    spec: ModelSpec
    config: FitConfig

    @property
    def epochs(self) -> int:
        """Passes over the pictures."""
        return self.config.epochs

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return max(1, len(self.samples) // self.config.batch_size)

    @property
    def seed(self) -> int:
        """Of order, crops and dropout."""
        return self.config.seed

    def batches(self, epoch: int) -> Generator[Batch, None, None]:
        """Crop every picture once, at random."""
        config = self.config
        order = batches(len(self.samples), config.batch_size, generator_of(config.seed, epoch))
        read = ahead(lambda index: self._crop(epoch, index), order, config.readers)
        with closing(read) as crops:
            for index, images in zip(order, crops, strict=True):
                yield [self.samples[i] for i in index], images

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Compute the loss."""
        samples, crops = batch
        device = surgery.device_of(self.model)
        labels = multi_hot(samples, len(self.spec.labels)).to(device)
        logits = self.model(torch.stack(crops).to(device, surgery.dtype_of(self.model)))
        return {"loss": LOSSES[self.config.loss](logits, labels.to(logits.dtype))}

    def schedule(self, step: int) -> None:
        """Let the rate decay polynomially."""
        left = 1 - step / (self.epochs * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["first_lr"] * left**self.config.power

    def scores(self) -> dict[str, Any]:
        """Return the average precision of every class, None for one that no picture has."""
        if not self.judged:
            return {}
        scores = self._validate()
        found = [score for score in scores.values() if score is not None]
        return {
            "mean_average_precision": sum(found) / len(found) if found else None,
            "average_precision": scores,
        }

    def _crop(self, epoch: int, index: int) -> Float[Tensor, "3 s s"]:
        picture = read_image(self.samples[index].picture)
        config, generator = self.config, generator_of(self.config.seed, epoch, index)
        return random_crop(
            picture, self.spec, config.crop, config.long_side, generator, config.flip
        )

    def _validate(self) -> dict[str, float | None]:
        size, count = self.config.batch_size, len(self.judged)
        device, kind = surgery.device_of(self.model), surgery.dtype_of(self.model)
        order = [list(range(i, min(i + size, count))) for i in range(0, count, size)]
        read = ahead(lambda i: read_image(self.judged[i].picture), order, self.config.readers)
        scores = []
        with closing(read) as pictures, surgery.inference(self.model):
            for batch in pictures:
                images, _ = preprocess(batch, self.spec, device=device, dtype=kind)
                logits = self.model(images)
                scores.append(logits if self.spec.multi_label else logits.log_softmax(1))
        labels = multi_hot(self.judged, len(self.spec.labels))
        found = average_precision(torch.cat(scores), labels).tolist()
        values = (None if math.isnan(value) else value for value in found)
        return dict(zip(self.spec.labels, values, strict=True))
