"""A model's pass in which some of its function calls are answered by a method's rules.

Rules of back-propagation are about ReLUs, pools and layers. Here every call that a rule is about is
answered by it while the model runs, whatever it was: a module, one that works in place or is used
at several places, or a bare function. The user's model is neither hooked nor changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_leaves

from attrib import surgery
from attrib.calls import Function, answered, bare_name, calling_module, pure, writes
from attrib.errors import ModelError
from attrib.models import SpatialClassifier
from attrib.own_thread import within

__all__ = ["LINEAR", "SHAPES", "Rules", "Ruling", "depends", "options_of", "ruled", "value_of"]

Ruling = Callable[[Function, tuple[Any, ...], Mapping[str, Any]], Tensor]
"""Answers a call: takes the function, which leaves its arguments alone, and the arguments."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SHAPES = _names("""
    __get__ __getitem__ __len__ _assert broadcast_to cat chunk clone concat contiguous detach device
    dim dropout dropout1d dropout2d dropout3d dtype expand expand_as feature_dropout flatten float
    hstack is_floating_point movedim narrow numel pad permute pixel_shuffle pixel_unshuffle repeat
    reshape roll rot90 select size split squeeze stack stride t to transpose type unbind unflatten
    unsqueeze view view_as
""")
"""Functions that move values and do not change them; dropout does nothing in evaluation."""

LINEAR = _names("""
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d add avg_pool1d avg_pool2d batch_norm
    conv1d conv2d conv3d conv_transpose2d div interpolate linear mean mul neg sub sum true_divide
""")
"""Functions that are linear in a picture's values, but for a constant. A product or quotient is
only if one side does not depend on the picture."""

PRODUCTS = frozenset({"mul", "div", "true_divide"})


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a method does with the calls in a forward pass.

    Args:
        method: Its name, for messages.
        rulings: How calls are answered, by the name of the function.
        passing: Other calls that are let through; None for all but `refused`.
        refused: Calls that are not let through where all others are.
        needs: At least one call has to be answered by a ruling; says what is missing.
        reason: Why a call is not let through, and what to do.
    """

    method: str
    rulings: Mapping[str, Ruling]
    passing: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()
    needs: str = ""
    reason: str

    def lets(self, name: str, product: bool) -> bool:
        """Tell whether a call is let through; a product is of values that depend on the picture."""
        if self.passing is None:
            return name not in self.refused
        return name in self.passing and not product


def ruled(
    classifier: SpatialClassifier,
    pictures: Float[Tensor, "n _ h w"],
    rules: Rules,
    *,
    hooks: bool = False,
) -> Float[Tensor, "n c"]:
    """Run the model by rules, in inference mode and with gradients as the caller enters it.

    Args:
        classifier: The model, split.
        pictures: Not changed.
        rules: What becomes of its calls.
        hooks: Let hooks on the model itself see the pictures; they run outside of the rules.

    Returns:
        Logits, in the pictures' precision.

    Raises:
        ModelError: a call that the method cannot handle; names it and the module it is in.
    """
    model = classifier.model
    _check_visible(classifier, rules.method)
    own = pictures.to(surgery.dtype_of(model), copy=True)
    _mark(own)
    judge = _Judge(classifier, rules)
    if hooks:
        with within(model, judge.sitting):
            returned = model(own)
    else:
        with judge.sitting():
            returned = model.forward(own)
    if rules.needs and not judge.ruled:
        raise ModelError(f"{rules.method}: {classifier.spec.name} {rules.needs}")
    return classifier.logits_of(returned).to(pictures.dtype)


def _check_visible(classifier: SpatialClassifier, method: str) -> None:
    for path, module in classifier.model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"{method} cannot see into module {path!r} of {classifier.spec.name}, which "
                "is scripted (torch.jit); load the model unscripted"
            )


class _Judge:
    """Answers the calls of one pass."""

    def __init__(self, classifier: SpatialClassifier, rules: Rules) -> None:
        self._classifier, self._rules = classifier, rules
        self.ruled = 0

    def sitting(self) -> AbstractContextManager[None]:
        return answered(self._answer)

    def _answer(self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        marked = sum(depends(x) for x in tree_leaves((args, kwargs)))
        if not marked:
            return function(*args, **kwargs)
        name = bare_name(function)
        product = name in PRODUCTS and (marked > 1 or not depends(args[0]))
        if name in self._rules.rulings and not product:
            out = self._ruled(name, function, args, kwargs)
        elif self._rules.lets(name, product):
            out = function(*args, **kwargs)
        else:
            raise self._refusal(name, self._rules.reason)
        for value in tree_leaves(out):
            _mark(value)
        return out

    def _ruled(
        self, name: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        self.ruled += 1
        try:
            out = self._rules.rulings[name](pure(function), args, kwargs)
        except ModelError as error:
            raise self._refusal(name, str(error)) from error
        inplace = options_of(name, args, kwargs).get("inplace", False) or writes(function)
        return value_of(args, kwargs).copy_(out) if inplace else out

    def _refusal(self, name: str, reason: str) -> ModelError:
        where = calling_module(self._classifier.model)
        return ModelError(
            f"{self._rules.method} cannot handle '{name}' in {where} of "
            f"{self._classifier.spec.name}: {reason}"
        )


_OPTIONS = {
    "celu": ("alpha", "inplace"),
    "elu": ("alpha", "inplace"),
    "gelu": ("approximate",),
    "hardsigmoid": ("inplace",),
    "hardswish": ("inplace",),
    "hardtanh": ("min_val", "max_val", "inplace"),
    "leaky_relu": ("negative_slope", "inplace"),
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "mish": ("inplace",),
    "relu": ("inplace",),
    "relu6": ("inplace",),
    "selu": ("inplace",),
    "silu": ("inplace",),
    "softplus": ("beta", "threshold"),
}
"""Names of the arguments after the first."""


def options_of(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name all arguments of a call but the first, as far as they are known."""
    named = dict(zip(_OPTIONS.get(name, ()), args[1:], strict=False)) | dict(kwargs)
    named.pop("input", None)
    return named


def value_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the first argument of a call."""
    return args[0] if args else kwargs["input"]


def _mark(value: object) -> None:
    """Note that a tensor depends on the picture."""
    if isinstance(value, Tensor):
        value._attrib_depends = True  # type: ignore[attr-defined]


def depends(value: object) -> bool:
    """Tell whether a value of the pass is a tensor that depends on the picture."""
    return isinstance(value, Tensor) and hasattr(value, "_attrib_depends")
