"""The AIB paper's data sets as their archives unpack: CIFAR, SVHN, STL-10, CUB, folders or zips."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from attrib.datasets.cub import LabelledCUB
from attrib.datasets.picture_sets import InMemory, PictureSet, Squashed
from attrib.datasets.stores.places import SUFFIXES
from attrib.errors import InputError, MissingExtraError, UnknownNameError, in_one_line
from attrib.files import read_member, reading
from attrib.images import Picture, read_image

__all__ = ["picture_set", "split_folders"]

DIGITS = tuple("0123456789")


def picture_set(name: str, root: str | Path, split: str = "train") -> PictureSet:
    """Open one of the AIB paper's data sets, where torchvision or its archive left it.

    Args:
        name: `"cifar10"`, `"cifar100"`, `"svhn"`, `"stl10"` (root is what torchvision was given to
            download to), `"cub"` (root is `CUB_200_2011`; 224 pixels), or `"splits"` for a folder
            or zip of `SPLIT/CLASS/NAME.jpg`. Nothing is downloaded.
        root: Its folder or file.
        split: `"train"` or `"test"`; SVHN has `"extra"` too, `"splits"` whatever is there.

    Raises:
        UnknownNameError: another name.
        InputError: files are missing or damaged; says which are expected.
        MissingExtraError: torchvision reads SVHN through SciPy, which is not installed.
    """
    if name not in _READERS:
        raise UnknownNameError("data set", name, _READERS)
    return _READERS[name](Path(root), split)


def split_folders(root: str | Path, split: str = "train") -> InMemory:
    """Read pictures `SPLIT/CLASS/NAME.jpg`, all of one size, from a folder or a zip file.

    Args:
        root: The folder or file.
        split: Name of the uppermost folder.

    Raises:
        InputError: there are none, or they are of several sizes.
    """
    root = Path(root)
    files = _files(root, split)
    if not files:
        raise InputError(
            f"{root} holds no pictures {split}/CLASS/NAME.jpg; root is a folder or zip file of such"
        )
    pixels = [p.pixels for p in files.values()]
    sizes = {tuple(p.shape[1:]) for p in pixels}
    if len(sizes) > 1:
        raise InputError(f"pictures in {root} are of one size, got {sorted(sizes)[:4]}")
    folders = [PurePosixPath(name).parts[-2] for name in files]
    labels = tuple(sorted(set(folders)))
    return InMemory(
        name=f"{root.stem} {split}",
        labels=labels,
        pixels=torch.stack(pixels),
        classes=torch.tensor([labels.index(folder) for folder in folders]),
    )


def _files(root: Path, split: str) -> dict[str, Picture]:
    """Read what lies at `SPLIT/CLASS/NAME`, in the order of the names."""
    if root.is_dir():
        paths = sorted(p for p in root.glob(f"{split}/*/*") if p.suffix.lower() in SUFFIXES)
        return {p.relative_to(root).as_posix(): read_image(p) for p in paths}
    with reading(root), zipfile.ZipFile(root) as archive:
        names = sorted(name for name in archive.namelist() if _wanted(PurePosixPath(name), split))
        return {name: read_image(read_member(archive, name)) for name in names}


def _wanted(path: PurePosixPath, split: str) -> bool:
    return len(path.parts) == 3 and path.parts[0] == split and path.suffix.lower() in SUFFIXES


def _torchvision(
    title: str, kind: str, expected: str, options: Callable[[str], dict[str, Any]]
) -> Callable[[Path, str], InMemory]:
    def read(root: Path, split: str) -> InMemory:
        from torchvision import datasets

        try:
            found = getattr(datasets, kind)(str(root), download=False, **options(split))
        except ModuleNotFoundError as error:
            raise MissingExtraError(str(error.name), "digits") from error
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            cause = in_one_line(error, 200)
            raise InputError(
                f"{title} is not whole in {root} ({cause}); expected {root}/{expected} as "
                "torchvision leaves it there. Nothing is downloaded"
            ) from error
        classes = getattr(found, "targets", None)
        classes = found.labels if classes is None else classes
        pixels = torch.from_numpy(np.ascontiguousarray(found.data))
        channels_last = pixels.shape[-1] == 3 and pixels.shape[1] != 3
        return InMemory(
            name=f"{title} {split}",
            labels=tuple(getattr(found, "classes", DIGITS)),
            pixels=pixels.permute(0, 3, 1, 2).contiguous() if channels_last else pixels,
            classes=torch.as_tensor(np.asarray(classes)).long(),
        )

    return read


def _train_or_test(split: str) -> dict[str, Any]:
    if split not in ("train", "test"):
        raise InputError(f"CIFAR has the splits 'train' and 'test', got {split!r}")
    return {"train": split == "train"}


def _cub(root: Path, split: str) -> Squashed:
    return Squashed(LabelledCUB(root, split), (224, 224))  # type: ignore[arg-type]


_READERS: dict[str, Callable[[Path, str], PictureSet]] = {
    "cifar10": _torchvision("CIFAR-10", "CIFAR10", "cifar-10-batches-py", _train_or_test),
    "cifar100": _torchvision("CIFAR-100", "CIFAR100", "cifar-100-python", _train_or_test),
    "svhn": _torchvision("SVHN", "SVHN", "SPLIT_32x32.mat", lambda split: {"split": split}),
    "stl10": _torchvision("STL-10", "STL10", "stl10_binary", lambda split: {"split": split}),
    "cub": _cub,
    "splits": split_folders,
}
