"""Training classifiers for seeds."""

from attrib.fit.average_precision import average_precision
from attrib.fit.classifier import fit_classifier
from attrib.fit.config import FitConfig
from attrib.fit.timm_model import timm_classifier

__all__ = ["FitConfig", "average_precision", "fit_classifier", "timm_classifier"]
