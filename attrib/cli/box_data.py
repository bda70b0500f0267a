"""Data sets with boxes or masks of objects, by the names they have on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attrib.datasets import BoxDataset

__all__ = ["BOX_DATASETS", "SCORED", "BoxSource"]

SCORED = {
    "scenes": "test",
    "cub": "test",
    "tiny-imagenet": "val",
    "metadata": "test",
    "voc": "val",
    "coco": "val2017",
}
"""The part of each data set that is scored where no other is named."""


@dataclass(frozen=True, kw_only=True)
class BoxSource:
    """What the command line says about a data set.

    Args:
        name: One of `BOX_DATASETS`.
        root: Its folder; of `boxes` also shards or a URL.
        annotations: A file or folder of boxes that does not lie in `root`.
        masks: Folder of masks.
        classes: The model's class names.
    """

    name: str
    root: str | Path | None = None
    annotations: Path | None = None
    masks: Path | None = None
    classes: Sequence[str] | None = None

    def open(self, split: str | None) -> BoxDataset:
        """Open the data set, or another split of it.

        Raises:
            UnknownNameError: no data set has that name.
            InputError: an option is missing or not for this data set, or files cannot be used.
        """
        from attrib.errors import InputError, UnknownNameError

        if self.name not in BOX_DATASETS:
            raise UnknownNameError("data set", self.name, BOX_DATASETS)
        make, needs, takes = BOX_DATASETS[self.name]
        for option in ("root", "annotations", "masks"):
            given = getattr(self, option) is not None
            if option in needs and not given:
                raise InputError(f"--dataset {self.name} needs --{option} {needs[option]}")
            if given and option not in needs and option not in takes:
                raise InputError(f"--{option} is not for --dataset {self.name}")
        return make(self, split or SCORED.get(self.name, ""))


def _scenes(source: BoxSource, split: str) -> BoxDataset:
    from attrib.datasets import Scenes, ScenesWithBoxes
    from attrib.errors import UnknownNameError

    seeds = {"test": 1, "val": 2}
    if split not in seeds:
        raise UnknownNameError("split of scenes", split, seeds)
    return ScenesWithBoxes(Scenes(length=200, size=192, seed=seeds[split]), name=f"scenes {split}")


def _cub(source: BoxSource, split: str) -> BoxDataset:
    from attrib.datasets import CUB

    return CUB(_path(source.root), split)  # type: ignore[arg-type]


def _tiny_imagenet(source: BoxSource, split: str) -> BoxDataset:
    from attrib.datasets import TinyImageNet

    return TinyImageNet(_path(source.root), split, classes=source.classes)


def _imagenet(source: BoxSource, split: str) -> BoxDataset:
    from attrib.datasets import ImageNetBoxes
    from attrib.errors import InputError

    if split:
        raise InputError("imagenet has no --split; --root and --annotations name its folders")
    return ImageNetBoxes(_path(source.root), _path(source.annotations), classes=source.classes)


def _metadata(source: BoxSource, split: str) -> BoxDataset:
    from attrib.datasets import WsolMetadata

    folder = _path(source.annotations) / split
    return WsolMetadata(_path(source.root), folder, masks=source.masks, classes=source.classes)


def _voc(source: BoxSource, split: str) -> BoxDataset:
    from attrib.datasets import VOC, PerClass

    masks = source.masks is not None
    return PerClass(VOC(_path(source.root), split, masks=source.masks), masks=masks)


def _coco(source: BoxSource, split: str) -> BoxDataset:
    from attrib.datasets import COCO, PerClass

    return PerClass(COCO(_path(source.root), split, annotations=source.annotations))


def _boxes(source: BoxSource, split: str) -> BoxDataset:
    from attrib.datasets import BoxList

    file = Path(split) if split else _path(source.annotations)
    return BoxList(source.root or "", file, classes=source.classes)


def _path(path: str | Path | None) -> Path:
    return Path(path or "")  # what is needed has been asked for


BOX_DATASETS: dict[str, tuple[Callable[[BoxSource, str], BoxDataset], dict[str, str], set[str]]] = {
    "scenes": (_scenes, {}, set()),
    "cub": (_cub, {"root": "FOLDER, the folder CUB_200_2011"}, set()),
    "tiny-imagenet": (_tiny_imagenet, {"root": "FOLDER, the folder tiny-imagenet-200"}, set()),
    "imagenet": (
        _imagenet,
        {"root": "FOLDER of pictures", "annotations": "FOLDER of NAME.xml"},
        set(),
    ),
    "metadata": (
        _metadata,
        {"root": "FOLDER of pictures", "annotations": "FOLDER with a folder of lists per split"},
        {"masks"},
    ),
    "voc": (_voc, {"root": "FOLDER, the folder VOC2012"}, {"masks"}),
    "coco": (_coco, {"root": "FOLDER"}, {"annotations"}),
    "boxes": (
        _boxes,
        {"root": "FOLDER of pictures, shards or a URL", "annotations": "FILE.csv"},
        set(),
    ),
}
"""What opens each, the options it needs with what they are, and those it takes."""
