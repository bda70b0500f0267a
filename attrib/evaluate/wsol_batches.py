"""A data set's pictures, batch by batch, to protocols: in this process or on a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from jaxtyping import Int
from torch import Tensor

from attrib.cluster import Answer
from attrib.datasets.samples import BoxDataset, BoxSample, batch_of
from attrib.errors import InputError
from attrib.evaluate.wsol_maps import write_maps
from attrib.explain import Explainer
from attrib.images import Decode, Picture, preprocess
from attrib.methods import Method
from attrib.metrics import WsolBatch, WsolProtocol
from attrib.metrics.wsol_batch import rank_of
from attrib.models import SpatialClassifier
from attrib.progress import progress_bar
from attrib.seeds import OnRay
from attrib.seeds.on_ray import placed
from attrib.surgery import dtype_of
from attrib.types import Fit

__all__ = ["Scoring", "each", "feed"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scoring:
    """How a data set is gone through.

    Args:
        explainer: Model and method.
        size: Pictures per batch.
        engine: Whose workers do it; None for this process.
        progress: Show a bar; None for one on terminals only.
    """

    explainer: Explainer
    size: int
    engine: OnRay | None
    progress: bool | None

    def check(self, protocols: Sequence[WsolProtocol]) -> None:
        """Raise `InputError` if the engine cannot take the model or the protocols."""
        if self.engine is None:
            return
        self.engine.device_type(self.explainer.classifier)
        for protocol in protocols:
            if not hasattr(protocol, "add"):
                raise InputError(
                    f"the protocol {protocol.name!r} cannot be added up over workers; give it a "
                    "method add(other), or score in one process"
                )

    def run(
        self,
        protocols: Sequence[WsolProtocol],
        dataset: BoxDataset,
        indices: Sequence[int],
        save_maps: Path | None = None,
    ) -> list[Int[Tensor, " b"]]:
        """Feed every picture of those indices to the protocols, and return the ranks by batch."""
        if self.engine is not None:
            return self._on(self.engine, protocols, dataset, indices, save_maps)
        samples = (dataset[i] for i in indices)
        read = self.explainer.reader().ahead(samples, attrgetter("picture"), depth=self.size)
        reads, ranks = each(read, len(indices), self.progress), []
        while pairs := list(islice(reads, self.size)):
            ranks.append(_score(_explain(self.explainer, pairs), protocols, save_maps))
        return ranks

    def _on(
        self,
        engine: OnRay,
        protocols: Sequence[WsolProtocol],
        dataset: BoxDataset,
        indices: Sequence[int],
        save_maps: Path | None,
    ) -> list[Int[Tensor, " b"]]:
        work = _WsolWork(
            classifier=self.explainer.classifier,
            method=self.explainer.method,
            fit=self.explainer.fit,
            decode=self.explainer.decode,
            dataset=dataset,
            protocols=tuple(deepcopy(protocols)),
            save_maps=save_maps,
        )
        hands = [indices[at : at + self.size] for at in range(0, len(indices), self.size)]
        ranks = []
        with progress_bar(len(indices), self.progress) as bar:
            for index, (fed, rank) in engine.answers(work, hands):
                for protocol, other in zip(protocols, fed, strict=True):
                    protocol.add(other)  # type: ignore[attr-defined]  # has been asked for
                ranks.append(rank)
                bar.update(len(hands[index]))
        if save_maps is not None:
            _remove_halves(save_maps)  # of a worker that died
        return ranks


@dataclass(frozen=True, kw_only=True, eq=False)
class _WsolWork:
    """What workers do; see `Scoring`. The protocols are fresh."""

    classifier: SpatialClassifier
    method: Method
    fit: Fit
    decode: Decode
    dataset: BoxDataset
    protocols: tuple[WsolProtocol, ...]
    save_maps: Path | None

    def ready(self, *, on_gpu: bool) -> Answer:
        """Bring the model to the GPU; a hand is the indices of one batch."""
        classifier = placed(self.classifier, on_gpu=on_gpu)
        explainer = Explainer(classifier, self.method, fit=self.fit, decode=self.decode)
        reader = explainer.reader()

        def answer(indices: Sequence[int]) -> tuple[tuple[WsolProtocol, ...], Tensor]:
            fed = deepcopy(self.protocols)
            samples = [self.dataset[i] for i in indices]
            batch = _explain(explainer, [(s, reader.read(s.picture)) for s in samples])
            return fed, _score(batch, fed, self.save_maps).cpu()

        return answer


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


def _score(
    batch: WsolBatch, protocols: Sequence[WsolProtocol], save_maps: Path | None
) -> Int[Tensor, " b"]:
    feed(protocols, batch)
    if save_maps is not None:
        write_maps(save_maps, batch)
    return batch.rank  # type: ignore[return-value]  # it is known of maps that were just made


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
