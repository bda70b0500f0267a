"""Methods: one idea each, registered by name."""

from attrib.methods.attention import AIB
from attrib.methods.base import FAMILIES, METHODS, Method, resolve, untrained
from attrib.methods.baselines import (
    LIME,
    LRP,
    Captum,
    Deconvolution,
    DeepLift,
    FeatureAblation,
    GradientSHAP,
    GuidedBackprop,
    GuidedGradCAM,
    InputXGradient,
    IntegratedGradients,
    KernelSHAP,
    Occlusion,
    Saliency,
    ShapleySampling,
    SmoothGrad,
    captum,
)
from attrib.methods.cam import CAM, InfoCAM, InfoCAMPlus
from attrib.methods.gradient import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from attrib.methods.iba import IBA, Statistics, estimate_statistics
from attrib.methods.rib import RIB, Pool

__all__ = [
    "AIB",
    "CAM",
    "FAMILIES",
    "IBA",
    "LIME",
    "LRP",
    "METHODS",
    "RIB",
    "Captum",
    "Deconvolution",
    "DeepLift",
    "FeatureAblation",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientSHAP",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "InfoCAM",
    "InfoCAMPlus",
    "InputXGradient",
    "IntegratedGradients",
    "KernelSHAP",
    "LayerCAM",
    "Method",
    "Occlusion",
    "Pool",
    "Saliency",
    "ShapleySampling",
    "SmoothGrad",
    "Statistics",
    "captum",
    "estimate_statistics",
    "resolve",
    "untrained",
]
