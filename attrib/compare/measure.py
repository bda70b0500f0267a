"""Every method on one batch of pictures: maps, times, scores, and what a report shows of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.compare.record import Outcome, PictureRecord, Shown, SmallMap
from attrib.compare.subject import Subject
from attrib.datasets.samples import BoxSample, batch_of
from attrib.errors import in_one_line
from attrib.images import Picture, preprocess
from attrib.localize import covered, normalize, to_source
from attrib.methods import Method
from attrib.metrics import ObjectMetric, WsolBatch
from attrib.metrics.base import Explain, at_input
from attrib.metrics.wsol_batch import rank_of
from attrib.models import SpatialClassifier
from attrib.targets import resolve_targets
from attrib.types import Attribution, Frame, Normalize, Targets

__all__ = ["Item", "measure"]

MAP_SIDE, PICTURE_SIDE = 96, 640
"""Longest sides in pixels of what a report holds of maps and pictures."""
TOP = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One picture to be compared on.

    Args:
        id: Unique.
        picture: Read.
        classes: To explain; None for the most likely one.
        labels: Its own classes, where they are known.
        truth: Its one class and where the objects of that are; None if not known.
        shown: Keep what a report shows.
    """

    id: str
    picture: Picture
    classes: tuple[int, ...] | None
    labels: tuple[int, ...]
    truth: BoxSample | None
    shown: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    """Pictures on their way, and the pairs that are explained on them."""

    images: Float[Tensor, "b _ h w"]
    frames: tuple[Frame, ...]
    logits: Float[Tensor, "b c"]
    pairs: Targets
    truth: tuple[BoxSample, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trial:
    """What one method made of a batch; without maps if it failed."""

    maps: Float[Tensor, "n u v"] | None = None
    scores: dict[str, Tensor]
    rows: dict[str, Tensor]
    outcome: Outcome


def measure(subject: Subject, items: Sequence[Item]) -> list[PictureRecord]:
    """Explain and score one batch of pictures by every method.

    All methods explain the same classes of the same tensors. They share the plain forward pass, the
    one that is recorded from a layer on, and its gradients, until the batch is done; what they
    share counts into the seconds of each.
    """
    batch = _prepare(subject, items)
    try:
        trials = {spec: _try(subject, method, batch) for spec, method in subject.methods.items()}
    finally:
        subject.recall.forget()
    records = []
    for i, item in enumerate(items):
        rows = (batch.pairs.image == i).nonzero().flatten()
        records.append(
            PictureRecord(
                id=item.id,
                outcomes={spec: _outcome(trial, rows) for spec, trial in trials.items()},
                shown=_shown(subject, item, batch, trials, i) if item.shown else None,
            )
        )
    return records


def _prepare(subject: Subject, items: Sequence[Item]) -> _Batch:
    classifier = subject.remembering
    images, frames = preprocess(
        [item.picture for item in items],
        classifier.spec,
        fit=subject.fit,
        device=classifier.device,
        dtype=surgery.dtype_of(classifier.model),
    )
    logits = _logits(classifier, images)
    likely = logits.argmax(1).tolist()
    classes = [
        [top] if item.classes is None else list(item.classes)
        for item, top in zip(items, likely, strict=True)
    ]
    pairs = resolve_targets(classes, len(items), classifier.spec.labels)(logits)
    truth = tuple(item.truth for item in items if item.truth is not None)
    return _Batch(images=images, frames=frames, logits=logits, pairs=pairs, truth=truth)


def _logits(classifier: SpatialClassifier, images: Tensor) -> Float[Tensor, "b c"]:
    if classifier.anatomy is not None:
        return classifier.forward(images.clone()).logits.float()
    return classifier.predict(images).float()


def _try(subject: Subject, method: Method, batch: _Batch) -> _Trial:
    """Run a method and score its maps; whatever it raises becomes its reason."""
    try:
        found, seconds, peak = _timed(subject, method, batch)
    except Exception as error:  # a comparison goes on without a method that cannot take part
        return _Trial(scores={}, rows={}, outcome=Outcome(error=_reason(error)))
    maps = at_input(found.maps, batch.images)
    located = cache(lambda: _located(batch, found))  # one, whose localisation metrics share
    scores, rows, notes = {}, {}, {}
    for spec, metric in subject.metrics.items():
        try:
            if isinstance(metric, ObjectMetric):
                rows[spec] = metric.rows(located())
                scores[spec] = metric.pool(rows[spec]).values  # of each picture alone
            else:
                scores[spec] = metric(
                    subject.classifier, batch.images, maps, batch.pairs, _explain(method)
                )
        except Exception as error:
            notes[spec] = _reason(error)
    count = max(1, len(batch.images))
    outcome = Outcome(notes=notes, seconds=seconds / count, peak_bytes=peak, exact=found.exact)
    return _Trial(maps=found.maps, scores=scores, rows=rows, outcome=outcome)


def _located(batch: _Batch, found: Attribution) -> WsolBatch:
    rank = rank_of(batch.logits, batch.pairs.label)
    return batch_of(batch.truth, found.maps, batch.frames, rank, found.normalize)


def _timed(
    subject: Subject, method: Method, batch: _Batch
) -> tuple[Attribution, float, int | None]:
    """Explain a batch; return also its seconds, what is shared included, and GPU memory."""
    classifier, images = subject.remembering, batch.images.clone()
    device = classifier.device
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if cuda else 0
    subject.recall.spared.clear()
    started = time.perf_counter()
    found = method.attribute(classifier, images, batch.pairs)
    if cuda:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started + sum(subject.recall.spared)
    return found, seconds, torch.cuda.max_memory_allocated(device) - before if cuda else None


def _reason(error: Exception) -> str:
    text = in_one_line(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _explain(method: Method) -> Explain:
    def explain(
        classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: Targets
    ) -> Float[Tensor, "n h w"]:
        return at_input(method.attribute(classifier, images.clone(), targets).maps, images)

    return explain


def _outcome(trial: _Trial, pairs: Tensor) -> Outcome:
    """Take one picture's share of a batch."""
    own = pairs.cpu()  # of the objects' class there is one pair per picture
    scores = {spec: float(values.cpu()[own].nanmean()) for spec, values in trial.scores.items()}
    rows = {spec: tuple(values[own][0].tolist()) for spec, values in trial.rows.items()}
    return replace(trial.outcome, scores=scores, rows=rows)


def _shown(subject: Subject, item: Item, batch: _Batch, trials: dict[str, _Trial], i: int) -> Shown:
    rows = (batch.pairs.image == i).nonzero().flatten()
    spec = subject.classifier.spec
    likely = spec.probabilities(batch.logits[i]).topk(min(TOP, batch.logits.shape[1]))
    classes, values = likely.indices.tolist(), likely.values.tolist()
    height, width = item.picture.pixels.shape[1:]
    return Shown(
        pixels=_shrunk(item.picture.pixels.cpu().float(), PICTURE_SIDE).round().to(torch.uint8),
        size=(height, width),
        target=spec.label_of(int(batch.pairs.label[rows[0]])) if len(rows) else "",
        top=tuple((spec.label_of(c), v) for c, v in zip(classes, values, strict=True)),
        maps={
            key: _small(trial.maps[rows[0]], batch.frames[i], subject.methods[key].normalize)
            for key, trial in trials.items()
            if trial.maps is not None and len(rows)
        },
        truth=tuple(map(spec.label_of, item.labels)),
        boxes=() if item.truth is None else tuple(map(tuple, item.truth.boxes.tolist())),
    )


def _small(raw: Float[Tensor, "u v"], frame: Frame, how: Normalize) -> SmallMap:
    """Resample a map to the whole picture, small; what is not finite or constant becomes 0."""
    maps = to_source(raw[None].float().nan_to_num(), frame)
    seen = covered(frame, maps.device)
    heat = _shrunk(normalize(maps, how, seen)[0], MAP_SIDE)
    heat = heat / heat.amax().clamp(min=1e-12)
    return SmallMap(values=heat[0].mul(255).round().to(torch.uint8).cpu())


def _shrunk(x: Float[Tensor, "k h w"], side: int) -> Float[Tensor, "k _h _w"]:
    longest = max(x.shape[1:])
    if longest <= side:
        return x
    size = [max(1, round(length * side / longest)) for length in x.shape[1:]]
    return F.interpolate(x[None], size, mode="area")[0]
