"""A model's function calls as modules, for explainers that hook modules.

Captum's back-propagation rules hook ReLUs, pools and layers. They fail, or are wrong without a
word, where a module works in place, is used at several places or is a bare function. Here every
call that a rule is about becomes a module of its own while the model runs, whatever it was, and
the explainer hooks those. The user's model is neither hooked nor changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from attrib import surgery
from attrib.calls import Function, answered, bare_name, calling_module, pure, writes
from attrib.errors import ModelError
from attrib.models import SpatialClassifier

__all__ = ["LINEAR", "SHAPES", "Make", "Modular", "Rules", "activation", "layer", "six_of"]

Make = Callable[[Mapping[str, Any]], nn.Module]
"""Makes the module for a call from the call's options."""


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
    """What a method can do with the calls in a forward pass.

    Args:
        method: Its name, for messages.
        modules: Calls that become modules, by the name of the function.
        options: Names of the arguments after the first, for these functions.
        passing: Other calls that are let through; None for all but `refused`.
        refused: Calls that are not let through where all others are.
        needs: At least one of these has to be called; says what is missing.
        reason: Why a call is not let through, and what to do.
    """

    method: str
    modules: Mapping[str, Make]
    passing: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()
    needs: str = ""
    reason: str

    def lets(self, name: str, product: bool) -> bool:
        """Tell whether a call is let through; a product is of values that depend on the picture."""
        if self.passing is None:
            return name not in self.refused
        return name in self.passing and not product


_OPTIONS = {
    "relu": ("inplace",),
    "relu6": ("inplace",),
    "hardtanh": ("min_val", "max_val", "inplace"),
    "leaky_relu": ("negative_slope", "inplace"),
    "elu": ("alpha", "inplace"),
    "softplus": ("beta", "threshold"),
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
}


def activation(kind: Callable[..., nn.Module]) -> Make:
    """Make a torch module of the same name and options as the call."""
    return lambda options: kind(**options)


def six_of(kind: Callable[[], nn.Module]) -> Make:
    """Make a module for ReLU6, however it is called; None for another hardtanh."""

    def make(options: Mapping[str, Any]) -> nn.Module:
        ends = options.get("min_val", 0), options.get("max_val", 6)
        if ends != (0, 6):
            raise ModelError(f"hardtanh between {ends[0]} and {ends[1]} is no ReLU6")
        return kind()

    return make


class Call(nn.Module):
    """One call of a function, as the module that an explainer wants to see."""

    then: Function

    def forward(self, *values: Tensor) -> Any:
        """Call the function with the values that depend on the picture."""
        return self.then(*values)


def layer(rule: Callable[[], object]) -> Make:
    """Make a module that computes what the call does, and carries a rule of Captum's LRP."""

    def make(_options: Mapping[str, Any]) -> nn.Module:
        call = Call()
        call.rule = rule()  # type: ignore[assignment]
        return call

    return make


