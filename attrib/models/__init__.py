"""Any timm, torchvision or custom module, as a `SpatialClassifier`; names to models."""

from attrib.models.adl import ADL, adl_inserted, adl_places, insert_adl
from attrib.models.classifier import Features, SpatialClassifier, Stage
from attrib.models.gap import to_gap
from attrib.models.load import fingerprint, identity, load_model, load_weights, model_names
from attrib.models.output import Output
from attrib.models.split import spec_of, split

__all__ = [
    "ADL",
    "Features",
    "Output",
    "SpatialClassifier",
    "Stage",
    "adl_inserted",
    "adl_places",
    "fingerprint",
    "identity",
    "insert_adl",
    "load_model",
    "load_weights",
    "model_names",
    "spec_of",
    "split",
    "to_gap",
]
