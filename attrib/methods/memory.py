"""Work in steps that fit the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from attrib.errors import MemoryWarning

__all__ = ["in_steps"]

T = TypeVar("T")


def in_steps(
    total: int,
    batch: int,
    step: Callable[[slice, int], T],
    *,
    rows: int | None = None,
    option: bool = True,
) -> list[T]:
    """Call `step` until all rows are done; with half the batch from where memory ran out.

    Args:
        total: Rows there are.
        batch: Pictures that a forward pass takes.
        step: Does some rows, with at most so many pictures in a forward pass.
        rows: How many it gets, at most; `batch` if left.
        option: Whether the caller has an option `batch`, which the warning then names.
    """
    out: list[T] = []
    start = 0
    while start < total:
        part = slice(start, min(total, start + min(batch, rows or batch)))
        try:
            out.append(step(part, batch))
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch = _halved(batch, option)
            continue
        start = part.stop
    return out


def _halved(batch: int, option: bool) -> int:
    torch.cuda.empty_cache()
    half = batch // 2
    advice = f". Give the method's option batch={half} to start there" if option else ""
    warnings.warn(
        f"the device ran out of memory; going on with batch={half} instead of {batch}{advice}",
        MemoryWarning,
        stacklevel=2,
    )
    return half
