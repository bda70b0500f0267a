"""Parquet files with a row per picture: its path, its encoded bytes, perhaps its classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

from attrib.datasets.label_files import Label, inside
from attrib.datasets.stores.places import matching, opened, title_of
from attrib.errors import InputError, MissingExtraError
from attrib.files import MAX_BYTES, reading

__all__ = ["ParquetCell", "ParquetFiles"]

PICTURES = ("image", "picture", "jpg", "jpeg", "png", "webp", "bytes")
NAMES = ("path", "file", "file_name", "__key__", "id")
LABELS = ("labels", "label", "cls")
"""Columns; the first that occurs is meant."""
ROWS = 16
"""Of which names and classes are read at once: a small file can claim large ones."""

_one_reads = Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class ParquetCell:
    """A picture in a Parquet file.

    Args:
        file: Path or URL.
        path: As its row calls it.
        column: Where its bytes are, with a dot within a structure.
        group: Which row group.
        row: In the group.
    """

    file: str
    path: str
    column: str
    group: int
    row: int

    @property
    def name(self) -> str:
        """Its own name."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return f"{self.path} in {self.file} (row {self.row} of group {self.group})"

    def fetch(self) -> bytes:
        """Read its row group, the smallest part of the file that can be read, and keep it a while.

        Two are kept in a process.
        """
        with reading(str(self)), _one_reads:
            contents = _cells(self.file, self.group, self.column)[self.row]
            if contents is None:
                raise InputError("it is null")
            return contents


class ParquetFiles:
    """The pictures in one or several Parquet files.

    The first column of each kind that there is counts. Pictures: `image`, `picture`, `jpg`, `jpeg`,
    `png`, `webp` or `bytes`, of encoded bytes, or a structure of `bytes` and `path` as the library
    `datasets` writes. Paths: `path`, `file`, `file_name`, `__key__` or `id`, else the structure's.
    Classes: `labels`, `label` or `cls`, with a name, an index, or a list of such.

    Args:
        place: Path or URL of a file, perhaps with `*` in its last part.

    Raises:
        InputError: there is none, one is damaged or lacks a column, or has a path twice or one that
            leads out.
        MissingExtraError: PyArrow is not installed.
    """

    def __init__(self, place: str | Path) -> None:
        _pyarrow()
        self.name = title_of(place)
        self._cells: dict[str, ParquetCell] = {}
        self._labels: dict[str, list[Label]] = {}
        for file in matching(place):
            with reading(file), _parquet(file) as parquet:
                self._index(file, parquet)

    def find(self, path: str) -> ParquetCell | None:
        """Return a picture of any of the files."""
        return self._cells.get(path)

    def paths(self) -> list[str]:
        """List all pictures in the order of their rows."""
        return list(self._cells)

    def labels(self) -> dict[str, list[Label]]:
        """Return the classes of each picture; none if there is no such column."""
        return self._labels

    def _index(self, file: str, parquet: Any) -> None:
        picture, name, label = _columns(parquet.schema_arrow)
        wanted = [name] if label is None else [name, label]
        for group in range(parquet.num_row_groups):
            for row, entry in enumerate(_rows(parquet, group, wanted)):
                path = _path(entry[0], file)
                if path in self._cells:
                    raise InputError(f"it holds {path}, as {self._cells[path].file} does already")
                self._cells[path] = ParquetCell(
                    file=file, path=path, column=picture, group=group, row=row
                )
                if label is not None:
                    self._labels[path] = _classes(entry[1], path)


def _path(found: Any, file: str) -> str:
    if not isinstance(found, str | int):
        raise InputError(f"a path is text or a number, got {found!r}")
    return inside(str(found), file)


def _pyarrow() -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("PyArrow", "parquet") from None
    return parquet


@contextmanager
def _parquet(file: str) -> Iterator[Any]:
    with opened(file) as stream:
        yield _pyarrow().ParquetFile(stream)


def _columns(schema: Any) -> tuple[str, str, str | None]:
    """Return where pictures, their paths and, if anywhere, their classes are."""
    names = schema.names
    picture = next((name for name in PICTURES if name in names), None)
    if picture is None:
        raise InputError(f"it has no column {' or '.join(PICTURES)}, only {', '.join(names)}")
    kind = schema.field(picture).type
    fields = {kind.field(i).name for i in range(kind.num_fields)}
    name = next((n for n in NAMES if n in names), f"{picture}.path" if "path" in fields else None)
    if name is None:
        raise InputError(f"it has no column {' or '.join(NAMES)}, only {', '.join(names)}")
    label = next((n for n in LABELS if n in names), None)
    return (f"{picture}.bytes" if "bytes" in fields else picture), name, label


def _rows(parquet: Any, group: int, columns: list[str], at_once: int = ROWS) -> Iterator[list[Any]]:
    """Go through a row group, a few rows in memory at a time."""
    for batch in parquet.iter_batches(at_once, row_groups=[group], columns=columns):
        for row in batch.to_pylist():
            yield [_within(row, column) for column in columns]


def _within(row: dict[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    outer, _, inner = column.partition(".")
    return None if row[outer] is None else row[outer][inner]


def _classes(found: Any, path: str) -> list[Label]:
    many = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(label, str | int) and not isinstance(label, bool) for label in many):
        raise InputError(f"the classes of {path} are names or indices, got {found!r}")
    return many


@lru_cache(maxsize=2)
def _cells(file: str, group: int, column: str) -> list[bytes | None]:
    """Read all pictures of a row group; one by one, since few bytes can stand for many."""
    found, total = [], 0
    with _parquet(file) as parquet:
        for (contents,) in _rows(parquet, group, [column], 1):
            if not isinstance(contents, bytes | None):
                raise InputError(f"column {column} holds {type(contents).__name__}, not bytes")
            found.append(contents)
            total += len(contents or b"")
            if total > MAX_BYTES:
                raise InputError(f"row group {group} unpacks to more than {MAX_BYTES} bytes")
    return found
