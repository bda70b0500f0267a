"""The one training loop: seeded, resumable, logged, and stopped by a loss that is not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib import surgery
from attrib.errors import InputError, MissingExtraError
from attrib.files import writing
from attrib.fit import checkpoint
from attrib.fit.loading import seeded
from attrib.progress import progress_bar

__all__ = ["Task", "train"]

Batch = TypeVar("Batch")
LOG = "log.jsonl"


@runtime_checkable
class Task(Protocol[Batch]):
    """What is trained, on what, and by which loss."""

    @property
    def model(self) -> nn.Module:
        """All that has weights to be kept; also tells the device."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the weights that are trained."""

    @property
    def epochs(self) -> int:
        """Passes over the pictures."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    @property
    def seed(self) -> int:
        """Of all that is drawn."""

    def batches(self, epoch: int) -> Generator[Batch, None, None]:
        """Give an epoch's batches; they follow from the seed and the epoch."""

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Compute what is logged of a batch, under `loss` what is minimised."""

    def schedule(self, step: int) -> None:
        """Set the learning rates for one of all `epochs * steps` steps."""

    def scores(self) -> dict[str, Any]:
        """Say after an epoch what else the log should hold."""


def train(
    task: Task[Any],
    out: Path,
    settings: Mapping[str, Any],
    *,
    train_norm: bool = True,
    bfloat16: bool = False,
    tensorboard: bool = False,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Train to the end, or go on after the last whole epoch that `out` holds.

    The result is that of an uninterrupted run, on the CPU bit by bit. Modes and the random state
    are left as they were. `log.jsonl` gets a line per epoch: the mean of every term,
    and the scores.

    Args:
        task: Its model and optimiser are changed.
        out: Folder of this run.
        settings: All that decides the outcome; a folder with other ones is refused.
        train_norm: Update running statistics; else they are used as they are.
        bfloat16: Compute the terms under autocast.
        tensorboard: Write the log for TensorBoard too.
        progress: Show a bar; None for one on terminals only.

    Returns:
        The settings and, as `history`, the log.

    Raises:
        InputError: the folder is of another run, or the loss is not finite.
        OutputError: a file cannot be written.
        MissingExtraError: TensorBoard is wanted and not installed.
    """
    report = checkpoint.resume(out, {**settings, "history": []}, task.model, task.optimizer)
    total, initial = task.epochs * task.steps, len(report["history"]) * task.steps
    with (
        _board(out, tensorboard) as board,
        progress_bar(total, progress, initial=initial, unit="batch") as bar,
    ):
        for epoch in range(len(report["history"]), task.epochs):
            entry = _epoch(task, epoch, bar, train_norm, bfloat16)
            report["history"].append({**entry, **task.scores()})
            checkpoint.save(out, report, task.model, task.optimizer)
            checkpoint.write_text(out / LOG, "".join(_lines(report["history"])))
            for key, value in report["history"][-1].items():
                if board is not None and isinstance(value, float):
                    board.add_scalar(key, value, epoch)
    task.optimizer.zero_grad(set_to_none=True)
    return report


def _epoch(
    task: Task[Any], epoch: int, bar: Any, train_norm: bool, bfloat16: bool
) -> dict[str, float]:
    """Train on every batch once; return the mean of each term."""
    device, totals = surgery.device_of(task.model), dict[str, float]()
    kind = torch.autocast(device.type, torch.bfloat16) if bfloat16 else nullcontext()
    with (
        closing(task.batches(epoch)) as batches,
        seeded(device, task.seed, epoch),
        _training(task.model, train_norm),
        torch.enable_grad(),
    ):
        for step, batch in enumerate(batches):
            task.schedule(epoch * task.steps + step)
            with kind:
                terms = task.terms(batch)
            values = {key: float(value.detach()) for key, value in terms.items()}
            if not math.isfinite(values["loss"]):
                raise InputError(
                    f"the loss is {values['loss']} at step {step + 1} of epoch {epoch + 1}; "
                    "train again with a lower learning rate, in another folder"
                )
            task.optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
            task.optimizer.step()
            for key, value in values.items():
                totals[key] = totals.get(key, 0.0) + value
            bar.update()
    return {key: total / (step + 1) for key, total in totals.items()}


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


def _lines(history: list[dict[str, Any]]) -> Iterator[str]:
    for number, entry in enumerate(history, 1):
        yield json.dumps({"epoch": number, **entry}) + "\n"


def _board(out: Path, wanted: bool) -> AbstractContextManager[Any]:
    if not wanted:
        return nullcontext()
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard", "fit") from None
    with writing(out):
        board: AbstractContextManager[Any] = SummaryWriter(str(out))
    return board
