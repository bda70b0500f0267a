"""What holds pictures, whatever it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from attrib.datasets.label_files import Label
from attrib.datasets.stores.folders import LocalFolder, RemoteFolder
from attrib.datasets.stores.parquet import ParquetFiles
from attrib.datasets.stores.places import is_url
from attrib.datasets.stores.tar import TarShards
from attrib.files import Stored

__all__ = ["Store", "open_store"]


@runtime_checkable
class Store(Protocol):
    """Files by their paths in it, which have `/` and never lead out."""

    @property
    def name(self) -> str:
        """For reports: of its last folder, or of its one file."""

    def find(self, path: str) -> Path | Stored | None:
        """Return the file of that path, or None if there is none; nothing is read."""

    def paths(self) -> list[str]:
        """List all files."""

    def labels(self) -> dict[str, list[Label]]:
        """Return the classes of each picture that lie beside it; empty if none do.

        Raises:
            InputError: some pictures have them and some have not, or they cannot be read.
        """


def open_store(place: str | Path) -> Store:
    """Open a folder of files, tar shards or Parquet files, on this machine or at a URL.

    Args:
        place: A folder, or a path that ends in `.tar` or `.parquet` and may have `*` in its last
            part; or either as a URL of a protocol that fsspec knows, such as `s3://bucket/a/*.tar`.

    Raises:
        InputError: nothing is there, it is damaged or hostile, or the place cannot be reached.
        MissingExtraError: PyArrow, which reads Parquet, is not installed.
    """
    suffix = str(place).lower().rpartition(".")[2]
    if suffix == "tar":
        return TarShards(place)
    if suffix == "parquet":
        return ParquetFiles(place)
    return RemoteFolder(str(place)) if is_url(place) else LocalFolder(place)
