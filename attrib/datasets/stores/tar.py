"""Tar shards, as WebDataset lays them out: the files of one sample share a name up to its dot."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from attrib.datasets.label_files import Label, few, inside
from attrib.datasets.stores.places import SUFFIXES, matching, opened, part_of, title_of
from attrib.errors import InputError
from attrib.files import MAX_BYTES, reading

__all__ = ["TarMember", "TarShards"]

BESIDE = (".cls", ".json")
"""Suffixes of files that tell the classes of the picture of the same name; the first counts."""
MAX_LABEL = 2**20
"""Bytes of such a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TarMember:
    """A file in a tar shard; it is read where it lies and never unpacked to disk.

    Args:
        shard: Path or URL.
        path: In the shard.
        start: Of its contents in the shard, in bytes.
        size: Of its contents.
    """

    shard: str
    path: str
    start: int
    size: int

    @property
    def name(self) -> str:
        """Its own name."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return f"{self.path} in {self.shard}"

    def fetch(self) -> bytes:
        """Read it, and nothing else of the shard."""
        with reading(str(self)):
            return part_of(self.shard, self.start, self.size)


class TarShards:
    """The files in one or several tars. All headers are read once; a file's contents on demand.

    Only plain files count. Tars are not compressed: pictures already are, and what is compressed as
    a whole cannot be read in part.

    Args:
        place: Path or URL of a tar, perhaps with `*` in its last part.

    Raises:
        InputError: there is none, one is damaged or compressed, or has a file that is listed twice,
            is claimed to be larger than `MAX_BYTES`, or whose name leads out of the shard.
    """

    def __init__(self, place: str | Path) -> None:
        self.name = title_of(place)
        self._place = place
        self._members: dict[str, TarMember] = {}
        self._beside: dict[str, list[Label]] = {}
        for shard in matching(place):
            with reading(shard), opened(shard) as stream:
                self._index(shard, stream)

    def find(self, path: str) -> TarMember | None:
        """Return a file of any of the shards."""
        return self._members.get(path)

    def paths(self) -> list[str]:
        """List all files, shard by shard in the order in which they lie."""
        return list(self._members)

    def labels(self) -> dict[str, list[Label]]:
        """Return the classes in the files `KEY.cls` (`3`, `rabbit` or `rabbit;duck`) or `KEY.json`.

        The JSON is an object whose `label` or `labels` is a class or a list of them. Pictures are
        the files `KEY.jpg` and the like; what comes after the first dot is no part of the key.
        """
        if not self._beside:
            return {}
        keys = {path: _key(path) for path in self._members if _is_picture(path)}
        without = [path for path, key in keys.items() if key not in self._beside]
        if without:
            raise InputError(
                f"{self._place}: some pictures have classes beside them and {few(without)} not; "
                f"add KEY{BESIDE[0]} or KEY{BESIDE[1]}, or give a list of labels"
            )
        return {path: self._beside[key] for path, key in keys.items()}

    def _index(self, shard: str, stream: Any) -> None:
        for header in _headers(stream):
            path = inside(header.name, shard)
            member = TarMember(shard=shard, path=path, start=header.offset_data, size=header.size)
            _check(header, member)
            if path in self._members:
                raise InputError(f"it holds {path}, as {self._members[path].shard} does already")
            self._members[path] = member
            with reading(str(member)):
                self._read_beside(stream, member)

    def _read_beside(self, stream: Any, member: TarMember) -> None:
        key, kind = _key(member.path), PurePosixPath(member.path).suffix
        if kind == BESIDE[0] or (kind == BESIDE[1] and key not in self._beside):
            found = _labels(stream, member)
            if found is not None:
                self._beside[key] = found


def _headers(stream: Any) -> Iterator[tarfile.TarInfo]:
    """Go from header to header; folders are passed over."""
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (header := archive.next()) is not None:
                if header.size < 0 or archive.offset <= header.offset:
                    raise InputError(f"{header.name} ends before it begins")
                if not header.isdir():
                    yield header
                archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
    except tarfile.ReadError as error:
        raise InputError(
            f"it is no tar, cut short or compressed ({error}); unpack a .tar.gz to a .tar"
        ) from error


def _check(header: tarfile.TarInfo, member: TarMember) -> None:
    if not header.isreg() or header.issparse():
        raise InputError(f"{member.path} is a link, a device or has holes; only plain files count")
    if header.size > MAX_BYTES:
        raise InputError(f"{member.path} claims {header.size} bytes, more than {MAX_BYTES}")


def _key(path: str) -> str:
    """Cut off a path what follows the first dot of its last part."""
    place = PurePosixPath(path)
    return (place.parent / place.name.partition(".")[0]).as_posix()


def _is_picture(path: str) -> bool:
    name = PurePosixPath(path).name
    return "." + name.partition(".")[2].lower() in SUFFIXES


def _labels(stream: Any, member: TarMember) -> list[Label] | None:
    """Read a picture's classes; None if a JSON is about something else."""
    plain = member.path.endswith(BESIDE[0])
    if member.size > MAX_LABEL:
        if not plain:
            return None
        raise InputError(f"{member.path} has {member.size} bytes, more than classes need")
    stream.seek(member.start)
    text = stream.read(member.size).decode("utf-8")
    if plain:
        return [part.strip() for part in text.split(";") if part.strip()]
    entry = json.loads(text)
    found = entry.get("labels", entry.get("label")) if isinstance(entry, dict) else None
    many = found if isinstance(found, list) or found is None else [found]
    if not all(
        isinstance(label, str | int) and not isinstance(label, bool) for label in many or ()
    ):
        raise InputError(f"{member.path} needs a class as label, or a list as labels")
    return many
