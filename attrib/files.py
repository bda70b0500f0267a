"""Files that are whole or not there, and what is wrong with those that cannot be read."""

from __future__ import annotations

import gzip
import io
import math
import secrets
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from attrib.errors import AttribError, InputError, OutputError

__all__ = [
    "Stored",
    "array_header",
    "contents_of",
    "read_array",
    "read_arrays",
    "read_gzip",
    "read_member",
    "reading",
    "replacing",
    "writing",
]


@runtime_checkable
class Stored(Protocol):
    """A file in a shard or at a URL: small, can be pickled, and `str` of it says where it is."""

    @property
    def name(self) -> str:
        """Its own name, with suffix and without folders."""

    def fetch(self) -> bytes:
        """Read it.

        Raises:
            InputError: it is not there or cut short, or its place cannot be reached.
        """


MAX_BYTES = 2**31
"""A file whose contents claim more is refused before they are unpacked."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place on success and goes on failure.

    What torch writes goes through memory: its own writer ends the process when the disk is full.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except AttribError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where nothing can be made there is nothing to take away
            temporary.unlink(missing_ok=True)


def contents_of(place: str | Path | Stored) -> bytes:
    """Read a file, wherever it lies."""
    return place.fetch() if isinstance(place, Stored) else Path(place).read_bytes()


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into an InputError that names it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    except Exception as error:  # damaged files make libraries raise whatever they come upon
        raise InputError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Say what to do when a file of a long job cannot be written."""
    try:
        yield
    except OSError as error:
        if isinstance(error, AttribError) and not isinstance(error, OutputError):
            raise
        told = error if isinstance(error, OutputError) else f"cannot write into {folder}: {error}"
        raise OutputError(
            f"{told}. What is done is kept: make room or give access, and repeat the command to "
            "go on"
        ) from error


def read_array(stream: IO[bytes] | io.BufferedIOBase) -> NDArray[Any]:
    """Read an npy file, never a pickle; `InputError` if it claims more than `MAX_BYTES`."""
    _refuse_bomb(_claimed(stream))
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def read_arrays(
    stream: IO[bytes] | io.BufferedIOBase, names: Collection[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Read those arrays of an npz file that are named, or all; never a pickle.

    Raises:
        InputError: together they claim more than `MAX_BYTES`.
    """
    with zipfile.ZipFile(stream) as archive:
        held = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        wanted, claimed = held if names is None else names, 0
        for name in wanted:
            with archive.open(f"{name}.npy") as member:
                claimed += _claimed(member)
        _refuse_bomb(claimed)
        return {name: _unpacked(archive, name) for name in wanted}


def _claimed(stream: IO[bytes] | io.BufferedIOBase) -> int:
    shape, dtype = array_header(stream)
    return math.prod(map(abs, shape)) * dtype.itemsize


def _unpacked(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read one file of a zip; `InputError` if it claims more than `MAX_BYTES`."""
    _refuse_bomb(archive.getinfo(name).file_size)  # no more than this is ever unpacked
    return archive.read(name)


def read_gzip(path: Path) -> bytes:
    """Read a gzip file; `InputError` if it unpacks to more than `MAX_BYTES`."""
    with gzip.open(path) as stream:
        data = stream.read(MAX_BYTES + 1)
    _refuse_bomb(len(data))
    return data


def _refuse_bomb(claimed: int) -> None:
    if claimed > MAX_BYTES:
        raise InputError(f"its contents claim {claimed} bytes, more than {MAX_BYTES}")


def array_header(stream: IO[bytes] | io.BufferedIOBase) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the shape and type of an npy file, which stays open behind them."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise InputError(f"arrays are in npy version 1.0, this has {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype
