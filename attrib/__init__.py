"""Tells where a pretrained image classifier looked.

import attrib

e = attrib.explain(model, "bird.jpg", method="infocam+")
e.heatmap, e.box, e.mask, e.label
e.save("bird.png")
"""

from importlib.metadata import version as _version

from attrib.compare import Comparison, compare
from attrib.errors import AttribError, AttribWarning
from attrib.explain import Explainer, explain
from attrib.explanation import Explanation
from attrib.images import read_image
from attrib.localize import localize
from attrib.methods import METHODS, Method
from attrib.models import SpatialClassifier, load_model, split, to_gap
from attrib.types import Attribution, Frame, Localization, ModelSpec, Targets

__version__ = _version("attrib")

__all__ = [
    "METHODS",
    "AttribError",
    "AttribWarning",
    "Attribution",
    "Comparison",
    "Explainer",
    "Explanation",
    "Frame",
    "Localization",
    "Method",
    "ModelSpec",
    "SpatialClassifier",
    "Targets",
    "compare",
    "explain",
    "load_model",
    "localize",
    "read_image",
    "split",
    "to_gap",
]
