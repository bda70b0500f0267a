"""Methods: one idea each, registered by name."""

from attrib.methods.base import METHODS, Method, resolve
from attrib.methods.cam import CAM, InfoCAM, InfoCAMPlus
from attrib.methods.gradient import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from attrib.methods.rib import RIB, Pool

__all__ = [
    "CAM",
    "METHODS",
    "RIB",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "InfoCAM",
    "InfoCAMPlus",
    "LayerCAM",
    "Method",
    "Pool",
    "resolve",
]
