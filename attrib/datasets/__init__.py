"""Pictures with ground truth: rendered scenes and the field's data sets."""

from attrib.datasets.coco import COCO
from attrib.datasets.crops import random_crop
from attrib.datasets.cub import CUB, LabelledCUB
from attrib.datasets.digits import MarkedDigits, digits, marked_digits
from attrib.datasets.folder import Folder
from attrib.datasets.labelled import IGNORE, LabelledDataset, LabelledSample
from attrib.datasets.samples import BoxDataset, BoxSample
from attrib.datasets.scenes import Scene, Scenes, ScenesWithBoxes
from attrib.datasets.synthetic import RegionPictures, anchors, digit_rectangles, small_digits
from attrib.datasets.voc import VOC

__all__ = [
    "COCO",
    "CUB",
    "IGNORE",
    "VOC",
    "BoxDataset",
    "BoxSample",
    "Folder",
    "LabelledCUB",
    "LabelledDataset",
    "LabelledSample",
    "MarkedDigits",
    "RegionPictures",
    "Scene",
    "Scenes",
    "ScenesWithBoxes",
    "anchors",
    "digit_rectangles",
    "digits",
    "marked_digits",
    "random_crop",
    "small_digits",
]
