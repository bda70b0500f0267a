"""Bottlenecks trained with a classifier: what it is allowed to see has a price."""

from attrib.bottleneck.mask_model import MaskModel, MaskNoise, MaskOptions
from attrib.bottleneck.mask_nets import ARCHITECTURES, MaskArchitecture, any_size
from attrib.bottleneck.mask_network import MaskNetworkOptions
from attrib.bottleneck.mask_posthoc import PosthocMask, PosthocOptions
from attrib.bottleneck.mask_statistics import MaskStatistics, mask_statistics
from attrib.bottleneck.mask_terms import MaskTerms
from attrib.bottleneck.mask_training import (
    BetaControl,
    MaskStep,
    mask_step,
    train_mask_model,
    warm_up_classifier,
)

__all__ = [
    "ARCHITECTURES",
    "BetaControl",
    "MaskArchitecture",
    "MaskModel",
    "MaskNetworkOptions",
    "MaskNoise",
    "MaskOptions",
    "MaskStatistics",
    "MaskStep",
    "MaskTerms",
    "PosthocMask",
    "PosthocOptions",
    "any_size",
    "mask_statistics",
    "mask_step",
    "train_mask_model",
    "warm_up_classifier",
]
