"""Models with random weights, batches of noise and rendered photographs to measure on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

import attrib
from attrib.models import SpatialClassifier

__all__ = ["LAYERS", "Work", "build", "operations", "photograph", "predicting", "prepare"]

TORCHVISION = "torchvision/"
LAYERS = {
    "torchvision/resnet50": "layer4.2",
    "torchvision/resnet18": "layer4.1",
    "torchvision/mobilenet_v2": "features.18",
    "convnext_tiny": "stages.3",
    "vit_small_patch16_224": "blocks.11.norm1",
}
"""Module whose output the peers are told to look at: where attrib looks by itself."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """One model and one batch for all candidates; `labels` are the most likely classes."""

    name: str
    model: nn.Module
    classifier: SpatialClassifier
    images: Tensor
    logits: Tensor

    @property
    def layer(self) -> str:
        return LAYERS[self.name]

    @property
    def labels(self) -> list[int]:
        return self.logits.argmax(1).tolist()

    def forward(self) -> Tensor:
        """Run the plain forward pass."""
        with torch.no_grad():
            return self.model(self.images)


def build(name: str, **options: object) -> nn.Module:
    """Build a model with random weights, by the names that `attrib.load_model` takes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name.startswith(TORCHVISION):
            from torchvision import models

            builder = name.removeprefix(TORCHVISION)
            return models.get_model(builder, weights=None, **options).eval()
        import timm

        return timm.create_model(name, pretrained=False, **options).eval()


def prepare(name: str, batch: int, size: int = 224, device: str = "cpu", **options: object) -> Work:
    """Build the model, and a batch of noise; weights require gradients, as freshly loaded ones do.

    Args:
        name: For `build`.
        batch: Images.
        size: Their height and width in pixels.
        device: Where all lies.
        options: For `build`.
    """
    model = build(name, **options).to(device)
    shape = (batch, 3, size, size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        logits = model(images)
    classifier = attrib.split(model)
    return Work(name=name, model=model, classifier=classifier, images=images, logits=logits)


def photograph(path: Path, width: int = 500, height: int = 375) -> Path:
    """Write a JPEG of soft shapes with fine grain, about as large as a photograph of that size."""
    generator = torch.Generator().manual_seed(0)
    coarse, grain = (
        torch.randn(1, 3, height // cell, width // cell, generator=generator) for cell in (30, 2)
    )
    size = (height, width)
    soft = F.interpolate(coarse, size, mode="bicubic") + 0.3 * F.interpolate(grain, size)
    pixels = (soft[0].sigmoid() * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path, quality=90)
    return path


def predicting(
    model: nn.Module, paths: Sequence[Path], device: str = "cpu"
) -> Callable[[], list[int]]:
    """Predict the classes of JPEGs in one batch, as torchvision's documentation shows."""
    from torchvision.transforms._presets import ImageClassification

    transform = ImageClassification(crop_size=224)

    @torch.inference_mode()
    def predict() -> list[int]:
        pictures = [transform(Image.open(path).convert("RGB")) for path in paths]
        found: list[int] = model(torch.stack(pictures).to(device)).argmax(1).tolist()
        return found

    return predict


def operations(run: Callable[[], Any]) -> int:
    """Count the floating point operations of convolutions and matrix products in a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
