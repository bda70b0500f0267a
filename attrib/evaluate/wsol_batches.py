"""A data set's pictures, batch by batch, to protocols: in this process or on a cluster."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TypeVar, cast

from jaxtyping import Int
from torch import Tensor

from attrib.cluster import Answer
from attrib.datasets.samples import BoxDataset, BoxSample, batch_of
from attrib.evaluate.wsol_kept import Counted, Kept, mark_of
from attrib.evaluate.wsol_maps import write_maps
from attrib.explain import Explainer
from attrib.images import Decode, Picture, preprocess
from attrib.journal import Journal
from attrib.methods import Method
from attrib.metrics import WsolBatch, WsolProtocol
from attrib.metrics.wsol_batch import rank_of
from attrib.models import SpatialClassifier
from attrib.progress import progress_bar
from attrib.seeds import OnRay
from attrib.seeds.on_ray import placed
from attrib.surgery import dtype_of
from attrib.types import Fit

__all__ = ["Scoring", "Total", "each", "feed"]

T = TypeVar("T")


@dataclass(kw_only=True, eq=False)
class Total:
    """What was counted of a data set.

    Args:
        protocols: Fed with it.
        ranks: By batch.
        seconds: Wall clock of all batches.
    """

    protocols: Sequence[WsolProtocol]
    ranks: list[Int[Tensor, " _b"]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, counted: Counted) -> None:
        """Add what was counted on a batch, if it was not these protocols that were fed with it."""
        for protocol, fed in zip(self.protocols, counted.protocols, strict=True):
            if fed is not protocol:
                protocol.add(fed)  # type: ignore[attr-defined]  # has been asked for
        self.ranks.append(counted.rank)
        self.seconds += counted.seconds


@dataclass(frozen=True, kw_only=True, eq=False)
class Scoring:
    """How a data set is gone through.

    Args:
        explainer: Model and method.
        size: Pictures per batch.
        engine: Whose workers do it; None for this process.
        journal: Takes what was counted, batch by batch; None to keep nothing.
        progress: Show a bar; None for one on terminals only.
    """

    explainer: Explainer
    size: int
    engine: OnRay | None
    journal: Journal | None
    progress: bool | None

    def run(
        self,
        protocols: Sequence[WsolProtocol],
        dataset: BoxDataset,
        indices: range,
        *,
        part: str = "scored",
        save_maps: Path | None = None,
    ) -> Total:
        """Feed every picture of those indices to fresh protocols, but for what is counted already.

        Args:
            protocols: Fresh; are filled.
            dataset: What the indices mean.
            indices: Of its pictures.
            part: What the journal calls the data set.
            save_maps: Folder to write the maps to.
        """
        kept = None if self.journal is None else Kept(journal=self.journal, part=part)
        work = self._work(protocols, dataset, save_maps)
        hands = [indices[at : at + self.size] for at in range(0, len(indices), self.size)]
        total, known = Total(protocols=protocols), set[range]()
        if kept is not None:
            for hand, counted in kept.known(work.protocols, dataset, hands, save_maps):
                total.add(counted)
                known.add(hand)
        with progress_bar(len(indices), self.progress, initial=sum(map(len, known))) as bar:
            for hand, counted in self._timed(work, [hand for hand in hands if hand not in known]):
                total.add(counted)
                if kept is not None:
                    kept.add(hand, counted)
                bar.update(len(hand))
        if work.apart and save_maps is not None:
            _remove_halves(save_maps)  # of a process that died
        return total

    def _work(
        self, protocols: Sequence[WsolProtocol], dataset: BoxDataset, save_maps: Path | None
    ) -> _WsolWork:
        apart = self.engine is not None or self.journal is not None
        return _WsolWork(
            classifier=self.explainer.classifier,
            method=self.explainer.method,
            fit=self.explainer.fit,
            decode=self.explainer.decode,
            dataset=dataset,
            protocols=tuple(deepcopy(protocols) if apart else protocols),
            apart=apart,
            marked=self.journal is not None,
            save_maps=save_maps,
        )

    def _timed(self, work: _WsolWork, hands: list[range]) -> Iterator[tuple[range, Counted]]:
        """Count batches, here or on the engine; each took the time since the one before it."""
        answers = self._here(work, hands)
        if self.engine is not None:
            answers = self.engine.answers(work, hands)
        before = time.perf_counter()
        for index, counted in answers:
            now = time.perf_counter()
            yield hands[index], replace(counted, seconds=now - before)
            before = now

    def _here(self, work: _WsolWork, hands: list[range]) -> Iterator[tuple[int, Counted]]:
        samples = (work.dataset[i] for hand in hands for i in hand)
        reads = self.explainer.reader().ahead(samples, attrgetter("picture"), depth=self.size)
        with closing(reads):
            for index, hand in enumerate(hands):
                pairs = [(sample, read.result()) for sample, read in islice(reads, len(hand))]
                yield index, work.count(self.explainer, pairs)


@dataclass(frozen=True, kw_only=True, eq=False)
class _WsolWork:
    """What workers do; see `Scoring`.

    Args:
        classifier: The model, split.
        method: What makes the maps.
        fit: How pictures are brought to the model's size.
        decode: Who decodes JPEG files.
        dataset: What the indices of a hand mean.
        protocols: Fresh.
        apart: Feed copies of them with each batch; else they are fed themselves.
        marked: Say which pictures a batch had.
        save_maps: Folder to write the maps to.
    """

    classifier: SpatialClassifier
    method: Method
    fit: Fit
    decode: Decode
    dataset: BoxDataset
    protocols: tuple[WsolProtocol, ...]
    apart: bool
    marked: bool
    save_maps: Path | None

    def ready(self, *, on_gpu: bool) -> Answer:
        """Bring the model to the GPU; a hand is the indices of one batch."""
        classifier = placed(self.classifier, on_gpu=on_gpu)
        explainer = Explainer(classifier, self.method, fit=self.fit, decode=self.decode)
        reader = explainer.reader()

        def answer(indices: Sequence[int]) -> Counted:
            samples = [self.dataset[i] for i in indices]
            counted = self.count(explainer, [(s, reader.read(s.picture)) for s in samples])
            return replace(counted, rank=counted.rank.cpu())

        return answer

    def count(self, explainer: Explainer, pairs: Sequence[tuple[BoxSample, Picture]]) -> Counted:
        """Explain the pictures of a batch, score their maps and write them."""
        batch = _explain(explainer, pairs)
        fed = deepcopy(self.protocols) if self.apart else self.protocols
        feed(fed, batch)
        if self.save_maps is not None:
            write_maps(self.save_maps, batch)
        return Counted(
            protocols=fed,
            rank=cast(Tensor, batch.rank),  # it is known of maps that were just made
            ids=batch.ids if self.marked else (),
            mark=mark_of([sample for sample, _ in pairs]) if self.marked else "",
        )


def _remove_halves(folder: Path) -> None:
    """Remove what a process that was killed was writing."""
    for path in folder.rglob(".*.npz"):
        if re.fullmatch(r"\..+\.[0-9a-f]{16}\.npz", path.name):
            path.unlink(missing_ok=True)


def each(
    reads: Iterable[tuple[BoxSample, Future[T]]], total: int, progress: bool | None
) -> Iterator[tuple[BoxSample, T]]:
    """Go through samples with what is read of each, of so many in all."""
    with progress_bar(total, progress) as bar:
        for sample, found in reads:
            yield sample, found.result()
            bar.update()


def feed(protocols: Sequence[WsolProtocol], batch: WsolBatch) -> None:
    """Score a batch by each protocol."""
    for protocol in protocols:
        protocol.update(batch)


def _explain(explainer: Explainer, pairs: Sequence[tuple[BoxSample, Picture]]) -> WsolBatch:
    classifier = explainer.classifier
    images, frames = preprocess(
        [picture for _, picture in pairs],
        classifier.spec,
        fit=explainer.fit,
        device=classifier.device,
        dtype=dtype_of(classifier.model),
    )
    samples = [sample for sample, _ in pairs]
    attribution = explainer(images, [sample.label for sample in samples])
    rank = rank_of(attribution.logits, attribution.targets.label)
    return batch_of(samples, attribution.maps, frames, rank, attribution.normalize)
