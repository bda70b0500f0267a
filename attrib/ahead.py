"""Reading in threads, ahead of who asks for it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["READERS", "read_ahead", "readers_beside"]

S = TypeVar("S")
T = TypeVar("T")
READERS = 2
"""Threads, unless somebody says otherwise."""


def readers_beside(device: torch.device) -> int:
    """Say how many threads best read while a model computes on a device.

    None where it takes every core of the CPU: a core that reads is one that all others wait for, at
    each of the model's layers, so that reading in between takes less time.
    """
    own = getattr(os, "sched_getaffinity", None)
    cores = len(own(0)) if own else os.cpu_count() or 1
    return 0 if device.type == "cpu" and torch.get_num_threads() >= cores else READERS


def read_ahead(
    read: Callable[[S], T], items: Iterable[S], *, readers: int = READERS, depth: int
) -> Generator[tuple[S, Future[T]], None, None]:
    """Yield each item with what is read of it, in order, while threads read on.

    Args:
        read: Called in the threads. What it raises is raised by the future's `result`.
        items: Taken in the calling thread, as far ahead as is read.
        readers: Threads; with 0 an item is read when its turn comes.
        depth: Items that are read ahead.
    """
    if readers == 0:
        yield from ((item, _now(read, item)) for item in items)
        return
    waiting = deque[tuple[S, Future[T]]]()
    pool = ThreadPoolExecutor(readers)
    try:
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) > depth:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=bool(waiting))  # none of those that were handed out


def _now(read: Callable[[S], T], item: S) -> Future[T]:
    future = Future[T]()
    try:
        future.set_result(read(item))
    except Exception as error:
        future.set_exception(error)
    return future
