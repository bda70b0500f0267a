"""Gradients of pixels, perturbed pictures, and what Captum has besides."""

from attrib.methods.baselines.anything import Captum, captum
from attrib.methods.baselines.gradients import (
    GradientSHAP,
    InputXGradient,
    IntegratedGradients,
    Saliency,
)
from attrib.methods.baselines.noise import SmoothGrad
from attrib.methods.baselines.perturbations import (
    LIME,
    FeatureAblation,
    KernelSHAP,
    Occlusion,
    ShapleySampling,
)
from attrib.methods.baselines.rectified import (
    LRP,
    Deconvolution,
    DeepLift,
    GuidedBackprop,
    GuidedGradCAM,
)

__all__ = [
    "LIME",
    "LRP",
    "Captum",
    "Deconvolution",
    "DeepLift",
    "FeatureAblation",
    "GradientSHAP",
    "GuidedBackprop",
    "GuidedGradCAM",
    "InputXGradient",
    "IntegratedGradients",
    "KernelSHAP",
    "Occlusion",
    "Saliency",
    "ShapleySampling",
    "SmoothGrad",
    "captum",
]
