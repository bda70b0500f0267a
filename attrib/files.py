"""Files that are whole or not there, and what is wrong with those that cannot be read."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrib.errors import InputError, OutputError

__all__ = ["reading", "replacing", "writing"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place on success and goes on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        raise OutputError(
            f"cannot write into {folder}: {error}. What is done is kept: make room or give access, "
            "and repeat the command to go on"
        ) from error
