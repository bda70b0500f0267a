"""`attrib.to_gap`: classifiers that flatten, rebuilt around global average pooling."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from attrib import surgery
from attrib.errors import SplitError
from attrib.models.layout import detect
from attrib.models.output import Output, logits_of
from attrib.models.probe import noise, probing
from attrib.models.split import spec_of
from attrib.types import ModelSpec

__all__ = ["GapClassifier", "to_gap"]


class GapClassifier(nn.Module):
    """Convolutional features, one more convolution, global average pooling, a linear head.

    The VGG-16-GAP of the CAM and infoCAM papers when the features are VGG-16's.
    """

    def __init__(self, features: nn.Module, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.conv = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(width, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the feature map `[b, width, u, v]`."""
        return self.conv(self.features(images))  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor) -> Tensor:
        """Pool and classify."""
        return self.head(features.mean((2, 3)))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[b, c]`."""
        return self.forward_head(self.forward_features(images))


def to_gap(
    model: nn.Module,
    *,
    features: str = "features",
    width: int = 1024,
    num_classes: int | None = None,
    spec: ModelSpec | None = None,
    output: Output | None = None,
) -> GapClassifier:
    """Rebuild a classifier that flattens (VGG, AlexNet) so that it has class maps.

    Its convolutional part is copied with its weights, but for a pooling layer at the end, as in
    the CAM and infoCAM papers; a 3x3 convolution to `width` channels, a ReLU, global average
    pooling and a linear layer follow. These are **new and random**: fine-tune the result before
    you trust its maps. The given model is not changed.

    Args:
        model: A classifier whose convolutional part is one module.
        features: Path of that module.
        width: Channels before pooling, 1024 in the papers.
        num_classes: Outputs; by default as many as the model has.
        spec: How to feed the model; by default what it carries.
        output: Where the logits are in what the model returns, to count them; see `split`.

    Raises:
        SplitError: there is no such module, or its output is no feature map.
    """
    model = surgery.unwrap(model)
    spec = spec or spec_of(model)
    trunk = copy.deepcopy(surgery.submodule(model, features))
    children = list(trunk.children())
    if isinstance(trunk, nn.Sequential) and isinstance(children[-1], nn.MaxPool2d | nn.AvgPool2d):
        trunk = nn.Sequential(*children[:-1])
    images = noise(model, spec)
    with probing(model, images):
        classes = num_classes or logits_of(model(images), output).shape[1]
        trunk_output = trunk(images)
    layout = detect(trunk_output, spec.input_size)
    if layout is None or layout.kind != "nchw":
        raise SplitError(
            f"{features!r} of {type(model).__name__} gives {tuple(trunk_output.shape)}, not a "
            "feature map [b, k, u, v]; name the convolutional part as features="
        )
    device, dtype = surgery.device_of(model), surgery.dtype_of(model)
    channels = trunk_output.shape[1]
    with torch.random.fork_rng(devices=[]):
        gap = GapClassifier(trunk, channels, width, classes).to(device, dtype)
    gap.attrib_spec = spec  # type: ignore[assignment]
    return gap.train(model.training)
