"""Any folder of pictures, labelled by a CSV or JSON file or by the folders they lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from jaxtyping import UInt8
from torch import Tensor

from attrib.datasets.label_files import (
    MOST_CLASSES,
    Label,
    class_indices,
    few,
    inside,
    missing_files,
    read_labels,
    read_mask,
    refuse_repeats,
)
from attrib.datasets.labelled import LabelledSample
from attrib.errors import InputError

__all__ = ["Folder"]

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
"""Of files that count as pictures where no list names them."""

COLUMNS = ("path", "file", "image", "id")
"""Headers of the column that names the picture; the first that occurs is meant."""


class Folder:
    """Pictures under a folder; an id is a picture's path within it, without the suffix.

    A label is a class name, or a class index from 0 if it is no name and `classes` is given.

    Args:
        root: The folder; paths are relative to it and stay within it.
        labels: `.csv` with the columns `path` (or `file`, `image`, `id`) and `label` or `labels`,
            several labels separated by `;`, other columns ignored; `.json` with
            `{path: [labels]}`; or None for the layout `root/CLASS/NAME.jpg`, where hidden files
            and folders, and files that are no pictures, are ignored.
        classes: The model's class names in order. None takes the names that occur, sorted.
        masks: Folder of `ID.png` that belong to the upright pictures: 0 background, class index
            + 1, 255 ignored.

    Raises:
        InputError: a path that leads out of `root` or to no file, two pictures of one id, a label
            that is no class, or a damaged label file.
    """

    name: str
    labels: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __init__(
        self,
        root: str | Path,
        labels: str | Path | None = None,
        *,
        classes: Sequence[str] | None = None,
        masks: str | Path | None = None,
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root} is no folder; root is the folder that holds the pictures")
        source = root if labels is None else Path(labels)
        rows = _class_folders(root) if labels is None else read_labels(source, columns=COLUMNS)
        if not rows:
            raise InputError(f"{source} lists no pictures")
        self.name = f"folder {root.resolve().name}"
        self.labels = _names(rows, source) if classes is None else tuple(classes)
        self.category_ids = tuple(range(1, len(self.labels) + 1))
        self._masks = None if masks is None else Path(masks)
        self._check_masks()
        found = class_indices(rows, self.labels, source)
        self._samples = [_sample(root, key, indices, source) for key, indices in found.items()]
        refuse_repeats((sample.id for sample in self._samples), source)
        missing = missing_files((str(s.picture) for s in self._samples), Path())
        if missing:
            raise InputError(f"{source} lists files that do not exist: {few(missing)}")

    def _check_masks(self) -> None:
        if self._masks is None:
            return
        if not self._masks.is_dir():
            raise InputError(f"masks is a folder of ID.png, got {self._masks}, which is none")
        if len(self.labels) > MOST_CLASSES:
            raise InputError(
                f"masks tell at most {MOST_CLASSES} classes apart, got {len(self.labels)} classes"
            )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> LabelledSample:
        return self._samples[index]

    def mask(self, index: int) -> UInt8[Tensor, "H W"]:
        """Return the true mask: 0 background, 1 to C classes (index + 1), 255 ignored.

        Raises:
            InputError: `masks` was not given, or the mask is missing or damaged.
        """
        if self._masks is None:
            raise InputError(f"{self.name} has no masks; pass masks=, the folder that holds them")
        return read_mask(self._masks / f"{self._samples[index].id}.png", len(self.labels))


def _class_folders(root: Path) -> dict[str, list[Label]]:
    """List `root/CLASS/NAME.jpg`, sorted."""
    folders = [p for p in _visible(root) if p.is_dir()]
    if not folders:
        raise InputError(f"{root} holds no folders named after classes; pass labels=, a CSV file")
    rows: dict[str, list[Label]] = {}
    for folder in folders:
        names = [p.name for p in _visible(folder) if p.suffix.lower() in SUFFIXES]
        if not names:
            raise InputError(f"{folder} holds no pictures; expected {folder}/NAME.jpg and so on")
        rows |= {f"{folder.name}/{name}": [folder.name] for name in names}
    return rows


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _names(rows: Mapping[str, Sequence[Label]], source: Path) -> tuple[str, ...]:
    found = {label for labels in rows.values() for label in labels}
    names = [label for label in found if isinstance(label, str)]
    if len(names) < len(found):
        raise InputError(f"{source} labels pictures by number; pass classes=, the names in order")
    return tuple(sorted(names))


def _sample(root: Path, key: str, labels: tuple[int, ...], source: Path) -> LabelledSample:
    path = inside(key, source)
    name = PurePosixPath(path).with_suffix("").as_posix()
    return LabelledSample(id=name, picture=root / path, labels=labels)
