"""Pictures with ground truth: rendered scenes and the field's data sets."""

from attrib.datasets.box_list import BoxList
from attrib.datasets.coco import COCO
from attrib.datasets.crops import random_crop
from attrib.datasets.cub import CUB, LabelledCUB
from attrib.datasets.digits import MarkedDigits, digits, marked_digits
from attrib.datasets.folder import Folder
from attrib.datasets.imagenet import ImageNetBoxes, TinyImageNet
from attrib.datasets.labelled import IGNORE, LabelledDataset, LabelledSample
from attrib.datasets.per_class import BoxedDataset, PerClass
from attrib.datasets.samples import BoxDataset, BoxSample
from attrib.datasets.scenes import Scene, Scenes, ScenesWithBoxes
from attrib.datasets.synthetic import RegionPictures, anchors, digit_rectangles, small_digits
from attrib.datasets.voc import VOC
from attrib.datasets.wsol_metadata import WsolMetadata

__all__ = [
    "COCO",
    "CUB",
    "IGNORE",
    "VOC",
    "BoxDataset",
    "BoxList",
    "BoxSample",
    "BoxedDataset",
    "Folder",
    "ImageNetBoxes",
    "LabelledCUB",
    "LabelledDataset",
    "LabelledSample",
    "MarkedDigits",
    "PerClass",
    "RegionPictures",
    "Scene",
    "Scenes",
    "ScenesWithBoxes",
    "TinyImageNet",
    "WsolMetadata",
    "anchors",
    "digit_rectangles",
    "digits",
    "marked_digits",
    "random_crop",
    "small_digits",
]
