"""Data sets in the layout of the field's standard evaluator: text files that list a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from attrib.datasets.label_files import class_number, few, inside, read_text, refuse_repeats
from attrib.datasets.labelled import IGNORE
from attrib.datasets.samples import BoxSample
from attrib.errors import InputError

__all__ = ["WsolMetadata"]


class WsolMetadata:
    """A split listed by `image_ids.txt`, `class_labels.txt` and `localization.txt`.

    The last has lines `id,x0,y0,x1,y1`, one per box, as for ImageNet and CUB; or `id,mask,ignore`
    with paths of grey pictures, one per object, as for OpenImages30k. Boxes are used as they stand
    there. A pixel is object where any mask has more than half of its own maximum, else ignored
    where the ignore picture does. `image_sizes.txt` is not needed.

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
        united = np.any([self._half(row[0], name) for row in objects], axis=0)
        ignored = self._half(objects[0][1], name) if objects[0][1] else np.zeros_like(united)
        if united.shape != ignored.shape:
            raise InputError(f"the masks of {name} differ in size: {united.shape}, {ignored.shape}")
        return torch.from_numpy(np.where(united, 1, np.where(ignored, IGNORE, 0)).astype(np.uint8))

    def _half(self, path: str, name: str) -> NDArray[np.bool_]:
        plane = _plane(self._masks / inside(path, name))
        half: NDArray[np.bool_] = plane > plane.max() / 2
        return half


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


def _plane(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.array(image.convert("L"))
    except FileNotFoundError:
        raise InputError(f"there is no mask {path}") from None
    except Exception as error:  # Pillow's plugins raise whatever damaged data leads to
        raise InputError(f"cannot read the mask {path}: {error}") from None
