"""A small architecture for mask models, and pictures that it learns in a moment."""

from dataclasses import replace

import torch

from attrib.bottleneck import ARCHITECTURES

SMALL = replace(
    ARCHITECTURES["mnist"],
    size=16,
    classifier="C324 C328 Avg FC2",
    mask="Cs314 | Cs114 C111",
    encoder="C324 C324",
    decoder="FC8 FC16 S4 T324 T324 C112",
    latent=5,
)


def corner_task(count=512):
    """Two classes by a bright square at the top left; noise at the bottom right tells nothing."""
    labels = torch.arange(count) % 2
    images = torch.zeros(count, 1, 16, 16)
    images[:, :, 8:, 8:] = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[:, :, 2:7, 2:7] = labels[:, None, None, None].float()
    regions = torch.zeros(count, 16, 16, dtype=torch.bool)
    regions[:, 1:8, 1:8] = True
    return images, labels, regions
