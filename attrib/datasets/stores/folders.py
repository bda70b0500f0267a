"""Folders of files, on this machine or at a URL."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from attrib.datasets.label_files import Label
from attrib.datasets.stores.places import part_of, reached, title_of, whole
from attrib.errors import InputError
from attrib.files import reading

__all__ = ["LocalFolder", "RemoteFile", "RemoteFolder"]


class LocalFolder:
    """A folder of this machine.

    Args:
        root: The folder.

    Raises:
        InputError: there is none.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        if not self._root.is_dir():
            raise InputError(f"{root} is no folder; give the folder that holds the files")
        self.name = title_of(self._root)

    def find(self, path: str) -> Path | None:
        """Return the path of a file."""
        return self._root / path if os.path.isfile(self._root / path) else None

    def paths(self) -> list[str]:
        """List all files; links are followed. Empty folders are there too, with `/` at the end."""
        found = []
        for place, folders, names in os.walk(self._root, followlinks=True):
            within = Path(place).relative_to(self._root)
            found += [(within / name).as_posix() for name in names]
            if not folders and not names:
                found.append(f"{within.as_posix()}/")
        return found

    def labels(self) -> dict[str, list[Label]]:
        """Return nothing: classes of plain files are in lists or in the names of folders."""
        return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file at a URL.

    Args:
        url: All of it.
        path: In its folder.
        size: In bytes; None if the place does not say.
    """

    url: str
    path: str
    size: int | None

    @property
    def name(self) -> str:
        """Its own name."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return self.url

    def fetch(self) -> bytes:
        """Read it, by one request if its size is known."""
        with reading(str(self)):
            return whole(self.url) if self.size is None else part_of(self.url, 0, self.size)


class RemoteFolder:
    """A folder at a URL that can list what it holds; it is listed once.

    Args:
        root: URL of a protocol that fsspec knows.

    Raises:
        InputError: it cannot be reached, or lists no files.
    """

    def __init__(self, root: str) -> None:
        self.name = title_of(root)
        with reading(root):
            system, top = reached(root)
            found = system.find(top, detail=True)
            self._files = {
                path: RemoteFile(url=system.unstrip_protocol(full), path=path, size=entry["size"])
                for full, entry in found.items()
                if (path := full.removeprefix(top).lstrip("/"))
            }
        if not self._files:
            raise InputError(f"{root} lists no files; give a folder, or name shards: {root}/*.tar")

    def find(self, path: str) -> RemoteFile | None:
        """Return a file that was listed."""
        return self._files.get(path)

    def paths(self) -> list[str]:
        """List all files."""
        return list(self._files)

    def labels(self) -> dict[str, list[Label]]:
        """Return nothing: classes of plain files are in lists or in the names of folders."""
        return {}
