"""Training: classifiers for seeds, and attention for classifiers."""

from attrib.fit.attention import AttentionConfig, fit_attention
from attrib.fit.average_precision import average_precision
from attrib.fit.classifier import fit_classifier
from attrib.fit.config import FitConfig
from attrib.fit.timm_model import timm_classifier

__all__ = [
    "AttentionConfig",
    "FitConfig",
    "average_precision",
    "fit_attention",
    "fit_classifier",
    "timm_classifier",
]
