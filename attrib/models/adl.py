"""Attention-based dropout: hide what a classifier already looks at while it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib.errors import InputError
from attrib.models.probe import noise, probing, record
from attrib.models.split import spec_of
from attrib.surgery import submodule, unwrap

__all__ = ["ADL", "adl_inserted", "adl_places", "insert_adl"]


class ADL(nn.Module):
    r"""In training, hide the most active cells or weight all by their activity; else do nothing.

    With the mean over channels $A = \frac1k \sum_k x_k$, the map $x$ is multiplied, with
    probability p, by $[A < \gamma \max A]$, and otherwise by $\sigma(A)$. The maximum is each
    image's own; the draw is one for the whole batch. Gradients flow through $\sigma(A)$.

    Choe and Shim, *Attention-based Dropout Layer for Weakly Supervised Object Localization*. It has
    neither parameters nor buffers.

    Args:
        p: How often cells are hidden, in [0, 1].
        gamma: Cells from this fraction of the maximum on are hidden, in [0, 1]; 0.8 in the paper's
            VGG, 0.9 in its ResNet.

    Raises:
        InputError: p or gamma is not in [0, 1].
    """

    def __init__(self, p: float = 0.75, gamma: float = 0.8) -> None:
        super().__init__()
        if not (0 <= p <= 1 and 0 <= gamma <= 1):
            raise InputError(f"ADL's p and gamma are in [0, 1], got {p} and {gamma}")
        self.p, self.gamma = p, gamma

    def forward(self, x: Tensor, draw: Float[Tensor, ""] | None = None) -> Tensor:
        """Return the map as it is, or in training multiplied by one of the two masks.

        Args:
            x: Feature map `[b, k, u, v]`.
            draw: From [0, 1): cells are hidden if it is below p. By default a new random number.

        Raises:
            InputError: in training, the input is no feature map.
        """
        return _masked(x, self.p, self.gamma, draw) if self.training else x

    def extra_repr(self) -> str:
        """Show the options."""
        return f"p={self.p}, gamma={self.gamma}"


def insert_adl(
    model: nn.Module, places: Iterable[str], *, p: float = 0.75, gamma: float = 0.8
) -> None:
    """Let what `ADL` does follow each of the named modules, in place.

    Each gets a subclass of its own class, whose `forward` masks what the module returns while the
    module is in training. Children, paths, parameter names and state-dict keys stay as they were
    and no hook is left: weights trained so load into the model without ADL, and the other way
    round, and both give the same in evaluation mode. Copies and pickles of the model keep it.

    Args:
        model: Is changed. Wrappers such as DataParallel are looked through.
        places: Paths of modules that return a feature map, such as `"layer3.0"`.
        p: As for `ADL`.
        gamma: As for `ADL`.

    Raises:
        InputError: an option out of range, no place, or a module named twice or already followed
            by ADL; then nothing is changed.
        SplitError: no such module; then nothing is changed.
    """
    adl, inner, named = ADL(p, gamma), unwrap(model), list(places)
    modules = [submodule(inner, place) for place in named]
    if not modules:
        raise InputError("insert_adl needs at least one place, such as 'layer3.0'")
    if len({id(module) for module in modules}) < len(modules):
        raise InputError(f"one module is named twice among {named}; name each place once")
    for place, module in zip(named, modules, strict=True):
        if hasattr(type(module), "_adl"):
            raise InputError(f"ADL follows {place!r} already; insert it there only once")
    for module in modules:
        kind: Any = type(module)
        module.__class__ = _followed(kind, adl.p, adl.gamma)


@contextmanager
def adl_inserted(
    model: nn.Module, places: Iterable[str], *, p: float = 0.75, gamma: float = 0.8
) -> Iterator[None]:
    """Insert ADL while the block runs, then make the modules of their own classes again.

    Args:
        model: Is changed meanwhile.
        places: As for `insert_adl`; none changes nothing.
        p: As for `ADL`.
        gamma: As for `ADL`.
    """
    named = list(places)
    if named:
        insert_adl(model, named, p=p, gamma=gamma)
    try:
        yield
    finally:
        for module in (submodule(unwrap(model), place) for place in named):
            module.__class__ = type(module).__mro__[1]


def adl_places(model: nn.Module) -> tuple[str, ...]:
    """Say where ADL belongs in a model.

    In a ResNet, Choe and Shim's places: the first blocks of `layer3` and `layer4` and the last of
    `layer4`; in a VGG theirs too: the third and fourth pooling, and the last convolution's ReLU. In
    any other of timm's models, ours: the last three stages that timm lists, where they return maps
    `[b, k, u, v]`.

    Args:
        model: Not changed.

    Raises:
        InputError: the model says nothing about its stages, or they return no such maps.
    """
    inner: Any = unwrap(model)
    names = {path for path, _ in inner.named_modules()}
    if {"layer3.0", "layer4.0"} <= names:
        last = f"layer4.{len(inner.layer4) - 1}"
        return tuple(dict.fromkeys(("layer3.0", "layer4.0", last)))
    if type(inner).__name__ == "VGG":
        steps = inner.features
        pools = [i for i, step in enumerate(steps) if isinstance(step, nn.MaxPool2d)]
        return tuple(f"features.{i}" for i in (pools[2], pools[3], pools[4] - 1))
    listed = getattr(inner, "feature_info", None) or ()
    stages = [row for row in listed if isinstance(row, Mapping) and row.get("module") in names]
    image = noise(inner, spec_of(inner))
    with probing(inner, image):
        shapes = _shapes(inner, image)
    found = [row["module"] for row in stages if _maps(shapes.get(row["module"]), row["num_chs"])]
    if not found:
        raise InputError(
            f"{type(inner).__name__} names no stages that return maps [b, k, u, v]; name modules "
            "that do, such as --adl layer3.0,layer4.0"
        )
    return tuple(found[-3:])


def _shapes(model: nn.Module, image: Tensor) -> dict[str, tuple[int, ...]]:
    calls, _ = record(model, image)
    return {c.path: tuple(c.output.shape) for c in calls if isinstance(c.output, Tensor)}


def _maps(shape: tuple[int, ...] | None, channels: int) -> bool:
    return shape is not None and len(shape) == 4 and shape[1] == channels


def _masked(x: object, p: float, gamma: float, draw: Tensor | None = None) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim != 4:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"ADL got {found}; put it behind a module that returns a map (b, k, u, v)")
    if draw is None:
        draw = torch.rand((), device=x.device)
    activity = x.mean(1, keepdim=True)
    kept = activity < gamma * activity.amax((2, 3), keepdim=True)
    return x * torch.where(draw < p, kept.to(x.dtype), activity.sigmoid())


@cache
def _followed(kind: Any, p: float, gamma: float) -> Any:
    """Make the subclass of a module's class; cached, so that copies are of the same class."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = kind.forward(self, *args, **kwargs)
        return _masked(output, p, gamma) if self.training else output

    def reduce(self: Any, _protocol: int) -> tuple[Any, ...]:
        return _blank, (kind, p, gamma), self.__getstate__()

    body = {"forward": forward, "__reduce_ex__": reduce, "_adl": (p, gamma)}
    return type(f"{kind.__name__}WithADL", (kind,), body)


def _blank(kind: Any, p: float, gamma: float) -> Any:
    made = _followed(kind, p, gamma)
    return made.__new__(made)
