"""What a long job is and how far it has come, on disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from attrib.errors import InputError
from attrib.files import reading, replacing

__all__ = ["Journal", "claim", "labels_of"]

MANIFEST = "job.json"


def claim(folder: Path, job: dict[str, Any]) -> None:
    """Write what the job is into its folder, or make sure that the folder is this job's.

    Raises:
        InputError: the folder belongs to another job; says in what they differ.
    """
    path, wanted = folder / MANIFEST, json.loads(json.dumps(job))
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        changes = _changes(found, wanted)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); give another folder") from None
    if changes:
        raise InputError(
            f"{folder} holds the results of another job: {'; '.join(changes)}. Give another "
            "folder, or repeat the command that made it"
        )


def _changes(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    return [f"{key} was {found.get(key)!r}, is {wanted.get(key)!r}" for key in keys]


def labels_of(folder: Path) -> tuple[str, ...]:
    """Return the class names of the job whose folder this is; none if it is no job's."""
    path = folder / MANIFEST
    if not path.is_file():
        return ()
    with reading(path):
        return tuple(str(name) for name in json.loads(path.read_text(encoding="utf-8"))["labels"])


class Journal:
    """One line per picture that has been dealt with, in a file per shard.

    A line is written when all files of its picture are. What a killed process leaves of a line is
    cut off when the file is next opened.

    Args:
        folder: Of the job.
        name: Of this shard's file, without suffix.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / "journal"
        self._path = self.folder / f"{name}.jsonl"
        self._file: IO[bytes] | None = None
        self._turn = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[Journal]:
        """Hold the shard's file for writing.

        Raises:
            InputError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            _lock(file, self._path)
            whole = self._path.read_bytes()
            file.truncate(whole.rfind(b"\n") + 1)
            self._file = file
            try:
                yield self
            finally:
                self._file = None

    def add(self, key: str, status: str, **facts: Any) -> None:
        """Write down what became of a picture; can be called from several threads."""
        if self._file is None:
            raise InputError("the journal is not open")
        line = json.dumps({"id": key, "status": status, **facts}) + "\n"
        with self._turn:
            self._file.write(line.encode())
            self._file.flush()

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the last line about each picture, of all shards."""
        found = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_bytes().split(b"\n"):
                try:
                    entry = json.loads(line)
                    if entry["status"] == "done" or entry["id"] not in found:
                        found[entry["id"]] = entry
                except (ValueError, TypeError, KeyError, RecursionError):
                    continue  # cut off when its writer was killed: its picture is done again
        return found


def _lock(file: IO[bytes], path: Path) -> None:
    """Keep a second process out; the lock goes with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # on Windows two processes do the same work twice, with the same result
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(
            f"another process is writing {path}; wait for it, or give each a folder or a shard "
            "(--shard i/n) of its own"
        ) from None
