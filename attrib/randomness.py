"""The process's random states: put back after use, and for a while known to one thread alone.

torch and NumPy have one state for all threads. A thread that draws from known states has them for
itself: others that want known states wait, and what others keep of the states they leave alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, RLock, get_ident

import numpy as np
import torch
from torch import Tensor

__all__ = ["kept_random_state", "seeded"]


@dataclass
class _Owner:
    """Who draws from known states right now, if anybody does."""

    thread: int | None = None

    def another(self) -> bool:
        return self.thread not in (None, get_ident())


_owner = _Owner()
_turn = RLock()
"""Held while a thread draws from known states."""
_guard = Lock()
"""Held while states are read or written, never while a model runs."""

_States = list[tuple[torch.Generator, Tensor]]


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Put torch's random states of the CPU and of a GPU back, at half of what `fork_rng` costs.

    They are left to a thread that draws from known ones when this begins or ends: it puts them back
    itself. What any other thread draws meanwhile, it may draw again.
    """
    with _guard:
        states = [] if _owner.another() else _states(device)
    try:
        yield
    finally:
        with _guard:
            if not _owner.another():
                _put_back(states)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from known random states of torch and NumPy, then put the states back as they were.

    One thread at a time does; another one waits.
    """
    with _turn:
        with _guard:
            before, _owner.thread = _owner.thread, get_ident()
            states, numpy_state = _states(device), np.random.get_state()
        try:
            for generator, _ in states:  # torch.manual_seed reaches every device
                generator.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
        finally:
            with _guard:
                _put_back(states)
                np.random.set_state(numpy_state)
                _owner.thread = before


def _states(device: torch.device) -> _States:
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    return [(generator, generator.get_state()) for generator in generators]


def _put_back(states: _States) -> None:
    for generator, state in states:
        generator.set_state(state)
