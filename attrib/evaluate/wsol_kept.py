"""What a folder keeps of a score that is being made: what the score is, and a line per batch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from attrib.datasets.samples import BoxDataset, BoxSample
from attrib.errors import InputError
from attrib.evaluate.wsol_maps import written
from attrib.files import Stored, reading
from attrib.images import PictureLike, read_image
from attrib.journal import Journal
from attrib.metrics import ResumableProtocol, WsolProtocol

__all__ = ["Counted", "Kept", "about_data", "about_protocols", "mark_of"]

LIBRARIES = ("captum", "numpy", "opencv-python-headless", "pillow")
"""Beside those that the model's record names."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted:
    """What was counted on one batch.

    Args:
        protocols: Fed with it.
        rank: Of its pictures' true classes.
        ids: Of its pictures; empty where nothing is kept.
        mark: Of what is known of them, see `mark_of`; empty where nothing is kept.
        seconds: That it took.
    """

    protocols: tuple[WsolProtocol, ...]
    rank: Int[Tensor, " b"]
    ids: tuple[str, ...] = ()
    mark: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """The batches of one data set in a journal; a batch is known by the indices of its pictures.

    Args:
        journal: Open.
        part: Which of the job's data sets: `"scored"` or `"validation"`.
    """

    journal: Journal
    part: str

    def add(self, hand: range, counted: Counted) -> None:
        """Write down what was counted on a batch."""
        self.journal.add(
            self._key(hand),
            "done",
            pictures=counted.ids,
            data=counted.mark,
            seconds=counted.seconds,
            rank=counted.rank.tolist(),
            counts={p.name: p.state_dict() for p in counted.protocols},  # type: ignore[attr-defined]
        )

    def known(
        self,
        protocols: Sequence[WsolProtocol],
        dataset: BoxDataset,
        hands: Sequence[range],
        save_maps: Path | None,
    ) -> Iterator[tuple[range, Counted]]:
        """Read which of these batches have been counted, one after the other.

        Args:
            protocols: Fresh.
            dataset: To compare with.
            hands: Indices of the pictures of each batch.
            save_maps: Folder that has to hold the batch's maps.

        Raises:
            InputError: a batch was counted on other data, or its line is damaged.
        """
        wanted = {self._key(hand): hand for hand in hands}
        for line in self.journal.lines():
            hand = wanted.get(line["id"])
            if hand is None or line["status"] != "done":
                continue
            mark = mark_of([dataset[i] for i in hand])
            with reading(self.journal.folder):
                counted = _counted(line, mark, protocols)
            if save_maps is None or written(save_maps, counted.ids):
                del wanted[line["id"]]
                yield hand, counted

    def _key(self, hand: range) -> str:
        return f"{self.part} {hand[0]}:{hand[-1] + 1}:{hand.step}"


def _counted(line: dict[str, Any], mark: str, protocols: Sequence[WsolProtocol]) -> Counted:
    """Read a line about pictures of that mark into copies of fresh protocols."""
    if line["data"] != mark:
        raise InputError(
            f"these are results of other data: classes and objects of pictures {line['id']} were "
            f"{line['data']}, are {mark}. Give another folder, or the data that it was begun with"
        )
    fed = tuple(deepcopy(protocols))
    for protocol in fed:
        protocol.load_state_dict(line["counts"][protocol.name])  # type: ignore[attr-defined]
    return Counted(
        protocols=fed,
        rank=torch.tensor(list(line["rank"]), dtype=torch.int64),
        ids=tuple(map(str, line["pictures"])),
        mark=mark,
        seconds=float(line["seconds"]),
    )


def mark_of(samples: Sequence[BoxSample]) -> str:
    """Return 16 hex digits that change with any id, file name, class, box or mask, or their order.

    Of a picture that is no file they change with its pixels.
    """
    digest = hashlib.sha256()
    for sample in samples:
        known = f"{sample.id}\t{_name(sample.picture)}\t{sample.label}\t{sample.boxes.tolist()}\n"
        digest.update(known.encode())
        if sample.mask is not None:
            digest.update(f"{tuple(sample.mask.shape)}\n".encode())
            digest.update(sample.mask.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _name(picture: PictureLike) -> str:
    if isinstance(picture, str | os.PathLike):
        return Path(picture).name
    if isinstance(picture, Stored):
        return picture.name
    return hashlib.sha256(read_image(picture).pixels.cpu().numpy().tobytes()).hexdigest()


def about_data(dataset: BoxDataset) -> dict[str, Any]:
    """Say in a file which data set it is, as far as it says so without being read."""
    return {"name": dataset.name, "pictures": len(dataset), "labels": dataset.labels}


def about_protocols(protocols: Sequence[WsolProtocol]) -> dict[str, Any]:
    """Say in a file what is counted, and by which libraries.

    Raises:
        InputError: the counts of a protocol cannot be kept.
    """
    for protocol in protocols:
        if not (isinstance(protocol, ResumableProtocol) and is_dataclass(protocol)):
            raise InputError(
                f"counts of the protocol {protocol.name!r} cannot be kept; make it a dataclass "
                "with the methods add, state_dict and load_state_dict of "
                "attrib.metrics.ResumableProtocol, or leave out work"
            )
    return {
        "protocols": {p.name: _options(p) for p in protocols},
        "versions": {name: version(name) for name in LIBRARIES},
    }


def _options(protocol: Any) -> dict[str, Any]:
    return {f.name: getattr(protocol, f.name) for f in fields(protocol) if f.init}
