"""Data sets in the layout of the field's standard evaluator: text files that list a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from attrib.datasets.label_files import class_number, few, inside, read_text, refuse_repeats
from attrib.datasets.labelled import IGNORE
from attrib.datasets.samples import BoxSample
from attrib.errors import InputError
from attrib.metrics.wsol_batch import square_masks

__all__ = ["WsolMetadata"]

SQUARE = 224
"""Side to which the evaluator brings every mask."""


class WsolMetadata:
    """A split listed by `image_ids.txt`, `class_labels.txt` and `localization.txt`.

    The last has lines `id,x0,y0,x1,y1`, one per box, as for ImageNet and CUB; or `id,mask,ignore`
    with paths of grey pictures, one per object, as for OpenImages30k. Boxes are used as they stand
    there. A pixel is object where any mask is not 0 in 8 bits of grey, else ignored where the
    ignore picture is not 0. Masks of one picture that differ in size are brought to the
    evaluator's square, 224 x 224, by nearest pixels. `image_sizes.txt` is not needed.

    Args:
        root: Folder that ids are relative to.
        metadata: Folder of the lists, e.g. `metadata/OpenImages/test`.
        masks: Folder that mask paths are relative to; `root` if None.
        classes: The model's class names in order; None leaves the classes without names.

    Raises:
        InputError: a list is missing or damaged, or the lists do not fit together.
    """

    def __init__(
        self,
        root: str | Path,
        metadata: str | Path,
        *,
        masks: str | Path | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        folder = Path(metadata)
        self.name = f"{folder.resolve().parent.name} {folder.resolve().name}"
        self.labels: tuple[str, ...] = () if classes is None else tuple(classes)
        self._root, self._masks = Path(root), Path(root if masks is None else masks)
        self._ids = [row[0] for row in _rows(folder / "image_ids.txt", (1,))]
        refuse_repeats(self._ids, folder / "image_ids.txt")
        labels = dict(_rows(folder / "class_labels.txt", (2,)))
        self._objects: dict[str, list[list[str]]] = {}
        for name, *rest in _rows(folder / "localization.txt", (3, 5)):
            self._objects.setdefault(name, []).append(rest)
        missing = [name for name in self._ids if name not in labels or name not in self._objects]
        if missing or not self._ids:
            raise InputError(f"{folder} has no class or no object for {few(missing) or 'any id'}")
        self._labels = {name: _index(labels[name], folder, len(self.labels)) for name in self._ids}

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> BoxSample:
        name = self._ids[index]
        objects = self._objects[name]
        boxed = len(objects[0]) == 4
        return BoxSample(
            id=name,
            picture=self._root / inside(name, "image_ids.txt"),
            label=self._labels[name],
            boxes=torch.tensor([_box(row, name) for row in objects] if boxed else []).view(-1, 4),
            mask=None if boxed else self._mask(name, objects),
        )

    def _mask(self, name: str, objects: list[list[str]]) -> UInt8[Tensor, "H W"]:
        """Unite the masks of a picture's objects; ignored is what only the last column has."""
        paths = [row[0] for row in objects] + [path for path in objects[0][1:] if path]
        planes = [_plane(self._masks / inside(path, name)) for path in paths]
        if len({plane.shape for plane in planes}) == 1:
            marked = torch.stack(planes) > 0
        else:
            marked = square_masks(planes, SQUARE, torch.device("cpu")) > 0
        united, ignored = marked[: len(objects)].any(0), marked[len(objects) :].any(0)
        return torch.where(united, 1, torch.where(ignored, IGNORE, 0)).to(torch.uint8)


def _rows(path: Path, columns: tuple[int, ...]) -> list[list[str]]:
    rows = [
        [cell.strip() for cell in line.split(",")] for line in read_text(path).splitlines() if line
    ]
    for row in rows:
        if len(row) not in columns or not row[0]:
            wanted = " or ".join(map(str, columns))
            raise InputError(f"{path} has the line {','.join(row)!r}; expected {wanted} columns")
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"{path} mixes boxes and masks")
    return rows


def _index(text: str, source: Path, classes: int) -> int:
    label = class_number(text)
    if label is None or (classes and label >= classes):
        known = f"from 0 to {classes - 1}" if classes else "from 0"
        raise InputError(
            f"{source / 'class_labels.txt'}: a class is an index {known}, got {text[:40]!r}"
        )
    return label


def _box(row: list[str], name: str) -> list[float]:
    try:
        return [float(value) for value in row]
    except ValueError:
        raise InputError(f"a box of {name} is 4 numbers, got {','.join(row)!r}") from None


def _plane(path: Path) -> UInt8[Tensor, "H W"]:
    """Read 8 bits of grey; of 16 the upper ones, as OpenCV does."""
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith("I")
            plane = np.array(image) >> 8 if deep else np.array(image.convert("L"))
    except FileNotFoundError:
        raise InputError(f"there is no mask {path}") from None
    except Exception as error:  # Pillow's plugins raise whatever damaged data leads to
        raise InputError(f"cannot read the mask {path}: {error}") from None
    return torch.from_numpy(plane.astype(np.uint8))
