"""What hooks, detours or re-modes a user's model; all is undone on exit, error or not.

Several threads may run one model at once: a hook and what stands in a module's place act in the
thread that set them, and modules return to training when the last thread has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from attrib.errors import ModelError, SplitError
from attrib.own_thread import copied, detoured, guard, hooked
from attrib.randomness import kept_random_state

__all__ = [
    "Tap",
    "device_of",
    "dtype_of",
    "frozen_copy",
    "hooked",
    "inference",
    "passed_over",
    "refuse_parallel",
    "replaced",
    "run_until",
    "submodule",
    "tap",
    "unwrap",
]


_held: dict[nn.Module, int] = {}
"""Modules kept from training right now, and by how many calls."""


_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside (Distributed)DataParallel and `torch.compile` wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, _PARALLEL):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def refuse_parallel(model: nn.Module) -> None:
    """Refuse a model that DataParallel or DistributedDataParallel spreads, in whole or in part.

    Raises:
        ModelError: says where it is and what to do.
    """
    for path, module in model.named_modules():
        if isinstance(module, _PARALLEL):
            inside = ".".join(filter(None, ("model", path, "module")))
            raise ModelError(
                f"{type(module).__name__} runs copies of what it wraps, in other threads or in "
                "step with other processes, where the model cannot be observed; use what "
                f"is inside, {inside}. To explain on several GPUs give each a process of its own: "
                "`attrib seeds --shard auto` under torchrun, or an Explainer per device"
            )


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer, or the CPU if there is none."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the floating type that the model computes in: its first floating parameter's."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def submodule(model: nn.Module, path: str) -> nn.Module:
    """Return the module at `path`.

    Raises:
        SplitError: there is none; says what the deepest existing parent holds.
    """
    try:
        return model.get_submodule(path)
    except AttributeError:
        parent, walked = model, list[str]()
        for step in path.split("."):
            child = getattr(parent, step, None)
            if not isinstance(child, nn.Module):
                break
            parent, walked = child, [*walked, step]
        names = ", ".join(name for name, _ in parent.named_children())
        where = ".".join(walked) or type(model).__name__
        raise SplitError(f"no module {path!r}; {where} holds: {names or 'no modules'}") from None


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients and a private random state, then everything as it was.

    Sets each module's `training` flag directly, since `eval()` and `train()` may be overridden.
    The random state is the process's: what another thread draws meanwhile, it may draw again.
    """
    with kept_random_state(device_of(model)), torch.no_grad():
        held = _hold(model)
        try:
            yield
        finally:
            _release(held)


def _hold(model: nn.Module) -> list[nn.Module]:
    """Keep from training what trains, and what another call keeps from it."""
    with guard:
        held = [m for m in _every(model) if m.training or (_held and m in _held)]
        for module in held:
            _held[module] = _held.get(module, 0) + 1
            module.training = False
    return held


def _every(model: nn.Module) -> set[nn.Module]:
    """Return what `modules()` yields, in a fifth of its time: this is paid with every picture."""
    seen, todo = set[nn.Module | None]((None,)), list[nn.Module | None]((model,))
    for module in todo:
        if module not in seen:
            seen.add(module)
            if children := module._modules:  # type: ignore[union-attr]
                todo.extend(children.values())
    seen.discard(None)
    return seen  # type: ignore[return-value]


def _release(held: list[nn.Module]) -> None:
    with guard:
        for module in held:
            _held[module] -= 1
            if not _held[module]:
                del _held[module]
                module.training = True


@dataclass
class Tap:
    """What flowed through a tapped module in its last call, and its first; None before that."""

    output: Tensor | None = None
    first: Tensor | None = None

    def value(self, path: str) -> Tensor:
        """Return the output, or say why there is none."""
        if self.output is None:
            raise SplitError(f"module {path!r} did not run in the forward pass")
        return self.output


@contextmanager
def tap(model: nn.Module, path: str, *, leaf: bool = False) -> Iterator[Tap]:
    """Record what the module at `path` returns, as a copy that later in-place work cannot rewrite.

    With `leaf` the output is cut from what came before and gradients are recorded from there on,
    also inside `torch.no_grad()`, so that the layers before it cost no memory.
    """
    found = Tap()

    def record(output: object) -> Tensor | None:
        if not isinstance(output, Tensor):
            raise SplitError(
                f"module {path!r} returns {type(output).__name__}, not a tensor; "
                "name a module that returns the feature map alone"
            )
        if not leaf:
            found.output = output.clone()
            found.first = found.output if found.first is None else found.first
            return None
        torch.set_grad_enabled(True)
        found.output = output.detach().clone().requires_grad_()
        return found.output.clone()

    grad_mode = torch.is_grad_enabled()
    try:
        with hooked(submodule(model, path), lambda _, output: record(output)):
            yield found
    finally:
        torch.set_grad_enabled(grad_mode)


@contextmanager
def replaced(model: nn.Module, path: str, output: object) -> Iterator[None]:
    """Let the module at `path` return something else."""
    with hooked(submodule(model, path), lambda *_: output):
        yield


class _Enough(BaseException):
    """Ends a forward pass whose rest is not needed."""


def run_until(model: nn.Module, path: str, images: Tensor) -> Tensor:
    """Run the model until the module at `path` has returned; return what it did."""

    def stop(*_: object) -> None:
        raise _Enough

    end = hooked(submodule(model, path), stop)
    with tap(model, path) as tapped, end, suppress(_Enough):
        model(images)
    return tapped.value(path)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Copy a model, in evaluation mode and with no parameter that wants a gradient.

    What other threads are doing to the model meanwhile is not copied.
    """
    twin = copied(model)
    for module in twin.modules():
        module.training = False
    return twin.requires_grad_(False)


@contextmanager
def passed_over(
    model: nn.Module, paths: Iterable[str], last: str, output: Tensor
) -> Iterator[None]:
    """Let modules hand on what they are given, and the last of them return `output`.

    What follows then computes as if they had run, from a picture of any size.
    """
    with ExitStack() as detours:
        for path in paths:
            detours.enter_context(detoured(submodule(model, path), lambda x, *_, **__: x))
        detours.enter_context(detoured(submodule(model, last), lambda *_, **__: output))
        yield
