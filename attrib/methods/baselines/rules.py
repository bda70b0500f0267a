"""The rules of methods that go back through a network in their own way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils._pytree import tree_map

from attrib.calls import Function
from attrib.errors import ModelError
from attrib.methods.baselines.ruled import (
    LINEAR,
    SHAPES,
    Rules,
    Ruling,
    depends,
    options_of,
    value_of,
)

__all__ = [
    "Changes",
    "lrp_rules",
    "plain_options",
    "refuse_other_than_six",
    "relu_rules",
    "rescale_rules",
]

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "celu": F.celu,
    "elu": F.elu,
    "gelu": F.gelu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "mish": F.mish,
    "relu": F.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
}
"""Functions of single values."""


def relu_rules(method: str, *, gated: bool) -> Rules:
    """Make the rules of methods that change what ReLUs hand back.

    Args:
        method: Its name, for messages.
        gated: The gradient also stops where the ReLU gives 0.
    """

    def rectified(_function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        return _Rectified.apply(value_of(args, kwargs), gated)  # type: ignore[no-any-return]

    def six(function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        if function.__name__ == "hardtanh":
            refuse_other_than_six(options_of("hardtanh", args, kwargs))
        return rectified(function, args, kwargs).clamp(max=6)

    return Rules(
        method=method,
        rulings={"relu": rectified, "relu6": six, "hardtanh": six},
        refused=frozenset({"clamp", "clamp_min", "clip", "maximum", "threshold", "rrelu"}),
        needs="has no ReLU, whose gradient this method is about; use 'saliency'",
        reason="it may act as a ReLU and is none; use 'saliency', or write it as a ReLU",
    )


def refuse_other_than_six(options: Mapping[str, Any]) -> None:
    """Raise `ModelError` for a hardtanh that is no ReLU6."""
    ends = options.get("min_val", 0), options.get("max_val", 6)
    if ends != (0, 6):
        raise ModelError(f"hardtanh between {ends[0]} and {ends[1]} is no ReLU6")


class _Rectified(torch.autograd.Function):
    """A ReLU whose gradient is rectified, and gated too if asked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gated: bool) -> Tensor:
        out = x.relu()
        if gated:
            ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if not ctx.saved_tensors:
            return gradient.relu(), None
        gate = torch.ops.aten.threshold_backward  # of torch's own ReLU, in one go
        return gate(gradient, ctx.saved_tensors[0], 0).relu_(), None


Fresh = tuple[Tensor]
"""A tensor that nobody else holds: in a tuple, as autograd takes what it is given for shared."""


