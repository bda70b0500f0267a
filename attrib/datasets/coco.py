"""COCO 2014 and 2017 instances: 80 classes, masks painted from outlines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from attrib.datasets.label_files import MOST_CLASSES, inside, read_json, refuse_repeats
from attrib.datasets.labelled import IGNORE, LabelledSample
from attrib.errors import InputError, MissingExtraError
from attrib.images import MAX_PIXELS

__all__ = ["COCO"]


class COCO:
    """COCO, read from `annotations/instances_SPLIT.json` and the pictures in `SPLIT/`.

    Classes are numbered from 0 in ascending order of COCO's ids, which have gaps: 1 to 90 for
    the 80 classes. A picture's labels are the classes with at least one annotation in it, crowds
    included; there may be none. Pictures are in the order of the file, and missing ones are only
    noticed when they are read. An id is the file's name without its suffix.

    Args:
        root: Folder with `annotations/` and `SPLIT/`.
        split: `"train2017"`, `"val2017"`, `"train2014"`, `"val2014"` or any other of that layout.
        annotations: The JSON file, if it lies elsewhere.

    Raises:
        InputError: the JSON file or the folder of pictures is missing, the file is damaged, or
            names a picture outside the folder.
    """

    name: str
    labels: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __init__(
        self,
        root: str | Path,
        split: str = "val2017",
        *,
        annotations: str | Path | None = None,
    ) -> None:
        self.name = f"COCO {split}"
        self._folder = Path(root) / split
        path = Path(root, "annotations", f"instances_{split}.json")
        path = path if annotations is None else Path(annotations)
        content = read_json(path)
        if not self._folder.is_dir():
            raise InputError(f"there is no folder {self._folder}; it holds the pictures")
        try:
            self._images = [_image(entry, path) for entry in content["images"]]
            names = {category["id"]: category["name"] for category in content["categories"]}
            refuse_repeats((str(category["id"]) for category in content["categories"]), path)
            refuse_repeats((str(image.number) for image in self._images), path)
            self.category_ids = tuple(sorted(names))
            self.labels = tuple(names[i] for i in self.category_ids)
            self._objects = _objects(content["annotations"], self._images, self.category_ids)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"the lists in {path} do not fit together ({error!r}); expected COCO's instances"
            ) from None
        if not self._images:
            raise InputError(f"{path} lists no pictures")
        refuse_repeats((image.id for image in self._images), path)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> LabelledSample:
        image = self._images[index]
        return LabelledSample(
            id=image.id,
            picture=self._folder / image.file,
            labels=tuple(sorted({item.label for item in self._objects[image.number]})),
        )

    def image_id(self, index: int) -> int:
        """Return COCO's own number of a picture."""
        return self._images[index].number

    def boxes(self, index: int) -> dict[int, Float[Tensor, "m 4"]]:
        """Return the boxes of each class, half-open; crowds are left out.

        Raises:
            InputError: an annotation has no box.
        """
        image, found = self._images[index], dict[int, list[list[float]]]()
        for item in self._objects[image.number]:
            if not item.crowd:
                found.setdefault(item.label, []).append(_corners(item.box, image.id))
        return {label: torch.tensor(boxes) for label, boxes in sorted(found.items())}

    def mask(self, index: int) -> UInt8[Tensor, "H W"]:
        """Paint the true mask: 0 background, 1 to C classes (index + 1), 255 crowds.

        Crowds are painted first, then the objects from the largest to the smallest by their own
        pixels, equal ones in the order of the file. So small objects stay visible and a crowd is
        ignored only where no object lies. Outlines of fewer than three points cover nothing.

        Raises:
            InputError: an outline is missing or damaged, or there are too many classes for a mask.
            MissingExtraError: pycocotools is not installed.
        """
        if len(self.labels) > MOST_CLASSES:
            raise InputError(
                f"masks tell at most {MOST_CLASSES} classes apart, {self.name} has "
                f"{len(self.labels)} classes"
            )
        image = self._images[index]
        size = (image.height, image.width)
        items = self._objects[image.number]
        covers = [_cover(item.outline, size, image.id) for item in items]
        painted = np.zeros(size, np.uint8)
        order = sorted(range(len(items)), key=lambda i: (not items[i].crowd, -int(covers[i].sum())))
        for i in order:
            painted[covers[i]] = IGNORE if items[i].crowd else items[i].label + 1
        return torch.from_numpy(painted)


