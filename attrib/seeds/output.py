"""The files of a job: a folder per format, in it a file per picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attrib.seeds.formats import FORMATS, Naming, Seed

__all__ = ["SeedFiles"]


@dataclass(frozen=True, kw_only=True)
class SeedFiles:
    """Where the seeds of a job go.

    Args:
        out: Folder of the job.
        formats: Names in `FORMATS`.
        naming: What classes are called in the files.
    """

    out: Path
    formats: tuple[str, ...]
    naming: Naming

    def write(self, seed: Seed) -> None:
        """Write a picture's files, each whole; those that are there are replaced."""
        for name in self.formats:
            FORMATS[name].write(seed, self._path(name, seed.id), self.naming)

    def whole(self, seed_id: str) -> bool:
        """Tell whether a picture has all its files, none emptied by a power cut."""
        paths = [self._path(name, seed_id) for name in self.formats]
        return all(path.is_file() and path.stat().st_size for path in paths)

    def clean(self, ids: set[str]) -> None:
        """Remove what a killed process was writing about these pictures."""
        for path in self._hidden(ids):
            path.unlink(missing_ok=True)

    def _hidden(self, ids: set[str]) -> Iterator[Path]:
        for name in self.formats:
            folder = self.out / name
            for path in folder.rglob(".*"):
                stem = path.name[1:].removesuffix(path.suffix).rpartition(".")[0]
                if path.relative_to(folder).with_name(stem or ".").as_posix() in ids:
                    yield path

    def _path(self, name: str, seed_id: str) -> Path:
        return self.out / name / f"{seed_id}{FORMATS[name].suffix}"
