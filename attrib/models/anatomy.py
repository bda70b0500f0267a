"""How models come apart: where features come out, and what turns one feature vector into logits.

Two ways cover the field. timm's models say it themselves, with `forward_features` and
`forward_head`. Any other model is named by two module paths, the one whose output is the feature
map and the one that is the head; torchvision's are listed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib import surgery
from attrib.models.layout import Layout, Levels, Raw
from attrib.models.output import Output, logits_of

__all__ = ["TORCHVISION", "Anatomy", "Flattening", "Parts", "Tapped", "recognise"]


@runtime_checkable
class Anatomy(Protocol):
    """Where features come out of a model and how a vector goes through its head."""

    def forward(self, model: nn.Module, images: Float[Tensor, "b _ h w"]) -> tuple[Raw, Tensor]:
        """Run the model once; return its raw features and its logits."""

    def forward_leaf(self, model: nn.Module, images: Tensor) -> tuple[Raw, Tensor]:
        """Do the same, with gradients recorded from the raw features on."""

    def replay(self, model: nn.Module, images: Tensor, raw: Raw) -> Tensor:
        """Return the logits that the model would give for other raw features."""

    def cells(self, model: nn.Module, vectors: Tensor, layout: Layout | Levels) -> Tensor:
        """Apply the head to `[m, k]` vectors, each as if every cell held it; return `[m, c]`."""

    def activate(self, features: Tensor) -> Tensor:
        """Apply what the model applies between the raw features and pooling."""


def _copy(raw: Raw) -> Raw:
    """Copy raw features, so that in-place work in the head cannot rewrite the ones we keep."""
    return raw.clone() if isinstance(raw, Tensor) else [part.clone() for part in raw]


def _leaf(raw: Raw) -> Raw:
    if isinstance(raw, Tensor):
        return raw.detach().requires_grad_()
    return [part.detach().requires_grad_() for part in raw]


@dataclass(frozen=True)
class Parts:
    """A model that names its own parts: `forward_features` and `forward_head`, as timm's do."""

    def forward(self, model: Any, images: Tensor) -> tuple[Raw, Tensor]:
        """See `Anatomy`."""
        raw = model.forward_features(images)
        return raw, logits_of(model.forward_head(_copy(raw)))

    def forward_leaf(self, model: Any, images: Tensor) -> tuple[Raw, Tensor]:
        """See `Anatomy`."""
        with torch.no_grad():
            raw = _leaf(model.forward_features(images))
        with torch.enable_grad():
            return raw, logits_of(model.forward_head(_copy(raw)))

    def replay(self, model: Any, images: Tensor, raw: Raw) -> Tensor:
        """See `Anatomy`."""
        return logits_of(model.forward_head(raw))

    def cells(self, model: Any, vectors: Tensor, layout: Layout | Levels) -> Tensor:
        """See `Anatomy`."""
        return logits_of(model.forward_head(layout.constant(vectors)))

    def activate(self, features: Tensor) -> Tensor:
        """Change nothing: the features are what the head pools."""
        return features


@dataclass(frozen=True)
class Tapped:
    """A model named by two module paths.

    Args:
        features: The module whose output is the feature map.
        head: The module that makes logits of one pooled vector, or several in the order in which
            they are applied, separated by commas.
        rectify: The model applies a ReLU in between.
        output: Where the logits are in what the model returns.
    """

    features: str
    head: str
    rectify: bool = False
    output: Output | None = None

    def forward(self, model: nn.Module, images: Tensor) -> tuple[Raw, Tensor]:
        """See `Anatomy`."""
        with surgery.tap(model, self.features) as tapped:
            logits = logits_of(model(images), self.output)
        return tapped.value(self.features), logits

    def forward_leaf(self, model: nn.Module, images: Tensor) -> tuple[Raw, Tensor]:
        """See `Anatomy`."""
        with torch.no_grad(), surgery.tap(model, self.features, leaf=True) as tapped:
            logits = logits_of(model(images), self.output)
        return tapped.value(self.features), logits

    def replay(self, model: nn.Module, images: Tensor, raw: Raw) -> Tensor:
        """See `Anatomy`."""
        with surgery.replaced(model, self.features, raw):
            return logits_of(model(images), self.output)

    def cells(self, model: nn.Module, vectors: Tensor, layout: Layout | Levels) -> Tensor:
        """See `Anatomy`."""
        for path in self.head.split(","):
            head = surgery.submodule(model, path)
            mapped = any(isinstance(m, _SPATIAL) for m in head.modules())
            vectors = head(vectors[:, :, None, None] if mapped else vectors).flatten(1)
        return vectors

    def activate(self, features: Tensor) -> Tensor:
        """Apply the ReLU that the model keeps in its forward function, if it does."""
        return features.relu() if self.rectify else features


_SPATIAL = (nn.Conv2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.Flatten)
"""A head that holds one of these expects a map; any other takes vectors."""


@dataclass(frozen=True)
class Flattening:
    """A model whose head reads every cell through its own weights: it has no class maps."""


TORCHVISION: dict[str, Tapped | Flattening] = {
    "AlexNet": Flattening(),
    "ConvNeXt": Tapped("features", "classifier"),
    "DenseNet": Tapped("features", "classifier", rectify=True),
    "EfficientNet": Tapped("features", "classifier"),
    "GoogLeNet": Tapped("inception5b", "fc"),
    "Inception3": Tapped("Mixed_7c", "fc"),
    "MaxVit": Tapped("blocks.3", "classifier"),
    "MNASNet": Tapped("layers", "classifier"),
    "MobileNetV2": Tapped("features", "classifier"),
    "MobileNetV3": Tapped("features", "classifier"),
    "RegNet": Tapped("trunk_output", "fc"),
    "ResNet": Tapped("layer4", "fc"),
    "ShuffleNetV2": Tapped("conv5", "fc"),
    "SqueezeNet": Tapped("features", "classifier"),
    "SwinTransformer": Tapped("norm", "head"),
    "VGG": Flattening(),
    "VisionTransformer": Tapped("encoder", "heads"),
}
"""torchvision's classifiers by class name."""

TIMM: dict[str, Tapped | Flattening] = {
    "PoolingVisionTransformer": Tapped("transformers.2.blocks", "norm,head"),
    "VGG": Flattening(),
}
"""The few of timm's classifiers whose `forward_features` gives no feature map."""


def recognise(model: nn.Module) -> Anatomy | Flattening | None:
    """Tell how a known model comes apart, or None if it is not known."""
    for cls in type(model).__mro__:
        if cls.__module__.startswith("torchvision.models") and cls.__name__ in TORCHVISION:
            return TORCHVISION[cls.__name__]
        if cls.__module__.startswith("timm.models") and cls.__name__ in TIMM:
            return TIMM[cls.__name__]
    if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
        return Parts()
    return None