class _Image(NamedTuple):
    number: int
    id: str
    file: str
    height: int
    width: int


class _Object(NamedTuple):
    label: int
    crowd: bool
    box: Any  # x, y, width, height
    outline: Any  # polygons, or a dict with run lengths; COCO's own


def _image(entry: dict[str, Any], source: Path) -> _Image:
    file = inside(entry["file_name"], source)
    name = PurePosixPath(file).with_suffix("").as_posix()
    height, width = entry["height"], entry["width"]
    if not (type(height) is type(width) is int and 0 < height * width <= MAX_PIXELS) or height < 1:
        raise InputError(
            f"{source}: height and width of {file} are pixels, {MAX_PIXELS} together at most; got "
            f"{str(height)[:20]} and {str(width)[:20]}"
        )
    return _Image(entry["id"], name, file, height, width)


def _objects(
    annotations: list[dict[str, Any]], images: Sequence[_Image], category_ids: Sequence[int]
) -> dict[int, list[_Object]]:
    index = {number: i for i, number in enumerate(category_ids)}
    found: dict[int, list[_Object]] = {image.number: [] for image in images}
    for a in annotations:
        label, crowd = index[a["category_id"]], bool(a.get("iscrowd"))
        item = _Object(label, crowd, a.get("bbox"), a.get("segmentation"))
        found[a["image_id"]].append(item)
    return found


def _corners(box: Any, picture: str) -> list[float]:
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError):
        raise InputError(f"a box in {picture} is 4 numbers in COCO's files, got {box!r}") from None
    return [x, y, x + width, y + height]


def _cover(outline: Any, size: tuple[int, int], picture: str) -> NDArray[np.bool_]:
    """Return the pixels `[H, W]` that polygons or run lengths cover."""
    try:
        runs = _merged(outline, size) if isinstance(outline, list) else outline
        if tuple(runs["size"]) != size:
            raise ValueError(f"its size is {runs['size']}, the picture's {size}")
        counts = runs["counts"]
        counts = counts if isinstance(counts, list) else _unpacked(counts)
        if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
            raise ValueError(f"its run lengths do not fill the picture of size {size}")
        values = np.arange(len(counts)) % 2 == 1
        return np.repeat(values, counts).reshape(size[::-1]).T
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the outline of an object in {picture} cannot be used: {error}") from None


def _merged(polygons: list[list[float]], size: tuple[int, int]) -> dict[str, Any]:
    """Return the run lengths of the pixels in any polygon."""
    try:
        from pycocotools import mask as rle
    except ImportError:
        raise MissingExtraError("pycocotools", "coco") from None
    areas = [points for points in polygons if len(points) >= 6]
    for points in areas:
        values = np.asarray(points, float)
        # pycocotools overflows on corners far away and takes an odd number for something else
        if values.ndim != 1 or len(values) % 2 or not (np.abs(values) <= 2 * max(size)).all():
            raise ValueError("a polygon is a list x0, y0, x1, y1, ... in and about the picture")
    if not areas:
        return {"size": size, "counts": [size[0] * size[1]]}
    return dict(rle.merge(rle.frPyObjects(areas, *size)))


def _unpacked(packed: str | bytes) -> list[int]:
    """Read run lengths from text: 5 bits a character, low ones first, bit 6 says "more follows".

    From the fourth on, a number is the difference to the length two before. Decoding here, not by
    pycocotools, since it fills the rest of a too short text with whatever is in memory.
    """
    counts: list[int] = []
    value = shift = 0
    for character in packed.encode() if isinstance(packed, str) else packed:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError(f"its run lengths have the character {chr(character)!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # the sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
