"""A model's function calls as modules, for explainers of Captum's making that hook modules.

Captum's DeepLIFT hooks activations and pools. It fails, or is wrong without a word, where a module
works in place, is used at several places or is a bare function. Here every such call becomes a
module of its own while the model runs, whatever it was, and the explainer hooks those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib.calls import Function
from attrib.errors import ModelError
from attrib.methods.baselines.ruled import ruled, value_of
from attrib.methods.baselines.rules import plain_options, refuse_other_than_six, rescale_rules
from attrib.models import SpatialClassifier

__all__ = ["Modular"]


class Modular(nn.Module):
    """A classifier as a module whose only parts are the calls that DeepLIFT has rules for.

    Runs the model once on the first picture to see what it calls.

    Args:
        classifier: The model, split; in inference mode as the caller enters it.
        pictures: What is going to be explained.

    Raises:
        ModelError: a call that DeepLIFT cannot handle; names it and the module it is in.
    """

    def __init__(self, classifier: SpatialClassifier, pictures: Float[Tensor, "n _ h w"]) -> None:
        super().__init__()
        self.calls = nn.ModuleList()
        self._classifier = classifier  # no module: explainers do not find what is in it
        self._rules = rescale_rules({name: partial(self._as_module, name) for name in _MODULES})
        self._seen, self._next, self._recording = list[str](), 0, True
        with torch.no_grad():
            self(pictures[:1])
        self._recording = False

    def forward(self, pictures: Tensor) -> Tensor:
        """Give the model's logits, in the pictures' precision."""
        self._next = 0
        return ruled(self._classifier, pictures, self._rules)

    def _as_module(
        self, name: str, _f: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        if self._recording:
            self._seen.append(name)
            self.calls.append(_MODULES[name](plain_options(name, args, kwargs)))
        if self._next >= len(self.calls) or self._seen[self._next] != name:
            raise ModelError("it calls other functions from one forward pass to the next")
        call = self.calls[self._next]
        self._next += 1
        out: Tensor = call(value_of(args, kwargs).clone())  # a hook of its own, whoever reads it
        return out


class _TwoReLUs(nn.Module):
    """ReLU6 as a difference, each part of which has a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        low: Tensor = self.low(x.clone())
        high: Tensor = self.high(x - 6)
        return low - high


class _Windows(nn.Module):
    """Max pooling with its windows side by side, so that none shares a place with another.

    Captum's rule drops what two windows take from one place.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = dict(options)
        kernel, dilation = (_pair(options.get(k) or 1) for k in ("kernel_size", "dilation"))
        self.kernel, self.dilation = kernel, dilation
        self.stride = _pair(options.get("stride") or kernel)
        self.padding = _pair(options.get("padding") or 0)
        self.pool = nn.MaxPool2d((1, kernel[0] * kernel[1]))

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        with torch.no_grad():
            out = F.max_pool2d(x, **self.options).shape[2:]
            least = float(x.min()) - 1
        edges = []
        for axis in (1, 0):
            reach = (out[axis] - 1) * self.stride[axis]
            reach += self.dilation[axis] * (self.kernel[axis] - 1) + 1
            before = self.padding[axis]
            edges += [before, max(0, reach - x.shape[2 + axis] - before)]
        padded = F.pad(x, edges, value=least)
        windows = F.unfold(padded, self.kernel, self.dilation, 0, self.stride)
        whole = (padded.shape[2:], self.kernel, self.dilation, self.stride)
        rows, cols = (
            (size - d * (k - 1) - 1) // s + 1 for size, k, d, s in zip(*whole, strict=True)
        )
        grid = windows.view(b, c, -1, rows, cols)[..., : out[0], : out[1]]
        side_by_side = grid.permute(0, 1, 3, 4, 2).flatten(2, 3)
        return self.pool(side_by_side).view(b, c, *out)  # type: ignore[no-any-return]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _max_pool(options: Mapping[str, Any]) -> nn.Module:
    kernel, stride = _pair(options["kernel_size"]), _pair(options.get("stride") or 0)
    apart = stride == (0, 0) or (stride[0] >= kernel[0] and stride[1] >= kernel[1])
    return nn.MaxPool2d(**options) if apart else _Windows(options)


def _six(options: Mapping[str, Any]) -> nn.Module:
    refuse_other_than_six(options)
    return _TwoReLUs()


def _like(kind: Callable[..., nn.Module]) -> Callable[[Mapping[str, Any]], nn.Module]:
    return lambda options: kind(**options)


_MODULES: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "relu": _like(nn.ReLU),
    "relu6": _six,
    "hardtanh": _six,
    "leaky_relu": _like(nn.LeakyReLU),
    "elu": _like(nn.ELU),
    "sigmoid": _like(nn.Sigmoid),
    "tanh": _like(nn.Tanh),
    "softplus": _like(nn.Softplus),
    "max_pool2d": _max_pool,
}
"""What hooks of Captum's DeepLIFT know how to handle."""
