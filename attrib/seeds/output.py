"""The files of a job: a folder per format, in it a file per picture, or shards of such files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from attrib.datasets.labelled import LabelledSample
from attrib.datasets.stores import TarShards
from attrib.errors import InputError
from attrib.files import replacing
from attrib.seeds.formats import FORMATS, Naming

__all__ = ["Contents", "Part", "SeedFiles", "SeedOutput", "SeedShards"]

Contents = dict[str, bytes]
"""What the files of one picture hold, by format."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Pictures whose seeds are written at once.

    Args:
        number: Of the part in the data set, from 0.
        samples: Those of its pictures that are still to be done.
    """

    number: int
    samples: tuple[LabelledSample, ...]


@runtime_checkable
class SeedOutput(Protocol):
    """Where the seeds of a job go."""

    @property
    def together(self) -> int:
        """So many pictures in a row of the data set are a part."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Names in `FORMATS`."""

    @property
    def naming(self) -> Naming:
        """What classes are called in the files."""

    def write(self, number: int, contents: Mapping[str, Contents]) -> None:
        """Write pictures of a part, by id; each file is whole or not there."""

    def whole(self, part: Part) -> set[str]:
        """Return which pictures of a part have all that is written of them."""

    def clean(self, parts: Sequence[Part]) -> None:
        """Remove what a killed process was writing about these parts."""


@dataclass(frozen=True, kw_only=True)
class SeedFiles:
    """A file per picture and format.

    Args:
        out: Folder of the job.
        formats: Names in `FORMATS`.
        naming: What classes are called in the files.
    """

    out: Path
    formats: tuple[str, ...]
    naming: Naming
    together = 1

    def write(self, number: int, contents: Mapping[str, Contents]) -> None:
        """Write the files of pictures; those that are there are replaced."""
        for seed_id, files in contents.items():
            for name, content in files.items():
                with replacing(self._path(name, seed_id)) as temporary:
                    temporary.write_bytes(content)

    def whole(self, part: Part) -> set[str]:
        """Return which pictures have all their files, none emptied by a power cut."""
        return {s.id for s in part.samples if all(map(_holds, self._paths(s.id)))}

    def clean(self, parts: Sequence[Part]) -> None:
        """Remove what a killed process was writing about these pictures."""
        for path in self._hidden({sample.id for part in parts for sample in part.samples}):
            path.unlink(missing_ok=True)

    def _hidden(self, ids: set[str]) -> Iterator[Path]:
        for name in self.formats:
            folder = self.out / name
            for path in folder.rglob(".*"):
                if path.relative_to(folder).with_name(_hidden_name(path)).as_posix() in ids:
                    yield path

    def _paths(self, seed_id: str) -> list[Path]:
        return [self._path(name, seed_id) for name in self.formats]

    def _path(self, name: str, seed_id: str) -> Path:
        return self.out / name / f"{seed_id}{FORMATS[name].suffix}"


@dataclass(frozen=True, kw_only=True)
class SeedShards:
    """A tar per format and part, with the files that `SeedFiles` writes, sorted by name.

    The same pictures always give the same bytes. A part is in memory until it is written.

    Args:
        out: Folder of the job.
        formats: Names in `FORMATS`.
        naming: What classes are called in the files.
        together: Pictures per part.
    """

    out: Path
    formats: tuple[str, ...]
    naming: Naming
    together: int

    def __post_init__(self) -> None:
        if self.together < 1:
            raise InputError(f"pack is 1 picture per tar or more, got {self.together}")

    def write(self, number: int, contents: Mapping[str, Contents]) -> None:
        """Write the tars of a part, with what they held of its other pictures."""
        for name in self.formats if contents else ():
            suffix, path = FORMATS[name].suffix, self._path(name, number)
            files = {f"{seed_id}{suffix}": found[name] for seed_id, found in contents.items()}
            with replacing(path) as temporary:
                _write_tar(temporary, _held(path) | files)

    def whole(self, part: Part) -> set[str]:
        """Return which pictures are in all tars of their part."""
        found = {sample.id for sample in part.samples}
        for name in self.formats:
            shards, suffix = _shards(self._path(name, part.number)), FORMATS[name].suffix
            found = {key for key in found if shards and shards.find(f"{key}{suffix}")}
        return found

    def clean(self, parts: Sequence[Part]) -> None:
        """Remove what a killed process was writing about these parts."""
        numbers = {_stem(part.number) for part in parts}
        for name in self.formats:
            for path in (self.out / name).glob(".*"):
                if _hidden_name(path) in numbers:
                    path.unlink(missing_ok=True)

    def _path(self, name: str, number: int) -> Path:
        return self.out / name / f"{_stem(number)}.tar"


def _holds(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _hidden_name(path: Path) -> str:
    """Return which file's place a hidden file was to take, without suffix."""
    return path.name[1:].removesuffix(path.suffix).rpartition(".")[0] or "."


def _stem(number: int) -> str:
    return f"{number:06d}"


def _shards(path: Path) -> TarShards | None:
    """Open a tar; None if it is not there or damaged, as all that it held is then made again."""
    try:
        return TarShards(path)
    except InputError:
        return None


def _held(path: Path) -> dict[str, bytes]:
    shards = _shards(path)
    members = [shards.find(name) for name in shards.paths()] if shards else []
    return {member.path: member.fetch() for member in members if member}


def _write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name in sorted(files):
            header = tarfile.TarInfo(name)
            header.size = len(files[name])
            archive.addfile(header, io.BytesIO(files[name]))
