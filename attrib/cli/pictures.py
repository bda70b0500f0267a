"""Pictures on the command line: files, folders of them, and those that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

__all__ = ["listed", "tell_left_out"]


def listed(given: Sequence[Path], hint: str = "") -> list[Path]:
    """List pictures: files as they are given, and of a folder what lies in it, sorted by name.

    Hidden files, files with no picture's suffix and what lies in further folders are no part of it.

    Args:
        given: Files and folders.
        hint: What else to do about a folder without pictures, with `{folder}` for its name.

    Raises:
        InputError: a folder holds no picture.
    """
    return [
        path for place in given for path in (_inside(place, hint) if place.is_dir() else [place])
    ]


def _inside(folder: Path, hint: str) -> list[Path]:
    from attrib.datasets.stores.places import SUFFIXES
    from attrib.errors import InputError

    found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
    if not found:
        more = hint.format(folder=folder)
        raise InputError(f"{folder} holds no pictures itself; name the folders in it that do{more}")
    return sorted(found)


def tell_left_out(failed: Mapping[str, str]) -> None:
    """Name on stderr the pictures that could not be read, and why."""
    for name, reason in failed.items():
        typer.echo(f"attrib: {name} was left out: {reason}", err=True)
