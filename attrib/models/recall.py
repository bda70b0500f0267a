"""Features of the last batch, kept for methods that ask for them again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Recall"]

T = TypeVar("T")


@dataclass(eq=False)
class Recall:
    """What a model last made of which images, and what that took.

    Args:
        seconds: Of the pass that made what is kept.
        reused: How often it was asked for again, in all.
    """

    seconds: float = 0.0
    reused: int = 0
    _last: tuple[nn.Module, Tensor, object] | None = None  # in one, for threads

    def __call__(self, model: nn.Module, images: Tensor, run: Callable[[Tensor], T]) -> T:
        """Return what `run` made of equal images with the same model, or let it run."""
        last = self._last
        if last is not None and last[0] is model and _equal(last[1], images):
            self.reused += 1
            return last[2]  # type: ignore[return-value]
        kept = images.clone()  # the model may write into its input
        started = _now(images)
        value = run(images)
        self.seconds = _now(images) - started
        self._last = (model, kept, value)
        return value


def _equal(a: Tensor, b: Tensor) -> bool:
    return (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device) and torch.equal(a, b)


def _now(images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter()
