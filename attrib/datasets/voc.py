"""PASCAL VOC segmentation in its original layout, also with the augmented lists and masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from attrib.datasets.annotation_xml import object_names, read_annotation
from attrib.datasets.label_files import (
    Label,
    class_indices,
    few,
    inside,
    read_label_vectors,
    read_labels,
    read_text,
    refuse_repeats,
)
from attrib.datasets.label_png import read_mask
from attrib.datasets.labelled import IGNORE, LabelledSample
from attrib.errors import InputError, nearest

__all__ = ["VOC", "LabelSource"]

LabelSource = Literal["file", "annotations", "masks"]

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


class VOC:
    """PASCAL VOC, 20 classes, read from the folder `VOC2012`.

    A picture's labels come from one source for the whole split: the file `labels` if given; else
    `Annotations/ID.xml` if there is a folder `Annotations` (every object counts, difficult ones
    too); else the classes that occur in the masks, which are then all read at once.
    `label_source` says which.

    A list has an id per line, or two columns as IRN's and DeepLab's have:
    `/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png`, relative to `root`. Masks
    are those of the folder `masks` if given, else those that the list names, else
    `SegmentationClass/ID.png`. Pictures and masks that nobody asks for may be missing.

    Args:
        root: Folder with `ImageSets`, `JPEGImages`, `SegmentationClass`; or the folder
            `VOCdevkit` if `VOC2012` is the only year in it.
        split: Name of a list in `ImageSets/Segmentation` or else `ImageSets/SegmentationAug`
            (`"train"`, `"val"`, `"trainval"`, `"train_aug"`, ...), or a file that ends in `.txt`.
        labels: `.json` with `{id: [names or indices from 0]}`; `.csv` with the header
            `id,labels`, labels separated by `;` or spaces; or IRN's `cls_labels.npy`. It may hold
            more pictures than the split.
        masks: Folder of `ID.png`, e.g. `SegmentationClassAug`.
        allow_pickle: Read `cls_labels.npy`, which runs the code in it.

    Raises:
        InputError: a list, annotation or label is missing or damaged, or a mask that the labels
            are read from is.
    """

    name: str
    label_source: LabelSource
    labels = CLASSES
    category_ids = tuple(range(1, len(CLASSES) + 1))

    def __init__(
        self,
        root: str | Path,
        split: str | Path = "train",
        *,
        labels: str | Path | None = None,
        masks: str | Path | None = None,
        allow_pickle: bool = False,
    ) -> None:
        root = _year_folder(Path(root))
        self._root = root
        path = _list_file(root, split)
        if masks is not None and not Path(masks).is_dir():
            raise InputError(f"masks is a folder of ID.png, got {masks}, which is none")
        self.name = f"{root.resolve().name.replace('VOC', 'VOC ')} {path.stem}"
        entries = list(_entries(path))
        if not entries:
            raise InputError(f"{path} lists no pictures")
        refuse_repeats((entry.id for entry in entries), path)
        self._masks = {
            entry.id: root / entry.mask if masks is None else Path(masks, f"{entry.id}.png")
            for entry in entries
        }
        rows: dict[str, list[Label]]
        if labels is not None:
            self.label_source = "file"
            rows = _from_file(Path(labels), list(self._masks), allow_pickle)
        elif (root / "Annotations").is_dir():
            self.label_source = "annotations"
            rows = {key: _annotated(root / "Annotations" / f"{key}.xml") for key in self._masks}
        else:
            self.label_source = "masks"
            rows = {key: _painted(mask) for key, mask in self._masks.items()}
        found = class_indices(rows, self.labels, labels or root)
        self._samples = [
            LabelledSample(id=e.id, picture=root / e.picture, labels=found[e.id]) for e in entries
        ]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> LabelledSample:
        return self._samples[index]

    def boxes(self, index: int) -> dict[int, Float[Tensor, "m 4"]]:
        """Read the boxes of each class, half-open, from `Annotations/ID.xml`, difficult ones too.

        Raises:
            InputError: the annotation is missing or damaged.
        """
        path = self._root / "Annotations" / f"{self._samples[index].id}.xml"
        _annotated(path)
        found: dict[int, list[list[float]]] = {}
        for name, (x0, y0, x1, y1) in read_annotation(path):  # counted from 1, ends included
            found.setdefault(CLASSES.index(name), []).append([x0 - 1, y0 - 1, x1, y1])
        return {label: torch.tensor(boxes) for label, boxes in found.items()}

    def mask(self, index: int) -> UInt8[Tensor, "H W"]:
        """Return the true mask: 0 background, 1 to 20 classes, 255 edges and hard objects.

        Raises:
            InputError: the mask is missing or damaged, or has other values.
        """
        return read_mask(self._masks[self._samples[index].id], len(self.labels))


class _Entry(NamedTuple):
    id: str
    picture: str
    mask: str


def _year_folder(root: Path) -> Path:
    years = sorted(path.name for path in root.glob("VOC20??") if path.is_dir())
    if years and years != ["VOC2012"]:
        raise InputError(f"{root} holds {few(years)}; pass the folder of one year")
    return root / "VOC2012" if years else root


def _list_file(root: Path, split: str | Path) -> Path:
    if isinstance(split, Path) or split.endswith(".txt"):
        return Path(split)
    folders = [root / "ImageSets" / name for name in ("Segmentation", "SegmentationAug")]
    for folder in folders:
        if (folder / f"{split}.txt").is_file():
            return folder / f"{split}.txt"
    known = sorted(path.stem for folder in folders for path in folder.glob("*.txt"))
    if not known:
        raise InputError(f"{folders[0]} holds no lists; root is the folder VOC2012")
    raise InputError(f"{root} has no split {split!r}{nearest(split, known)}")


def _entries(path: Path) -> Iterator[_Entry]:
    for line in read_text(path).splitlines():
        match line.split():
            case []:
                pass
            case [name]:
                key = inside(name, path)
                yield _Entry(key, f"JPEGImages/{key}.jpg", f"SegmentationClass/{key}.png")
            case [picture, mask] if mask.endswith(".png"):
                picture, mask = (inside(column.lstrip("/"), path) for column in (picture, mask))
                yield _Entry(Path(picture).stem, picture, mask)
            case _:
                raise InputError(
                    f"{path} has the line {line!r}; expected an id, or a picture and a mask"
                )


def _from_file(path: Path, ids: list[str], allow_pickle: bool) -> dict[str, list[Label]]:
    if path.suffix == ".npy":
        rows = read_label_vectors(path, len(CLASSES), allow_pickle=allow_pickle)
    else:
        rows = read_labels(path, columns=("id",), separator=r"[;\s]+")
    missing = [key for key in ids if key not in rows]
    if missing:
        raise InputError(f"{path} has no labels for {few(missing)}, which the split lists")
    return {key: rows[key] for key in ids}


def _annotated(path: Path) -> list[Label]:
    names = object_names(path)
    for name in names:
        if name not in CLASSES:
            raise InputError(f"{path}: object {name!r} is no VOC class{nearest(name, CLASSES)}")
    return [*names]


def _painted(mask: Path) -> list[Label]:
    values = read_mask(mask, len(CLASSES)).flatten().bincount().nonzero().flatten().tolist()
    return [value - 1 for value in values if value not in (0, IGNORE)]
