"""CUB-200-2011 in its original layout: birds, one box each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from attrib.datasets.label_files import inside, read_text
from attrib.datasets.labelled import LabelledSample
from attrib.datasets.samples import BoxSample
from attrib.errors import InputError

__all__ = ["CUB", "LabelledCUB"]

Split = Literal["train", "test"]


class CUB:
    """Caltech-UCSD Birds, read from the folder that the authors' archive unpacks to.

    Subsets work as they are: only pictures listed in `images.txt` are read, and classes are
    numbered from 0 in the order of `classes.txt`.

    Args:
        root: Folder with `images.txt`, `classes.txt`, `image_class_labels.txt`,
            `bounding_boxes.txt`, `train_test_split.txt` and `images/`.
        split: `"train"` or `"test"`.

    Raises:
        InputError: a list is missing, damaged, or does not cover every picture.
    """

    def __init__(self, root: str | Path, split: Split = "test") -> None:
        if split not in ("train", "test"):
            raise InputError(f"CUB has the splits 'train' and 'test', got {split!r}")
        self.name = f"CUB-200-2011 {split}"
        self._root = Path(root)
        classes = self._table("classes.txt")
        index = {key: i for i, key in enumerate(classes)}
        paths, labels = self._table("images.txt"), self._table("image_class_labels.txt")
        boxes, training = self._table("bounding_boxes.txt"), self._table("train_test_split.txt")
        self._samples = []
        try:
            self.labels: tuple[str, ...] = tuple(name for (name,) in classes.values())
            for key, (path,) in paths.items():
                (trains,) = training[key]
                if (trains == "1") == (split == "train"):
                    (label,), (x, y, w, h) = labels[key], map(float, boxes[key])
                    sample = (inside(path, "images.txt"), index[label], [x, y, x + w, y + h])
                    self._samples.append(sample)
        except InputError:
            raise
        except (KeyError, ValueError) as error:
            raise InputError(f"the lists in {root} do not fit together: {error!r}") from None
        if not self._samples:
            raise InputError(f"the lists in {root} have no pictures to {split}")

    def _table(self, name: str) -> dict[str, list[str]]:
        path = self._root / name
        try:
            lines = read_text(path).splitlines()
        except InputError as error:
            raise InputError(
                f"{error}; root is the folder CUB_200_2011 that holds images.txt and images/"
            ) from None
        return {key: rest for key, *rest in (line.split() for line in lines if line.strip())}

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> BoxSample:
        path, label, box = self._samples[index]
        return BoxSample(
            id=path,
            picture=self._root / "images" / path,
            label=label,
            boxes=torch.tensor([box]),
        )


class LabelledCUB:
    """CUB as pictures with a class each, to train on; it has no masks.

    Args:
        root: As for `CUB`.
        split: `"train"` or `"test"`.
    """

    def __init__(self, root: str | Path, split: Split = "train") -> None:
        self._boxes = CUB(root, split)
        self._root = Path(root) / "images"
        self.name, self.labels = self._boxes.name, self._boxes.labels
        self.category_ids = tuple(range(1, len(self.labels) + 1))

    def __len__(self) -> int:
        return len(self._boxes)

    def __getitem__(self, index: int) -> LabelledSample:
        sample = self._boxes[index]
        path = Path(sample.id)
        return LabelledSample(
            id=path.with_suffix("").as_posix(), picture=self._root / path, labels=(sample.label,)
        )

    def mask(self, index: int) -> UInt8[Tensor, "H W"]:
        """Raise, as there is none."""
        raise InputError(f"{self.name} has boxes and no masks")
