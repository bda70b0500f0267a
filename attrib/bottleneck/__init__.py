"""Bottlenecks trained with a classifier: what it is allowed to see has a price."""

from attrib.bottleneck.mask_control import BetaControl
from attrib.bottleneck.mask_model import MaskModel, MaskNoise, MaskOptions
from attrib.bottleneck.mask_nets import ARCHITECTURES, MaskArchitecture, any_size
from attrib.bottleneck.mask_network import MaskNetworkOptions
from attrib.bottleneck.mask_posthoc import PosthocMask, PosthocOptions
from attrib.bottleneck.mask_statistics import MaskStatistics, mask_statistics
from attrib.bottleneck.mask_terms import MaskTerms

__all__ = [
    "ARCHITECTURES",
    "BetaControl",
    "MaskArchitecture",
    "MaskModel",
    "MaskNetworkOptions",
    "MaskNoise",
    "MaskOptions",
    "MaskStatistics",
    "MaskTerms",
    "PosthocMask",
    "PosthocOptions",
    "any_size",
    "mask_statistics",
]
