"""Methods: one idea each, registered by name."""

from attrib.methods.around import TTA, Fuse, Smooth, check_autocast
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
from attrib.methods.eigencam import EigenCAM
from attrib.methods.gradient import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from attrib.methods.iba import IBA, Statistics, estimate_statistics
from attrib.methods.mask import IBMask
from attrib.methods.rib import RIB, Pool
from attrib.methods.transformer import GenericAttention, Rollout
from attrib.methods.trial import AblationCAM, ScoreCAM

__all__ = [
    "AIB",
    "CAM",
    "FAMILIES",
    "IBA",
    "LIME",
    "LRP",
    "METHODS",
    "RIB",
    "TTA",
    "AblationCAM",
    "Captum",
    "Deconvolution",
    "DeepLift",
    "EigenCAM",
    "FeatureAblation",
    "Fuse",
    "GenericAttention",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientSHAP",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "IBMask",
    "InfoCAM",
    "InfoCAMPlus",
    "InputXGradient",
    "IntegratedGradients",
    "KernelSHAP",
    "LayerCAM",
    "Method",
    "Occlusion",
    "Pool",
    "Rollout",
    "Saliency",
    "ScoreCAM",
    "ShapleySampling",
    "Smooth",
    "SmoothGrad",
    "Statistics",
    "XGradCAM",
    "captum",
    "check_autocast",
    "estimate_statistics",
    "resolve",
    "untrained",
]
