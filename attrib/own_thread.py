"""Hooks and detours of a user's modules that act in one thread, whoever else runs them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Lock, get_ident
from typing import Any

from torch import nn

__all__ = ["copied", "detoured", "guard", "hooked", "within"]

guard = Lock()
"""Held while flags, hooks and detours are set and undone, never while a model runs."""


@dataclass(frozen=True, eq=False)
class _Hook:
    """A hook that acts in one thread."""

    thread: int
    act: Callable[[Any, object], object]

    def __call__(self, _module: nn.Module, inputs: Any, output: object) -> object:
        return self.act(inputs, output) if get_ident() == self.thread else None


@contextmanager
def hooked(module: nn.Module, act: Callable[[Any, object], object]) -> Iterator[None]:
    """Let `act` see a module's inputs and output in this thread, and replace the output.

    Args:
        module: Of the user's model.
        act: Takes the tuple of positional inputs and the output; returns None to leave it.
    """
    with guard:  # torch numbers hooks by a counter that two threads could read at once
        handle = module.register_forward_hook(_Hook(get_ident(), act))
    try:
        yield
    finally:
        with guard:
            handle.remove()


@dataclass(frozen=True, eq=False)
class _Detour:
    """A module's `forward` while some threads let it do something else.

    Args:
        forward: What it does in other threads.
        own: Attribute of the module itself whose place this takes, if there is one.
        acts: What it does instead, by thread.
    """

    forward: Callable[..., Any]
    own: Callable[..., Any] | None
    acts: dict[int, Callable[..., Any]] = field(default_factory=dict)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.acts.get(get_ident(), self.forward)(*args, **kwargs)

    def end(self, module: nn.Module) -> None:
        del module.forward
        if self.own is not None:
            module.forward = self.own


@contextmanager
def detoured(module: nn.Module, act: Callable[..., Any]) -> Iterator[None]:
    """Let a module do something else in this thread."""
    thread = get_ident()
    with guard:
        detour = own = module.__dict__.get("forward")
        if not isinstance(detour, _Detour):
            module.forward = detour = _Detour(module.forward, own)
        before = detour.acts.get(thread)
        detour.acts[thread] = act
    try:
        yield
    finally:
        with guard:
            del detour.acts[thread]
            if before is not None:
                detour.acts[thread] = before
            if not detour.acts:
                detour.end(module)


@contextmanager
def within(module: nn.Module, enter: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Let a module do what it does inside of a context, in this thread; its hooks run outside."""
    detour = module.__dict__.get("forward")
    if isinstance(detour, _Detour):
        forward = detour.acts.get(get_ident(), detour.forward)
    else:
        forward = module.forward

    def act(*args: Any, **kwargs: Any) -> Any:
        with enter():
            return forward(*args, **kwargs)

    with detoured(module, act):
        yield


def copied(model: nn.Module) -> nn.Module:
    """Copy a model, but for the hooks and detours that threads have on it meanwhile."""
    with guard:
        twin = copy.deepcopy(model)
    for module in twin.modules():
        detour, hooks = module.__dict__.get("forward"), module._forward_hooks
        if isinstance(detour, _Detour):
            detour.end(module)
        for key in [key for key, hook in hooks.items() if isinstance(hook, _Hook)]:
            del hooks[key]
    return twin
