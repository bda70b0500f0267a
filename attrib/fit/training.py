"""The steps of a training run, and the scores between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.datasets.crops import random_crop
from attrib.datasets.labelled import LabelledSample
from attrib.errors import InputError
from attrib.fit.average_precision import average_precision
from attrib.fit.config import FitConfig
from attrib.fit.loading import ahead, batches, generator_of, multi_hot, seeded
from attrib.images import preprocess, read_image
from attrib.types import ModelSpec

__all__ = ["Run", "run_epochs"]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "soft-margin": F.multilabel_soft_margin_loss,
    "cross-entropy": F.cross_entropy,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What a training run works on.

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
    def device(self) -> torch.device:
        """Where the model is."""
        return surgery.device_of(self.model)

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return max(1, len(self.samples) // self.config.batch_size)

    def crop(self, epoch: int, index: int) -> Float[Tensor, "3 s s"]:
        """Read a picture of this epoch."""
        picture = read_image(self.samples[index].picture)
        config, generator = self.config, generator_of(self.config.seed, epoch, index)
        return random_crop(
            picture, self.spec, config.crop, config.long_side, generator, config.flip
        )


def run_epochs(run: Run, report: dict[str, Any], progress: bool | None) -> Iterator[None]:
    """Train for the epochs that a report lacks, yielding after each once the report says it."""
    from tqdm import tqdm

    done, config = len(report["history"]), run.config
    with tqdm(
        total=config.epochs * run.steps,
        initial=done * run.steps,
        disable=None if progress is None else not progress,
        unit="batch",
        leave=False,
    ) as bar:
        for epoch in range(done, config.epochs):
            entry: dict[str, float | None] = {"loss": _epoch(run, epoch, bar)}
            if run.judged:
                scores = _validate(run)
                found = [score for score in scores.values() if score is not None]
                entry["mean_average_precision"] = sum(found) / len(found) if found else None
                report["average_precision"] = scores
            report["history"].append(entry)
            yield


def _epoch(run: Run, epoch: int, bar: Any) -> float:
    """Train on every picture once; return the mean loss."""
    config, total = run.config, 0.0
    order = batches(len(run.samples), config.batch_size, generator_of(config.seed, epoch))
    with (
        closing(ahead(lambda index: run.crop(epoch, index), order, config.workers)) as crops,
        seeded(run.device, config.seed, epoch),
        _training(run.model, config.train_norm),
    ):
        for step, (index, images) in enumerate(zip(order, crops, strict=True)):
            _decay(run, epoch * run.steps + step)
            loss = _step(run, torch.stack(images), [run.samples[i] for i in index])
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss is {loss} at step {step + 1} of epoch {epoch + 1}; "
                    f"train again with an lr lower than {config.lr:g}, in another folder"
                )
            total += loss
            bar.update()
    run.optimizer.zero_grad(set_to_none=True)
    return total / len(order)


def _decay(run: Run, step: int) -> None:
    left = 1 - step / (run.config.epochs * run.steps)
    for group in run.optimizer.param_groups:
        group["lr"] = group["first_lr"] * left**run.config.power


def _step(run: Run, images: Float[Tensor, "b 3 h w"], samples: list[LabelledSample]) -> float:
    labels = multi_hot(samples, len(run.spec.labels)).to(run.device)
    images = images.to(run.device, surgery.dtype_of(run.model))
    with torch.enable_grad():
        logits = run.model(images)
        loss = LOSSES[run.config.loss](logits, labels.to(logits.dtype))
    value = loss.item()
    if math.isfinite(value):
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        run.optimizer.step()
    return value


@contextmanager
def _training(model: nn.Module, train_norm: bool) -> Iterator[None]:
    """Training mode, running statistics apart unless they are trained; then modes as they were."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.train()
        for module in modes:
            if not train_norm and isinstance(getattr(module, "running_mean", None), Tensor):
                module.eval()
        yield
    finally:
        for module, mode in modes.items():  # parents come before their children
            module.train(mode)


def _validate(run: Run) -> dict[str, float | None]:
    """Score every class; None for one that no picture has."""
    size, count = run.config.batch_size, len(run.judged)
    order = [list(range(i, min(i + size, count))) for i in range(0, count, size)]
    read = ahead(lambda i: read_image(run.judged[i].picture), order, run.config.workers)
    scores = []
    with closing(read) as pictures, surgery.inference(run.model):
        for batch in pictures:
            images, _ = preprocess(
                batch, run.spec, device=run.device, dtype=surgery.dtype_of(run.model)
            )
            logits = run.model(images)
            scores.append(logits if run.spec.multi_label else logits.log_softmax(1))
    found = average_precision(torch.cat(scores), multi_hot(run.judged, len(run.spec.labels)))
    values = (None if math.isnan(value) else value for value in found.tolist())
    return dict(zip(run.spec.labels, values, strict=True))
