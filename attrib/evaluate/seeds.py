"""Scores the seeds in a folder against a data set's masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from attrib.cluster import Answer
from attrib.datasets.labelled import LabelledDataset
from attrib.datasets.stores import LocalFolder, Store, TarShards
from attrib.errors import InputError, UnknownNameError
from attrib.files import Stored, replacing
from attrib.images import read_image
from attrib.metrics.segmentation import SWEEP, Ignored, SeedSweep, confusion, scores_of
from attrib.progress import progress_bar
from attrib.report import Row, page
from attrib.seeds import FORMATS, OnRay, SeedMaps, label_image, label_map, read_label_png

__all__ = ["evaluate_seeds"]

READABLE = ("npz", "irn", "label")
"""Formats that can be scored, maps first: they say more than label images."""


HAND = 16
"""Pictures that are scored between two additions."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where seeds are and how to read them."""

    kind: str
    place: str
    store: Store
    threshold: float
    allow_pickle: bool

    def find(self, seed_id: str) -> Path | Stored | None:
        return self.store.find(f"{seed_id}{FORMATS[self.kind].suffix}")

    def read(self, seed_id: str) -> tuple[UInt8[Tensor, "H W"], SeedMaps | None]:
        """Return the label image, at the fixed background value, and the maps behind it."""
        found = self.find(seed_id)
        if found is None:
            raise InputError(f"its seed is no longer in {self.place}")
        if self.kind == "label":
            return read_label_png(found), None
        maps = FORMATS[self.kind].read(found, allow_pickle=self.allow_pickle)
        return label_map(maps.high_res, maps.keys, threshold=self.threshold), maps


@dataclass(kw_only=True, eq=False)
class _Tally:
    """What has been counted of some pictures.

    Args:
        counts: Confusion at the fixed background value, or of the label images.
        sweep: At all background values; of no picture where there are no maps.
        each: Of every picture, its mIoU and index.
    """

    counts: Int[Tensor, "c _d"]
    sweep: SeedSweep
    each: list[tuple[float, int]]

    def add(self, other: _Tally) -> None:
        """Add what was counted of other pictures."""
        self.counts += other.counts
        self.sweep.add(other.sweep.counts, other.sweep.pictures)
        self.each += other.each


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scoring:
    """How pictures are scored, here or by workers."""

    dataset: LabelledDataset
    source: _Source
    thresholds: tuple[float, ...]
    ignored: Ignored

    def ready(self, *, on_gpu: bool = False) -> Answer:
        """Return what scores the pictures of some indices, on the CPU."""
        return self.tally

    def tally(self, indices: Sequence[int]) -> _Tally:
        """Score some pictures."""
        classes = len(self.dataset.labels)
        counts = torch.zeros(classes + 1, classes + 2, dtype=torch.int64)
        tally = _Tally(counts=counts, sweep=SeedSweep(classes, self.thresholds), each=[])
        for index in indices:
            truth = self.dataset.mask(index)
            try:
                label, maps = self.source.read(self.dataset[index].id)
                found = confusion(label, truth, classes, self.ignored)
                if maps is not None:
                    tally.sweep.update(maps.high_res, maps.keys, truth)
            except InputError as error:
                raise InputError(f"picture {self.dataset[index].id}: {error}") from error
            tally.counts += found
            tally.each.append((scores_of(found).miou, index))
        return tally

    def run(self, indices: Sequence[int], engine: OnRay | None, progress: bool | None) -> _Tally:
        """Score all pictures, hand by hand."""
        hands = [indices[at : at + HAND] for at in range(0, len(indices), HAND)]
        if engine is None:
            tallies: Iterator[tuple[int, _Tally]] = enumerate(map(self.tally, hands))
        else:
            tallies = engine.answers(self, hands)
        total = self.tally([])
        with progress_bar(len(indices), progress) as bar:
            for index, tally in tallies:
                total.add(tally)
                bar.update(len(hands[index]))
        return total


