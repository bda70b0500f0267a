"""The torch functions that a model calls, seen and answered while it runs.

Modules, functions and operators all end in such calls, so that a ReLU is found whether it is a
module, one module used at many places, or written into `forward`. Nothing of the model is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["Answer", "Function", "answered", "bare_name", "calling_module", "pure", "writes"]

Function = Callable[..., Any]
Answer = Callable[[Function, tuple[Any, ...], Mapping[str, Any]], Any]
"""Takes a function with its arguments and gives what the model is to get from it."""


class _Answering(TorchFunctionMode):
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def __torch_function__(
        self,
        func: Function,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.answer(func, args, kwargs or {})


@contextmanager
def answered(answer: Answer) -> Iterator[None]:
    """Let `answer` stand between the code inside and every torch function that it calls.

    What `answer` calls itself is not answered again. Compiled and scripted code is not seen.
    """
    with _Answering(answer):
        yield


def calling_module(model: nn.Module) -> str:
    """Name the innermost module of a model that is running, for an error message.

    Returns:
        Its path and class, or the class of the model itself.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    frame = sys._getframe()
    while frame is not None:
        module = frame.f_locals.get("self")
        path = paths.get(id(module))
        if path is not None:
            kind = type(module).__name__
            return f"module {path!r} ({kind})" if path else kind
        frame = frame.f_back  # type: ignore[assignment]
    return type(model).__name__


def bare_name(function: Function) -> str:
    """Name a function alike whether it works in place, is an operator or a method.

    >>> bare_name(torch.Tensor.relu_), bare_name(torch.relu), bare_name(torch.Tensor.__iadd__)
    ('relu', 'relu', 'add')
    """
    name: str = function.__name__
    if name.startswith("__"):
        return _OPERATORS.get(name, name)
    return name.removesuffix("_")


_OPERATORS = {
    f"__{prefix}{name}__": name for prefix in ("", "i", "r") for name in ("add", "sub", "mul")
} | {"__truediv__": "div", "__itruediv__": "div"}


def writes(function: Function) -> bool:
    """Tell whether a function is the kind that writes into its first argument."""
    name: str = function.__name__
    if name.startswith("__"):
        return name in ("__iadd__", "__isub__", "__imul__", "__itruediv__")
    return name.endswith("_")


def pure(function: Function) -> Function:
    """Return the function that does the same and leaves its arguments alone."""
    other: Function = getattr(torch, bare_name(function)) if writes(function) else function
    return other
