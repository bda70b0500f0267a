"""How many pictures one of the AIB paper's networks classifies wrongly."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from attrib import surgery
from attrib.bottleneck.aib_classifier import NetworkClassifier
from attrib.bottleneck.aib_module import AIBNetwork
from attrib.datasets.picture_sets import PictureSet
from attrib.fit.loading import generator_of
from attrib.types import ModelSpec

__all__ = ["normalised", "top1_error"]

BATCH = 256


def top1_error(
    classifier: NetworkClassifier,
    pictures: PictureSet,
    samples: tuple[int, int] | None = None,
    *,
    seed: int = 0,
) -> float:
    """Return the percentage of pictures that a network classifies wrongly.

    Args:
        classifier: With the classes of the pictures.
        pictures: Of the network's size.
        samples: Attention maps per picture, and latent vectors per map, whose logits are averaged;
            None for none, but the means. No matter to a plain network.
        seed: Of the samples.
    """
    network, generator = classifier.network, generator_of(seed)
    sampled = samples is not None and isinstance(network, AIBNetwork)
    device, wrong = surgery.device_of(network), 0
    with surgery.inference(classifier):
        for index in torch.arange(len(pictures)).split(BATCH):
            images = normalised(pictures.read(index.tolist()).to(device), classifier.attrib_spec)
            logits = network(images, samples, generator).logits if sampled else classifier(images)
            wrong += int((logits.argmax(1).cpu() != pictures.classes[index]).sum())
    return 100 * wrong / len(pictures)


def normalised(pixels: UInt8[Tensor, "b 3 h w"], spec: ModelSpec) -> Float[Tensor, "b 3 h w"]:
    """Take off the mean and divide by the deviation; channels last in memory, which is faster."""
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None] * 255
        for values in (spec.mean, spec.std)
    )
    images = (pixels.float() - mean) / std
    return images.contiguous(memory_format=torch.channels_last)
