"""Any timm, torchvision or custom module, as a `SpatialClassifier`; names to models."""

from attrib.models.adl import ADL, adl_inserted, adl_places, insert_adl
from attrib.models.classifier import Features, SpatialClassifier, Stage
from attrib.models.evidence import ClassSum
from attrib.models.gap import to_gap
from attrib.models.given import ModelLike, Precision, as_classifier, under_autocast
from attrib.models.load import load_model, load_weights, model_names
from attrib.models.output import Output
from attrib.models.record import ModelRecord, fingerprint, identity, imprint
from attrib.models.split import Need, spec_of, split

__all__ = [
    "ADL",
    "ClassSum",
    "Features",
    "ModelLike",
    "ModelRecord",
    "Need",
    "Output",
    "Precision",
    "SpatialClassifier",
    "Stage",
    "adl_inserted",
    "adl_places",
    "as_classifier",
    "fingerprint",
    "identity",
    "imprint",
    "insert_adl",
    "load_model",
    "load_weights",
    "model_names",
    "spec_of",
    "split",
    "to_gap",
    "under_autocast",
]
