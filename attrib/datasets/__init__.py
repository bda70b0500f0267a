"""Pictures with ground truth: rendered scenes and the field's data sets."""

from attrib.datasets.batches import mean_colour, picture_batches
from attrib.datasets.box_list import BoxList
from attrib.datasets.coco import COCO
from attrib.datasets.crops import random_crop, random_shift
from attrib.datasets.cub import CUB, LabelledCUB
from attrib.datasets.digits import MarkedDigits, digits, marked_digits
from attrib.datasets.folder import Folder, UnlabelledFolder
from attrib.datasets.imagenet import ImageNetBoxes, TinyImageNet
from attrib.datasets.labelled import IGNORE, LabelledDataset, LabelledSample
from attrib.datasets.per_class import BoxedDataset, PerClass
from attrib.datasets.picture_files import picture_set, split_folders
from attrib.datasets.picture_sets import InMemory, PictureSet, Squashed, matched, resized
from attrib.datasets.samples import BoxDataset, BoxSample
from attrib.datasets.scenes import Scene, Scenes, ScenesWithBoxes
from attrib.datasets.synthetic import (
    RegionPictures,
    anchors,
    cifar10_rectangles,
    digit_rectangles,
    rectangles,
    small_digits,
)
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
    "InMemory",
    "LabelledCUB",
    "LabelledDataset",
    "LabelledSample",
    "MarkedDigits",
    "PerClass",
    "PictureSet",
    "RegionPictures",
    "Scene",
    "Scenes",
    "ScenesWithBoxes",
    "Squashed",
    "TinyImageNet",
    "UnlabelledFolder",
    "WsolMetadata",
    "anchors",
    "cifar10_rectangles",
    "digit_rectangles",
    "digits",
    "marked_digits",
    "matched",
    "mean_colour",
    "picture_batches",
    "picture_set",
    "random_crop",
    "random_shift",
    "rectangles",
    "resized",
    "small_digits",
    "split_folders",
]
