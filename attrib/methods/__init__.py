"""Methods: one idea each, registered by name."""

from attrib.methods.attention import AIB
from attrib.methods.base import METHODS, Method, resolve, untrained
from attrib.methods.cam import CAM, InfoCAM, InfoCAMPlus
from attrib.methods.gradient import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from attrib.methods.iba import IBA, Statistics, estimate_statistics
from attrib.methods.mask import IBMask
from attrib.methods.rib import RIB, Pool

__all__ = [
    "AIB",
    "CAM",
    "IBA",
    "METHODS",
    "RIB",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "IBMask",
    "InfoCAM",
    "InfoCAMPlus",
    "LayerCAM",
    "Method",
    "Pool",
    "Statistics",
    "estimate_statistics",
    "resolve",
    "untrained",
]
