"""Training: classifiers, attention and mask networks for them, and networks with attention."""

from attrib.fit.attention import AttentionConfig, fit_attention
from attrib.fit.average_precision import average_precision
from attrib.fit.classifier import fit_classifier
from attrib.fit.config import FitConfig
from attrib.fit.mask import MaskConfig, fit_mask
from attrib.fit.mask_model import fit_mask_model
from attrib.fit.mask_model_config import MaskModelConfig
from attrib.fit.network_config import NetworkConfig
from attrib.fit.networks import fit_network, load_features
from attrib.fit.soap import SOAP
from attrib.fit.timm_model import timm_classifier
from attrib.fit.top1 import top1_error

__all__ = [
    "SOAP",
    "AttentionConfig",
    "FitConfig",
    "MaskConfig",
    "MaskModelConfig",
    "NetworkConfig",
    "average_precision",
    "fit_attention",
    "fit_classifier",
    "fit_mask",
    "fit_mask_model",
    "fit_network",
    "load_features",
    "timm_classifier",
    "top1_error",
]
