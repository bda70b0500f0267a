"""Training: classifiers for seeds, and attention and mask networks for classifiers."""

from attrib.fit.attention import AttentionConfig, fit_attention
from attrib.fit.average_precision import average_precision
from attrib.fit.classifier import fit_classifier
from attrib.fit.config import FitConfig
from attrib.fit.mask import MaskConfig, fit_mask
from attrib.fit.timm_model import timm_classifier

__all__ = [
    "AttentionConfig",
    "FitConfig",
    "MaskConfig",
    "average_precision",
    "fit_attention",
    "fit_classifier",
    "fit_mask",
    "timm_classifier",
]
