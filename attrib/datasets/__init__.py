"""Pictures with ground truth: rendered scenes and the field's data sets."""

from attrib.datasets.cub import CUB
from attrib.datasets.labelled import IGNORE, LabelledDataset, LabelledSample
from attrib.datasets.samples import BoxDataset, BoxSample
from attrib.datasets.scenes import Scene, Scenes, ScenesWithBoxes

__all__ = [
    "CUB",
    "IGNORE",
    "BoxDataset",
    "BoxSample",
    "LabelledDataset",
    "LabelledSample",
    "Scene",
    "Scenes",
    "ScenesWithBoxes",
]