class _Scaled(torch.autograd.Function):
    """A value for another, whose gradient is multiplied by a factor; None for 1."""

    @staticmethod
    def forward(ctx: Any, _x: Tensor, value: Fresh, factor: Tensor | None) -> Tensor:
        ctx.save_for_backward(*[] if factor is None else [factor])
        return value[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (gradient * ctx.saved_tensors[0] if ctx.saved_tensors else gradient), None, None


SAME = 1e-10
"""Values that differ by less hand the derivative back; as in Captum."""


class Changes:
    """The activations of a reference, and then the rescale rule between them and a picture's.

    `reference` and `picture` are the rules of two passes of one model, the one after the other.
    """

    def __init__(self) -> None:
        self._seen = deque[tuple[str, Tensor, Any]]()  # name, input and what came out
        names = dict.fromkeys((*ACTIVATIONS, "max_pool2d"))
        self.reference = rescale_rules({name: partial(self._noted, name) for name in names})
        self.picture = rescale_rules({name: partial(self._rescaled, name) for name in names})

    def _noted(
        self, name: str, _f: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        x = value_of(args, kwargs).clone()
        made = _computed(name, x, plain_options(name, args, kwargs))
        self._seen.append((name, x, made))
        out: Tensor = made[0] if name == "max_pool2d" else made
        return out.clone()

    def _rescaled(
        self, name: str, _f: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        x, options = value_of(args, kwargs), plain_options(name, args, kwargs)
        x0, made0 = self._of_reference(name, x)
        if name == "max_pool2d":
            (y, at), (y0, at0) = _computed(name, x.detach(), options), made0
            return _PooledChange.apply(x, (y,), at, x - x0, y0, at0)  # type: ignore[no-any-return]
        y, slope = _with_slope(name, x, options)
        change = x.detach() - x0
        factor = torch.where(change.abs() < SAME, slope, (y - made0) / change)
        return _Scaled.apply(x, (y,), factor)  # type: ignore[no-any-return]

    def _of_reference(self, name: str, x: Tensor) -> tuple[Tensor, Any]:
        if self._seen:
            known, x0, made0 = self._seen.popleft()
            if known == name and x0.shape == x.shape:
                return x0, made0
        raise ModelError("the model calls other functions for the picture than for the reference")


def rescale_rules(rulings: dict[str, Ruling]) -> Rules:
    """Make the rules of DeepLIFT of how it answers activations and pools."""
    return Rules(
        method="deeplift",
        rulings=rulings,
        passing=LINEAR | SHAPES,
        reason="the rescale rule is for sums, layers and simple activations; use "
        "'integrated-gradients', which is for any network",
    )


def plain_options(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name the options of a call, as if it did not work in place and gave values alone."""
    options = options_of(name, args, kwargs)
    return {k: v for k, v in options.items() if k not in ("inplace", "return_indices")}


def _computed(name: str, x: Tensor, options: Mapping[str, Any]) -> Any:
    """Do what a call does; for a pool, also tell where its values are from."""
    if name == "max_pool2d":
        return F.max_pool2d(x, **options, return_indices=True)
    return ACTIVATIONS[name](x, **options)


def _with_slope(name: str, x: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Compute an activation and its derivative."""
    with torch.enable_grad():
        own = x.detach().requires_grad_()
        y = ACTIVATIONS[name](own, **options)
        (slope,) = torch.autograd.grad(y, own, torch.ones_like(y))
    return y.detach(), slope


class _PooledChange(torch.autograd.Function):
    """Max pooling by the rescale rule.

    What the picture's maximum has over the reference's is given to where the former is; what it
    lacks, to where the latter is.
    """

    @staticmethod
    def forward(
        ctx: Any, _x: Tensor, value: Fresh, at: Tensor, change: Tensor, y0: Tensor, at0: Tensor
    ) -> Tensor:
        (y,) = value
        most = torch.maximum(y, y0)
        ctx.save_for_backward(at, at0, change, most - y0, y - most)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        at, at0, change, gained, lost = ctx.saved_tensors
        given = _put(gradient * gained, at, change) + _put(gradient * lost, at0, change)
        same = change.abs() < SAME
        handed = torch.where(same, _put(gradient, at, change), given / change)
        return handed, None, None, None, None, None


def _put(values: Tensor, at: Tensor, like: Tensor) -> Tensor:
    """Add values up at the places of planes that they are from."""
    planes = torch.zeros_like(like).flatten(2)
    return planes.scatter_add(2, at.flatten(2), values.flatten(2)).view_as(like)


def lrp_rules(rule: str, epsilon: float) -> Rules:
    """Make the rules of relevance propagation; see `LRP`."""
    small = partial(_in_proportion, epsilon, None)
    weighted = partial(_in_proportion, epsilon, _WEIGHTS.get(rule))
    names = (LINEAR | {"max_pool2d"}) - {"interpolate"}
    layers = dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), weighted)
    activations = {name: partial(_handed_on, name) for name in _ON}
    return Rules(
        method="lrp",
        rulings={**dict.fromkeys(names, small), **layers, **activations},
        passing=SHAPES,
        reason="relevance has no rule for it; use 'input-x-gradient' or 'integrated-gradients'",
    )


_ON = ("hardtanh", "relu", "relu6", "tanh")
"""Activations that hand all relevance on."""
_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gamma": lambda weight: weight + 0.25 * weight.clamp(min=0),
    "alpha1-beta0": lambda weight: weight.clamp(min=0),
}
"""By which weights a layer hands relevance back, if not by its own."""


def _handed_on(
    name: str, _function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    x = value_of(args, kwargs)
    made = _computed(name, x.detach(), plain_options(name, args, kwargs))
    return _Scaled.apply(x, (made,), None)  # type: ignore[no-any-return]


def _in_proportion(
    epsilon: float,
    weights: Callable[[Tensor], Tensor] | None,
    function: Function,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Tensor:
    """Call a layer so that it hands relevance back in proportion to what each input added."""
    args, kwargs = tree_map(_weighing, (args, dict(kwargs)))
    if weights is None:
        made = function(*args, **kwargs)
        return _Shared.apply(made, (made.detach().clone(),), epsilon)  # type: ignore[no-any-return]
    with torch.no_grad():
        value = function(*args, **kwargs)
    if "weight" in kwargs:
        kwargs = {**kwargs, "weight": weights(kwargs["weight"])}
    else:
        args = (args[0], weights(args[1]), *args[2:])
    return _Shared.apply(function(*args, **kwargs), (value,), epsilon)  # type: ignore[no-any-return]


def _weighing(x: Any) -> Any:
    """Copy what depends on the picture, such that its gradient is multiplied by itself."""
    if not depends(x):
        return x
    own = x.detach().clone()
    return _Scaled.apply(x, (own,), own)


class _Shared(torch.autograd.Function):
    """A value for what a layer made, whose gradient is divided by the latter."""

    @staticmethod
    def forward(ctx: Any, made: Tensor, value: Fresh, epsilon: float) -> Tensor:
        ctx.save_for_backward(made)
        ctx.epsilon = epsilon
        return value[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (made,) = ctx.saved_tensors
        return gradient / (made + torch.where(made < 0, -ctx.epsilon, ctx.epsilon)), None, None
