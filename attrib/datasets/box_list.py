"""Any pictures in folders, shards or Parquet, with a CSV file of boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from attrib.datasets.label_files import class_indices, few, inside, read_table
from attrib.datasets.samples import BoxSample
from attrib.datasets.stores import open_store
from attrib.errors import InputError

__all__ = ["BoxList"]

PICTURE = ("path", "file", "image", "id")
CORNERS = ("x0", "y0", "x1", "y1")
LIMIT = 2**31


class BoxList:
    """Pictures and boxes that a CSV file lists, a line per box: `path,label,x0,y0,x1,y1`.

    Lines of one picture and one class belong together; a picture with several classes comes once
    for each, its id then ends in `#` and the class's name. Corners are half-open, in source pixels.

    Args:
        root: Folder that paths are relative to; they stay within it. Or tar shards, Parquet files
            or a URL, see `Folder`.
        boxes: The CSV file. Its header names the columns `path` (or `file`, `image`, `id`), `label`
            and `x0,y0,x1,y1`, in any order; others are ignored.
        classes: The model's class names in order; labels are names or indices from 0. None takes
            the names that occur, sorted.

    Raises:
        InputError: a damaged file, a path that leads out of `root` or to no file, a label that is
            no class, or a box that is none.
    """

    def __init__(
        self, root: str | Path, boxes: str | Path, *, classes: Sequence[str] | None = None
    ) -> None:
        store, source = open_store(root), Path(boxes)
        rows = read_table(source, (PICTURE, ("label",), *((corner,) for corner in CORNERS)))
        if not rows:
            raise InputError(f"{source} lists no boxes")
        self.name = f"boxes {source.resolve().stem}"
        listed: dict[tuple[str, str], list[list[float]]] = {}
        for path, label, *corners in rows:
            listed.setdefault((inside(path, source), label), []).append(_box(corners, path, source))
        self.labels = (
            tuple(sorted({label for _, label in listed})) if classes is None else tuple(classes)
        )
        first = {label: path for path, label in reversed(listed)}  # whom an error names
        index = {
            label: class_indices({path: [label]}, self.labels, source)[path][0]
            for label, path in first.items()
        }
        self._samples = [(path, index[label], boxes) for (path, label), boxes in listed.items()]
        classes_of = Counter(path for path, _, _ in self._samples)
        self._shared = {path for path, count in classes_of.items() if count > 1}
        self._pictures = {path: found for path in classes_of if (found := store.find(path))}
        missing = [path for path in classes_of if path not in self._pictures]
        if missing:
            raise InputError(f"{source} lists files that do not exist: {few(missing)}")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> BoxSample:
        path, label, boxes = self._samples[index]
        return BoxSample(
            id=f"{path}#{self.labels[label]}" if path in self._shared else path,
            picture=self._pictures[path],
            label=label,
            boxes=torch.tensor(boxes),
        )


def _box(corners: list[str], path: str, source: Path) -> list[float]:
    try:
        x0, y0, x1, y1 = (float(value) for value in corners)
    except ValueError:
        x0 = x1 = y0 = y1 = 0.0
    if not (-LIMIT < x0 < x1 < LIMIT and -LIMIT < y0 < y1 < LIMIT):
        raise InputError(
            f"{source}: a box is x0 < x1 and y0 < y1, got {','.join(corners)!r} for {path}"
        )
    return [x0, y0, x1, y1]