class Modular(nn.Module):
    """A classifier as a module whose only parts are the calls that a method is about.

    Runs the model once on the first picture to see what it calls.

    Args:
        classifier: The model, split; in inference mode as the caller enters it.
        pictures: What is going to be explained.
        rules: What becomes a module.

    Raises:
        ModelError: a call that the method cannot handle; names it and the module it is in.
    """

    def __init__(
        self, classifier: SpatialClassifier, pictures: Float[Tensor, "n _ h w"], rules: Rules
    ) -> None:
        super().__init__()
        self.calls = nn.ModuleList()
        self._classifier = classifier  # no module: explainers do not find what is in it
        self._name, self._rules = classifier.spec.name, rules
        self._seen, self._next, self._recording = list[str](), 0, True
        self._check_visible()
        with torch.no_grad():
            self(pictures[:1].clone())
        self._recording = False
        if rules.needs and not len(self.calls):
            raise ModelError(f"{rules.method}: {self._name} {rules.needs}")

    def forward(self, pictures: Tensor) -> Tensor:
        """Give the model's logits, in the pictures' precision."""
        model, self._next = self._classifier.model, 0
        own = pictures.to(surgery.dtype_of(model), copy=True)
        _mark(own)
        with answered(self._answer):
            logits = self._classifier.logits_of(model.forward(own))
        return logits.to(pictures.dtype)

    def _check_visible(self) -> None:
        for path, module in self._classifier.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                raise ModelError(
                    f"{self._rules.method} cannot see into module {path!r} of {self._name}, which "
                    "is scripted (torch.jit); load the model unscripted"
                )

    def _answer(self, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        marked = sum(_is_marked(x) for x in tree_leaves((args, kwargs)))
        if not marked:
            return function(*args, **kwargs)
        name = bare_name(function)
        product = name in PRODUCTS and (marked > 1 or not _is_marked(args[0]))
        if name in self._rules.modules and not product:
            out = self._as_module(name, function, args, kwargs)
        elif self._rules.lets(name, product):
            out = function(*args, **kwargs)
        else:
            raise self._refusal(name)
        for value in tree_leaves(out):
            _mark(value)
        return out

    def _as_module(
        self, name: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        options = dict(zip(_OPTIONS.get(name, ()), args[1:], strict=False)) | dict(kwargs)
        options.pop("input", None)
        inplace = options.pop("inplace", False) or writes(function)
        if self._recording:
            self._seen.append(name)
            self.calls.append(self._made(name, options))
        if self._next >= len(self.calls) or self._seen[self._next] != name:
            raise self._refusal(name, "it calls other functions from one forward pass to the next")
        call = self.calls[self._next]
        self._next += 1
        if isinstance(call, Call):
            out = _run_layer(call, pure(function), args, kwargs)
        else:
            value = args[0] if args else kwargs["input"]
            out = call(value.clone())  # a hook of its own, whoever else reads the value
        if inplace:
            return args[0].copy_(out)
        return out

    def _made(self, name: str, options: Mapping[str, Any]) -> nn.Module:
        try:
            return self._rules.modules[name](options)
        except ModelError as error:
            raise self._refusal(name, str(error)) from error

    def _refusal(self, name: str, reason: str = "") -> ModelError:
        where = calling_module(self._classifier.model)
        return ModelError(
            f"{self._rules.method} cannot handle '{name}' in {where} of {self._name}: "
            f"{reason or self._rules.reason}"
        )


def _run_layer(call: Call, function: Function, args: Any, kwargs: Any) -> Any:
    """Run a layer with what depends on the picture as its inputs, and weights that it owns."""
    weighted = function in WEIGHTED
    if weighted:
        args, kwargs = _own_weights(call, args, kwargs)
    leaves, form = tree_flatten((args, dict(kwargs)))
    places = [i for i, leaf in enumerate(leaves) if _is_marked(leaf)]

    def then(*values: Tensor) -> Any:
        filled = list(leaves)
        for place, value in zip(places, values, strict=True):
            filled[place] = value
        if weighted:
            filled[1:3] = call.weight, call.bias
        positional, named = tree_unflatten(filled, form)
        return function(*positional, **named)

    call.then = then
    return call(*[leaves[i].clone() for i in places])


WEIGHTED = (F.linear, torch.conv1d, torch.conv2d, torch.conv3d)


def _own_weights(call: Call, args: Any, kwargs: Any) -> Any:
    """Let a layer own copies of its weight and bias, which rules may rewrite, as its arguments."""
    named = dict(kwargs)
    weight = args[1] if len(args) > 1 else named.pop("weight")
    bias = args[2] if len(args) > 2 else named.pop("bias", None)
    if not hasattr(call, "weight"):
        for name, value in (("weight", weight), ("bias", bias)):
            own = None if value is None else nn.Parameter(value.detach().clone(), False)
            setattr(call, name, own)
    return (args[0], weight, bias, *args[3:]), named


def _mark(value: object) -> None:
    """Note that a tensor depends on the picture."""
    if isinstance(value, Tensor):
        value._attrib_depends = True  # type: ignore[attr-defined]


def _is_marked(value: object) -> bool:
    return isinstance(value, Tensor) and hasattr(value, "_attrib_depends")
