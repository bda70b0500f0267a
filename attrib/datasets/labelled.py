"""What every data set with classes per picture gives: a picture, its classes, perhaps a mask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from attrib.files import Stored

__all__ = ["IGNORE", "LabelledDataset", "LabelledSample", "digest"]

IGNORE = 255
"""In masks: a pixel that does not count."""


@dataclass(frozen=True, kw_only=True)
class LabelledSample:
    """One picture with its classes.

    Args:
        id: Unique in the data set; names the picture's output files, so it may hold `/` but is no
            absolute path and never leads upwards.
        picture: File to read, as it is or in a shard or at a URL.
        labels: Class indices from 0 without background, ascending; may be empty.
    """

    id: str
    picture: Path | Stored
    labels: tuple[int, ...]


@runtime_checkable
class LabelledDataset(Protocol):
    """A sequence of `LabelledSample`s with a name, class names and, where it has them, masks."""

    @property
    def name(self) -> str:
        """For reports, with the split."""

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per class index, without background."""

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Per class index, the number that the data set's own files use for it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledSample: ...

    def mask(self, index: int) -> UInt8[Tensor, "H W"]:
        """Return the true mask: 0 background, 1 to C classes (index + 1), 255 ignored.

        Raises:
            InputError: the data set has no mask for this picture, or it cannot be read.
        """


def digest(samples: Iterable[LabelledSample]) -> str:
    """Return 16 hex digits that change with any id, file name or classes, or their order."""
    lines = hashlib.sha256()
    for sample in samples:
        lines.update(f"{sample.id}\t{sample.picture.name}\t{sample.labels}\n".encode())
    return lines.hexdigest()[:16]
