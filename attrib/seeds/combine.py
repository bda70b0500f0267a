"""Files of single pictures, gathered into one per data set."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from attrib.datasets.stores import TarShards
from attrib.errors import InputError
from attrib.files import Stored, contents_of, reading, replacing
from attrib.seeds.formats import BOX_COLUMNS

__all__ = ["combine"]


def combine(folder: str | Path, out: str | Path) -> None:
    """Gather the files of the formats `rle` or `boxes` into one, ordered by picture.

    Args:
        folder: Holds the files of one of the formats, also in folders of its own or in tars.
        out: `.json` for one list of all entries (COCO's results format for `rle`), `.csv` for a
            table of boxes; outside of `folder`.

    Raises:
        InputError: the folder has no such files, one is damaged, or `out` is neither kind.
    """
    folder, out = Path(folder), Path(out)
    if out.suffix not in (".json", ".csv") or folder.resolve() in out.resolve().parents:
        raise InputError(f"out is a .json or .csv file outside of {folder}, got {out}")
    save = _save_csv if out.suffix == ".csv" else _save_json
    with (
        replacing(out) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        save(_entries(folder), file)


def _entries(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    files = _files(folder)
    if not files:
        raise InputError(f"{folder} holds no .json file; give the folder of one format")
    for name in sorted(files, key=lambda name: name.removesuffix(".json")):
        place = str(files[name])
        with reading(place):
            entries = json.loads(contents_of(files[name]))
            if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
                raise InputError("a list of entries is expected")
        yield from ((place, entry) for entry in entries)


def _files(folder: Path) -> dict[str, Path | Stored]:
    """Find the files of pictures by their names, as they are or in tars."""
    paths = [p for p in folder.rglob("*.json") if not p.name.startswith(".")]
    files: dict[str, Path | Stored] = {p.relative_to(folder).as_posix(): p for p in paths}
    if any(folder.glob("[!.]*.tar")):
        shards = TarShards(folder / "*.tar")
        files |= {name: member for name in shards.paths() if (member := shards.find(name))}
    return files


def _save_json(entries: Iterator[tuple[str, dict[str, Any]]], file: IO[str]) -> None:
    file.write("[")
    separator = "\n"
    for _, entry in entries:
        file.write(separator + json.dumps(entry))
        separator = ",\n"
    file.write("\n]\n")


def _save_csv(entries: Iterator[tuple[str, dict[str, Any]]], file: IO[str]) -> None:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(BOX_COLUMNS)
    for place, entry in entries:
        if set(entry) != set(BOX_COLUMNS):
            raise InputError(f"{place} holds no boxes; a table is made of the format 'boxes' only")
        table.writerow([entry[column] for column in BOX_COLUMNS])