def evaluate_seeds(
    dataset: LabelledDataset,
    folder: str | Path,
    *,
    kind: str | None = None,
    threshold: float = 0.25,
    thresholds: Sequence[float] = SWEEP,
    ignored: Ignored = "dropped",
    skip_missing: bool = False,
    allow_pickle: bool = False,
    worst: int = 20,
    html: str | Path | None = None,
    engine: OnRay | None = None,
    progress: bool | None = False,
) -> dict[str, Any]:
    """Score the seeds that `make_seeds`, or another tool in the same formats, has written.

    Maps are scored at every background value in one sweep, and at a fixed one; label images as
    they are. The best background value was chosen by the score itself: it is an oracle's.

    Args:
        dataset: Pictures with masks.
        folder: Holds a folder per format, or the files `ID.npz`, `ID.npy` or `ID.png` themselves;
            as they are, or in tars.
        kind: `"npz"`, `"irn"` or `"label"`; None for the first of them that the folder has.
        threshold: The fixed background value.
        thresholds: The sweep, ascending.
        ignored: What 255 in label images is: a pixel that does not count, or one that is wrong.
        skip_missing: Leave out pictures without a seed, and say how many; else they are an error.
        allow_pickle: Read IRN's npy, which is a pickle and can run code.
        worst: How many of the worst pictures to name and show.
        html: Page of the worst pictures to write.
        engine: None for this process, or `OnRay()`: pictures go to its workers, which need no GPU,
            and what they count is added up here. The figures are the same.
        progress: Show a bar; None for one on terminals only.

    Returns:
        Data set, format, counts, `fixed` scores (at `threshold`, or of the label images), for maps
        also the `oracle` scores and the `sweep`, and the `worst` pictures; all in per cent.

    Raises:
        InputError: seeds or masks are missing, damaged or of another size.
    """
    source = _source(Path(folder), kind, threshold, allow_pickle)
    indices = _present(dataset, source, skip_missing)
    scoring = _Scoring(
        dataset=dataset, source=source, thresholds=tuple(thresholds), ignored=ignored
    )
    found = scoring.run(indices, engine, progress)
    sweep = found.sweep
    fixed = scores_of(found.counts, threshold if sweep.pictures else None)
    result = {
        "schema": "attrib.seed-scores/1",
        "dataset": dataset.name,
        "seeds": str(folder),
        "format": source.kind,
        "pictures": len(found.each),
        "missing": len(dataset) - len(found.each),
        "ignored": ignored,
        "fixed": fixed.to_dict(dataset.labels),
    }
    if sweep.pictures:
        result |= {"oracle": sweep.best().to_dict(dataset.labels), "sweep": sweep.curve()}
    last = sorted(found.each)[:worst]
    result["worst"] = [{"id": dataset[index].id, "miou": miou} for miou, index in last]
    if html is not None:
        with replacing(html) as temporary:
            temporary.write_text(_page(dataset, source, result, last), encoding="utf-8")
    return result


def _source(folder: Path, kind: str | None, threshold: float, allow_pickle: bool) -> _Source:
    if kind is not None and kind not in READABLE:
        raise UnknownNameError("format to score", kind, READABLE)
    for name in READABLE if kind is None else (kind,):
        for place in (folder / name, folder):
            store = _store(place, FORMATS[name].suffix)
            if store is not None:
                return _Source(
                    kind=name,
                    place=str(place),
                    store=store,
                    threshold=threshold,
                    allow_pickle=allow_pickle,
                )
    wanted = " or ".join(READABLE if kind is None else (kind,))
    raise InputError(f"{folder} holds no seeds of the format {wanted}")


def _store(place: Path, suffix: str) -> Store | None:
    """Open what has files of that suffix, as they are or in tars; None if there are none."""
    if next(place.rglob(f"*{suffix}"), None):
        return LocalFolder(place)
    if next(place.glob("[!.]*.tar"), None):
        shards = TarShards(place / "*.tar")
        return shards if any(path.endswith(suffix) for path in shards.paths()) else None
    return None


def _present(dataset: LabelledDataset, source: _Source, skip_missing: bool) -> list[int]:
    there, missing = [], []
    for index in range(len(dataset)):
        name = dataset[index].id
        (there.append(index) if source.find(name) else missing.append(name))
    if missing and not skip_missing:
        raise InputError(
            f"{len(missing)} of {len(dataset)} pictures have no seed in {source.place}, e.g. "
            f"{', '.join(missing[:3])}; make them, or leave them out with skip_missing "
            "(--skip-missing)"
        )
    if not there:
        raise InputError(f"{source.place} has no seed of any picture of {dataset.name}")
    return there


def _page(
    dataset: LabelledDataset,
    source: _Source,
    result: dict[str, Any],
    last: list[tuple[float, int]],
) -> str:
    facts = {"seeds": f"{result['seeds']} ({source.kind})", "pictures": str(result["pictures"])}
    for name in ("fixed", "oracle"):
        if name in result:
            scores = result[name]
            at = "" if scores["threshold"] is None else f" at {scores['threshold']:g}"
            facts[f"mIoU, {name} background{at}" if at else "mIoU"] = f"{scores['miou']:.2f} %"
    facts["shown"] = "picture, true mask, seed"
    rows = []
    for miou, index in last:
        sample, truth = dataset[index], dataset.mask(index)
        label, _ = source.read(sample.id)
        picture = read_image(sample.picture).pixels.permute(1, 2, 0).numpy()
        there = ", ".join(dataset.labels[c] for c in sample.labels) or "no class"
        rows.append(
            Row(
                caption=f"{sample.id}: {there}, mIoU {miou:.1f} %",
                images=(Image.fromarray(picture), label_image(truth), label_image(label)),
                names=("picture", "true mask", "seed"),
            )
        )
    return page(f"Worst seeds of {dataset.name}", facts, rows)
