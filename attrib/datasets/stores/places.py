"""Files by path or URL: listed, opened, and read in part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from attrib.errors import InputError
from attrib.files import MAX_BYTES, reading

__all__ = ["SUFFIXES", "is_url", "matching", "opened", "part_of", "reached", "title_of", "whole"]

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
"""Of files that count as pictures where no list names them."""


def is_url(place: str | Path) -> bool:
    """Tell a URL such as `s3://bucket/pictures` from a path."""
    return isinstance(place, str) and "://" in place


def reached(url: str) -> tuple[Any, str]:
    """Return the fsspec file system that a URL is of, and the path on it.

    Raises:
        InputError: there is no such protocol, the package that speaks it is missing, or the URL
            is a chain of several.
    """
    from fsspec.core import url_to_fs

    if "::" in url:
        raise InputError(f"{url} is a chain of URLs; give one, of the place itself")
    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url} cannot be reached: {error}") from error
    return system, path


def matching(place: str | Path) -> list[str]:
    """List the files that a path or URL with or without `*` names, sorted, without hidden ones.

    Raises:
        InputError: there is none, or the place cannot be reached.
    """
    with reading(place):
        if is_url(place):
            system, path = reached(str(place))
            found = [system.unstrip_protocol(name) for name in system.glob(path)]
        else:
            local = Path(place)
            found = [str(p) for p in local.parent.glob(local.name) if p.is_file()]
    visible = sorted(name for name in found if not PurePosixPath(name).name.startswith("."))
    if not visible:
        raise InputError(f"there is no file {place}")
    return visible


@contextmanager
def opened(place: str) -> Iterator[Any]:
    """Open a path or URL as a stream of bytes for reading, anywhere in it."""
    if is_url(place):
        system, path = reached(place)
        with system.open(path, "rb") as stream:
            yield stream
    else:
        with open(place, "rb") as stream:
            yield stream


def part_of(place: str, start: int, size: int) -> bytes:
    """Read so many bytes of a path or URL from a place on; of a URL by one request.

    Raises:
        InputError: more than `MAX_BYTES` are asked for, or less is there.
    """
    if size > MAX_BYTES:
        raise InputError(f"it claims {size} bytes, more than {MAX_BYTES}")
    if is_url(place):
        system, path = reached(place)
        found: bytes = system.cat_file(path, start=start, end=start + size)
    else:
        with open(place, "rb") as stream:
            stream.seek(start)
            found = stream.read(size)
    if len(found) != size:
        raise InputError(f"it ends after {len(found)} of {size} bytes")
    return found


def whole(place: str) -> bytes:
    """Read all of a path or URL whose size is not known.

    Raises:
        InputError: it is larger than `MAX_BYTES`.
    """
    with opened(place) as stream:
        found: bytes = stream.read(MAX_BYTES + 1)
    if len(found) > MAX_BYTES:
        raise InputError(f"it is larger than {MAX_BYTES} bytes")
    return found


def title_of(place: str | Path) -> str:
    """Name a folder, or a file without its suffix, or for a pattern the folder it is about."""
    path = PurePosixPath(str(place).rstrip("/")) if is_url(place) else Path(place).resolve()
    if "*" in path.name:
        return path.parent.name
    return path.stem if path.suffix.lower() in (".tar", ".parquet") else path.name
