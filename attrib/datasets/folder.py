"""Any pictures in folders, shards or Parquet, labelled by a list, beside them, or by folders."""

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
    read_labels,
    refuse_repeats,
)
from attrib.datasets.label_png import read_mask
from attrib.datasets.labelled import LabelledSample
from attrib.datasets.stores import Store, open_store
from attrib.datasets.stores.places import SUFFIXES
from attrib.errors import InputError

__all__ = ["Folder", "UnlabelledFolder"]

COLUMNS = ("path", "file", "image", "id")
"""Headers of the column that names the picture; the first that occurs is meant."""


class Folder:
    """Pictures under a folder; an id is a picture's path within it, without the suffix.

    They may also lie in tar shards, in Parquet files or at a URL, see `open_store`: pictures that
    have the same paths there and the same list of labels are the same data set.

    A label is a class name, or a class index from 0 if it is no name and `classes` is given.

    Args:
        root: The folder, or `FOLDER/*.tar`, `FOLDER/*.parquet`, one such file, or the URL of any
            of them; paths are relative to it and stay within it.
        labels: `.csv` with the columns `path` (or `file`, `image`, `id`) and `label` or `labels`,
            several labels separated by `;`, other columns ignored; `.json` with
            `{path: [labels]}`; or None for what shards and Parquet files say themselves, else for
            the layout `root/CLASS/NAME.jpg`, where hidden files and folders, and files that are no
            pictures, are ignored.
        classes: The model's class names in order. None takes the names that occur, sorted.
        masks: Folder of `ID.png` that belong to the upright pictures: 0 background, class index
            + 1, 255 ignored. Or shards or a URL of such, as for `root`.

    Raises:
        InputError: a path that leads out of `root` or to no file, two pictures of one id, a label
            that is no class, or a damaged label file or shard.
        MissingExtraError: PyArrow, which reads Parquet, is not installed.
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
        store, source = open_store(root), root if labels is None else Path(labels)
        rows = (
            _own_labels(root, store)
            if labels is None
            else read_labels(Path(labels), columns=COLUMNS)
        )
        if not rows:
            raise InputError(f"{source} lists no pictures")
        self.name = f"folder {store.name}"
        self.labels = _names(rows, source) if classes is None else tuple(classes)
        self.category_ids = tuple(range(1, len(self.labels) + 1))
        self._masks = None if masks is None else _mask_store(masks, len(self.labels))
        whose = "the data set" if classes is None else "the model"
        found = class_indices(rows, self.labels, source, whose)
        paths = [inside(key, source) for key in found]
        refuse_repeats(map(_id, paths), source)
        places = [store.find(path) for path in paths]
        missing = [path for path, place in zip(paths, places, strict=True) if place is None]
        if missing:
            raise InputError(f"{source} lists files that do not exist: {few(missing)}")
        self._samples = [
            LabelledSample(id=_id(path), picture=place, labels=indices)
            for path, place, indices in zip(paths, places, found.values(), strict=True)
            if place is not None
        ]

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
        path = f"{self._samples[index].id}.png"
        found = self._masks.find(path)
        if found is None:
            raise InputError(f"there is no mask {path} in {self._masks.name}")
        return read_mask(found, len(self.labels))


class UnlabelledFolder:
    """All pictures under a folder, at any depth, sorted by path, as pictures without classes.

    Hidden files and folders, and files that are no pictures, are ignored.

    Args:
        root: A folder, shards or a URL, as for `Folder`.

    Raises:
        InputError: no pictures, two of one id, or a place that cannot be read.
        MissingExtraError: PyArrow, which reads Parquet, is not installed.
    """

    labels: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()

    def __init__(self, root: str | Path) -> None:
        store = open_store(root)
        paths = [inside(path, root) for path in sorted(store.paths()) if _is_shown(path)]
        refuse_repeats(map(_id, paths), root)
        places = [(path, place) for path in paths if (place := store.find(path)) is not None]
        if not places:
            raise InputError(f"{root} holds no pictures, files {', '.join(sorted(SUFFIXES))}")
        self.name = f"folder {store.name}"
        self._samples = [LabelledSample(id=_id(p), picture=place, labels=()) for p, place in places]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> LabelledSample:
        return self._samples[index]

    def mask(self, index: int) -> UInt8[Tensor, "H W"]:
        """Raise `InputError`: without classes there are no masks."""
        raise InputError(f"{self.name} is read without classes and has no masks; use Folder")


def _is_shown(path: str) -> bool:
    hidden = any(part.startswith(".") for part in PurePosixPath(path).parts)
    return _is_picture(path) and not hidden


def _mask_store(place: str | Path, classes: int) -> Store:
    if classes > MOST_CLASSES:
        raise InputError(f"masks tell at most {MOST_CLASSES} classes apart, got {classes} classes")
    try:
        return open_store(place)
    except InputError as error:
        raise InputError(f"masks is a folder of ID.png, or shards of such: {error}") from error


def _own_labels(root: str | Path, store: Store) -> dict[str, list[Label]]:
    """Take the classes that lie beside the pictures, or `CLASS/NAME.jpg`, sorted."""
    beside = store.labels()
    if beside:
        return beside
    folders = _class_folders(store)
    if not folders:
        raise InputError(f"{root} holds no folders named after classes; pass labels=, a CSV file")
    for folder, names in folders.items():
        if not names:
            raise InputError(
                f"{root}/{folder} holds no pictures; expected {root}/{folder}/NAME.jpg and so on"
            )
    return {f"{folder}/{name}": [folder] for folder in folders for name in folders[folder]}


def _class_folders(store: Store) -> dict[str, list[str]]:
    """List the pictures in each folder that is not hidden, sorted."""
    found: dict[str, list[str]] = {}
    for path in store.paths():
        folder, slash, name = path.partition("/")
        if slash and not folder.startswith("."):
            names = found.setdefault(folder, [])
            if "/" not in name and _is_picture(name):
                names.append(name)
    return {folder: sorted(found[folder]) for folder in sorted(found)}


def _names(rows: Mapping[str, Sequence[Label]], source: str | Path) -> tuple[str, ...]:
    found = {label for labels in rows.values() for label in labels}
    names = [label for label in found if isinstance(label, str)]
    if len(names) < len(found):
        raise InputError(f"{source} labels pictures by number; pass classes=, the names in order")
    return tuple(sorted(names))


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _id(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()
