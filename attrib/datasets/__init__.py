"""Pictures with ground truth: rendered scenes and the field's data sets."""

from attrib.datasets.cub import CUB
from attrib.datasets.samples import BoxDataset, BoxSample
from attrib.datasets.scenes import Scene, Scenes, ScenesWithBoxes

__all__ = ["CUB", "BoxDataset", "BoxSample", "Scene", "Scenes", "ScenesWithBoxes"]
