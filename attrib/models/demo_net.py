"""A small classifier of rendered scenes that comes with the package, weights and all.

It was trained by `examples/train_demo.py` and needs no network, no cache and no accelerator.

    >>> net, config = load_demo(), demo_config()
    >>> net.features(torch.zeros(1, 3, *config["input_size"])).shape
    torch.Size([1, 64, 12, 12])
"""

from __future__ import annotations

import json
from collections import OrderedDict
from importlib import resources
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor, nn

__all__ = ["DemoNet", "demo_config", "load_demo"]

FOLDER = resources.files("attrib.models") / "demo"


class DemoNet(nn.Module):
    """A residual network whose head is linear after global average pooling.

    Stages `stem`, `stage1`, `stage2` and `stage3` have strides 2, 4, 8 and 8: a 96-pixel picture
    gives a 12 x 12 map.

    Args:
        classes: Number of logits.
    """

    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        stages = {
            "stem": _convolution(3, 16, stride=2),
            "stage1": nn.Sequential(_convolution(16, 24, stride=2), _Residual(24)),
            "stage2": nn.Sequential(_convolution(24, 48, stride=2), _Residual(48)),
            "stage3": nn.Sequential(_convolution(48, 64), _Residual(64)),
        }
        self.features = nn.Sequential(OrderedDict(stages))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, classes)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        """Give the logits of images normalised as `demo_config()` says."""
        logits: Tensor = self.head(self.pool(self.features(images)).flatten(1))
        return logits


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(x + self.norm(self.conv(x)))
        return out


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def load_demo() -> DemoNet:
    """Return the shipped network in eval mode; no random number is drawn."""
    config = demo_config()
    with torch.device("meta"):
        net = DemoNet(classes=len(config["classes"]))
    net.load_state_dict(load((FOLDER / "model.safetensors").read_bytes()), assign=True)
    return net.eval()


def demo_config() -> dict[str, Any]:
    """Return what travels with the weights.

    Keys: `classes` (one name per logit), `input_size` (`[h, w]`), `mean` and `std` (per channel,
    white is 1), `test_accuracy` (a fraction), and the `seed` and `command` that trained them.
    """
    config: dict[str, Any] = json.loads((FOLDER / "config.json").read_text())
    return config
