"""What a long job is and how far it has come, on disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from attrib.errors import InputError
from attrib.files import reading, replacing, writing

__all__ = ["Journal", "claim", "labels_of", "open_job"]

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
        changes = list(_changes(found, wanted))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); give another folder") from None
    if changes:
        raise InputError(
            f"{folder} holds the results of another job: {'; '.join(changes)}. Give another "
            "folder, or repeat the command that made it"
        )


def _changes(found: dict[str, Any], wanted: dict[str, Any], within: str = "") -> Iterator[str]:
    for key in {**found, **wanted}:
        was, now = found.get(key), wanted.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _changes(was, now, f"{within}{key}.")
        elif was != now:
            yield f"{within}{key} was {was!r}, is {now!r}"


@contextmanager
def open_job(folder: Path, job: dict[str, Any], name: str = "1-of-1") -> Iterator[Journal]:
    """Claim a folder for a job, and hold its journal for writing.

    Args:
        folder: Of the job; made if absent.
        job: What it is, all that its results depend on.
        name: Of this shard's file in the journal.

    Raises:
        InputError: the folder belongs to another job, or another process holds the file.
        OutputError: a file cannot be written, also later; says that a rerun goes on.
    """
    with writing(folder):
        claim(folder, job)
        with Journal(folder, name).open() as journal:
            yield journal


def labels_of(folder: Path) -> tuple[str, ...]:
    """Return the class names of the job whose folder this is; none if it is no job's."""
    path = folder / MANIFEST
    if not path.is_file():
        return ()
    with reading(path):
        return tuple(str(name) for name in json.loads(path.read_text(encoding="utf-8"))["labels"])


class Journal:
    """One line per piece of work, a picture or a batch, that has been dealt with; a file per shard.

    A line is written when all files of its piece are. What a killed process leaves of a line is
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
        """Write down what became of a piece; can be called from several threads."""
        if self._file is None:
            raise InputError("the journal is not open")
        line = json.dumps({"id": key, "status": status, **facts}) + "\n"
        with self._turn:
            self._file.write(line.encode())
            self._file.flush()

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the last line about each piece, of all shards; one that is done stays so."""
        found = {}
        for entry in self.lines():
            if entry["status"] == "done" or entry["id"] not in found:
                found[entry["id"]] = entry
        return found

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield every line, of all shards, one after the other."""
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                for line in file:
                    entry = _entry(line)
                    if entry is not None:
                        yield entry


def _entry(line: bytes) -> dict[str, Any] | None:
    """Read a line; None if it was cut off when its writer was killed: its piece is done again."""
    try:
        entry = json.loads(line)
        hash((entry["id"], entry["status"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return dict(entry)


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
            f"another process is writing {path}; wait for it, or give each a folder of its own, "
            "or of seeds a shard (--shard i/n)"
        ) from None
