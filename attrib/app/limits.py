"""What a visitor may ask for: which models, which methods, how large a picture, how long."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from attrib.calls import answered
from attrib.errors import DeadlineError, ImageError, InputError, UnknownNameError
from attrib.images import Picture, read_image
from attrib.methods import METHODS, resolve, untrained

__all__ = ["AppOptions", "deadline", "held", "quick_methods", "read_upload"]

SLOW = ("perturbed pictures", "around another method", "other")
"""Families that are offered only where they are named."""
MODEL_NAME = re.compile(r"(torchvision/)?\w[\w.\-]*")
"""A published model; no folder, file or hub repository is spelled like this."""

GRACE = 1.0
"""Seconds for clearing up once the time is over."""


def quick_methods() -> tuple[str, ...]:
    """Name the methods that the page offers by itself: no weights needed, no slow family."""
    return tuple(name for name in untrained() if METHODS[name].family not in SLOW)


@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """What the page offers and where it stops.

    Args:
        models: Names that `attrib.load_model` takes; the first is chosen at the start.
        methods: Specs; the quick methods if empty.
        allow_models: Let visitors type the names of other published models.
        max_megabytes: Largest file that is taken.
        max_megapixels: Largest picture that is decoded, in millions of pixels.
        timeout: Seconds after which a request ends, its waiting for the model included.
        concurrency: Requests that run at once; others queue.
        queue: Requests that may wait; further ones are refused.
        kept_models: Models that stay in memory; the one unused longest goes first.
        device: Where models run; the GPU if any.

    Raises:
        InputError: no model, or a limit that is not above 0.
        UnknownNameError: no such method.
    """

    models: tuple[str, ...] = ("demo",)
    methods: tuple[str, ...] = ()
    allow_models: bool = False
    max_megabytes: float = 10
    max_megapixels: float = 12
    timeout: float = 60
    concurrency: int = 1
    queue: int = 16
    kept_models: int = 2
    device: str | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("the page offers one model or more; models is empty")
        for name in ("max_megabytes", "max_megapixels", "timeout", "concurrency", "queue",
                     "kept_models"):  # fmt: skip
            value = getattr(self, name)
            if not value > 0:
                raise InputError(f"{name} is above 0, got {value}")
        object.__setattr__(self, "methods", tuple(self.methods) or quick_methods())
        for method in self.methods:
            resolve(method)

    def model(self, name: str) -> str:
        """Return a model's name if a visitor may use it.

        Raises:
            UnknownNameError: it is not offered.
            InputError: it is typed and names a folder, a file or a hub repository.
        """
        if name in self.models:
            return name
        if not self.allow_models:
            raise UnknownNameError("model on this page", name, self.models)
        if not MODEL_NAME.fullmatch(name):
            raise InputError(
                f"{name!r} is not the name of a published model such as resnet50 or "
                "torchvision/resnet50; this page loads no folder, file or hub repository"
            )
        return name

    def method(self, spec: str) -> str:
        """Return a method's spec if it is offered.

        Raises:
            UnknownNameError: it is not.
        """
        if spec not in self.methods:
            raise UnknownNameError("method on this page", spec, self.methods)
        return spec


def read_upload(path: str | Path, options: AppOptions) -> Picture:
    """Read a visitor's picture, once it is known not to be too large.

    Raises:
        ImageError: the file is too large, has too many pixels, or is no picture.
    """
    path = Path(path)
    size = path.stat().st_size / 1e6
    if size > options.max_megabytes:
        raise ImageError(
            f"the file has {size:.1f} MB, this page takes up to {options.max_megabytes:g} MB; "
            "save it smaller"
        )
    content = path.read_bytes()  # so that no message says where the server keeps it
    picture = read_image(content, max_pixels=int(options.max_megapixels * 1e6))
    return replace(picture, name=path.name)


@contextmanager
def deadline(seconds: float) -> Iterator[Callable[[], float]]:
    """Stop what runs inside at its first torch call after some seconds.

    The error comes from within the call, so that everything on the way out is undone as after any
    other error; a second is left for that before it is raised again. Compiled code and loading of
    models are not interrupted.

    Yields:
        What tells the seconds left.

    Raises:
        DeadlineError: the time is over.
    """
    end = time.monotonic() + seconds

    def answer(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        nonlocal end
        reads = getattr(func, "__name__", "") == "__get__"  # x.shape: checkers swallow errors there
        if not reads and time.monotonic() > end:
            end = time.monotonic() + GRACE
            raise _too_long(seconds)
        return func(*args, **kwargs)

    with answered(answer):
        yield lambda: max(end - time.monotonic(), 0.0)


@contextmanager
def held(lock: Lock, seconds: float) -> Iterator[None]:
    """Hold a lock, or give up waiting for it.

    Raises:
        DeadlineError: another holds it all the time.
    """
    if not lock.acquire(timeout=seconds):
        raise _too_long(seconds)
    try:
        yield
    finally:
        lock.release()


def _too_long(seconds: float) -> DeadlineError:
    return DeadlineError(
        f"stopped after {seconds:.3g} s, which is all a request may take here; choose fewer or "
        "quicker methods, or start the page with a longer --timeout"
    )
