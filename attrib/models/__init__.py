"""Any timm, torchvision or custom module, as a `SpatialClassifier`."""

from attrib.models.classifier import Features, SpatialClassifier, Stage
from attrib.models.split import spec_of, split

__all__ = ["Features", "SpatialClassifier", "Stage", "spec_of", "split"]
