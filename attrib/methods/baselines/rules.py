"""Which function calls the rules of back-propagation are about, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib.methods.baselines.modular import (
    LINEAR,
    SHAPES,
    Make,
    Rules,
    activation,
    layer,
    six_of,
)

__all__ = ["DEEPLIFT", "lrp_rules", "relu_rules"]


class _Cap(nn.Module):
    """What makes a ReLU a ReLU6."""

    def forward(self, x: Tensor) -> Tensor:
        capped: Tensor = x.clamp(max=6)
        return capped


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
    """Max pooling with its windows side by side, so that none shares a place with another."""

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


def relu_rules(method: str) -> Rules:
    """Make the rules of methods that change what ReLUs hand back."""
    six = six_of(lambda: nn.Sequential(nn.ReLU(), _Cap()))
    return Rules(
        method=method,
        modules={"relu": activation(nn.ReLU), "relu6": six, "hardtanh": six},
        refused=frozenset({"clamp", "clamp_min", "clip", "maximum", "threshold", "rrelu"}),
        needs="has no ReLU, whose gradient this method is about; use 'saliency'",
        reason="it may act as a ReLU and is none; use 'saliency', or write it as a ReLU",
    )


_DIFFERENCE = six_of(_TwoReLUs)
DEEPLIFT = Rules(
    method="deeplift",
    modules={
        "relu": activation(nn.ReLU),
        "relu6": _DIFFERENCE,
        "hardtanh": _DIFFERENCE,
        "leaky_relu": activation(nn.LeakyReLU),
        "elu": activation(nn.ELU),
        "sigmoid": activation(nn.Sigmoid),
        "tanh": activation(nn.Tanh),
        "softplus": activation(nn.Softplus),
        "max_pool2d": _max_pool,
    },
    passing=LINEAR | SHAPES,
    reason="the rescale rule is for sums, layers and simple activations; use "
    "'integrated-gradients', which is for any network",
)
"""The rules of DeepLIFT."""


def lrp_rules(rule: str, epsilon: float) -> Rules:
    """Make the rules of relevance propagation; see `LRP`."""
    from captum.attr._utils import lrp_rules

    kinds = {"gamma": lrp_rules.GammaRule, "alpha1-beta0": lrp_rules.Alpha1_Beta0_Rule}
    small: Make = layer(lambda: lrp_rules.EpsilonRule(epsilon))
    weighted = layer(kinds[rule]) if rule in kinds else small
    names = (LINEAR | {"max_pool2d"}) - {"interpolate"}
    linear = dict.fromkeys(names, small)
    layers = dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), weighted)
    six = six_of(lambda: _passing(F.relu6))
    rectifiers = {
        "relu": activation(nn.ReLU),
        "relu6": six,
        "hardtanh": six,
        "tanh": activation(nn.Tanh),
    }
    return Rules(
        method="lrp",
        modules={**linear, **layers, **rectifiers},
        passing=SHAPES,
        reason="relevance has no rule for it; use 'input-x-gradient' or 'integrated-gradients'",
    )


def _passing(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """Make an activation that Captum takes for a ReLU, whose relevance it hands on."""
    module = nn.ReLU()
    module.forward = function  # type: ignore[method-assign, assignment]
    return module
