"""RIB: fine-tune on the picture itself, without the final activation, and add up the maps."""

from attrib.methods.rib.loop import RIBTrace, rib
from attrib.methods.rib.method import RIB, RIBRunner
from attrib.methods.rib.options import Pool, RIBOptions
from attrib.methods.rib.others import check_pool
from attrib.methods.rib.pooling import gndrp, multi_scale_cam

__all__ = [
    "RIB",
    "Pool",
    "RIBOptions",
    "RIBRunner",
    "RIBTrace",
    "check_pool",
    "gndrp",
    "multi_scale_cam",
    "rib",
]
