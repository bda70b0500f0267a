"""`attrib.compare`: methods side by side on one picture, several, or a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from attrib.compare.comparison import Comparison
from attrib.compare.measure import Item, measure
from attrib.compare.record import PictureRecord
from attrib.compare.sources import Source, sources_of
from attrib.compare.subject import Subject, subject_of
from attrib.datasets.labelled import LabelledDataset
from attrib.datasets.samples import BoxDataset
from attrib.errors import InputError, in_one_line
from attrib.files import reading
from attrib.images import Decode, Picture, PictureLike, Reader
from attrib.journal import Journal, open_job
from attrib.methods import Method
from attrib.metrics import Metric, ObjectMetric
from attrib.models import ModelLike, ModelRecord, Output
from attrib.progress import progress_bar
from attrib.targets import TargetsLike
from attrib.types import Fit, ModelSpec

__all__ = ["compare"]

METRICS = ("deletion", "insertion")


def compare(
    model: ModelLike,
    pictures: PictureLike | Iterable[PictureLike] | LabelledDataset | BoxDataset,
    methods: Sequence[str | Method],
    targets: TargetsLike | Literal["predicted", "true"] = "predicted",
    *,
    metrics: Sequence[str | Metric | ObjectMetric] = METRICS,
    every: int = 1,
    limit: int | None = None,
    shown: int = 12,
    threshold: float = 0.2,
    batch_size: int = 8,
    work: str | Path | None = None,
    spec: ModelSpec | None = None,
    fit: Fit | None = None,
    multi_label: bool | None = None,
    output: Output | None = None,
    decode: Decode = "pillow",
    progress: bool | None = None,
) -> Comparison:
    """Explain pictures by several methods and score the maps.

    Every method explains the same classes of the same tensors. One that fails or refuses becomes a
    row with its reason; so does a picture that cannot be read.

    Args:
        model: Whatever `Explainer` takes.
        pictures: One picture, a list of them, a `LabelledDataset`, or a `BoxDataset`, which knows
            where the objects are.
        methods: Specs such as `"infocam+(region=4)"`, or `Method`s.
        targets: `"predicted"` for the most likely class of each; `"true"` for a data set's own;
            else as for `Explainer.explain`.
        metrics: Specs such as `"deletion(steps=64)"`, or metrics; see `attrib.metrics`. Those of
            localisation, such as `"gt-known"`, need a `BoxDataset` and `targets="true"`. With
            none there are maps and seconds alone.
        every: Only every n-th picture, from the first on.
        limit: At most so many.
        shown: Keep the maps of the first so many pictures, for reports and figures.
        threshold: Fraction of a map's range at which a report first cuts boxes.
        batch_size: Pictures per forward pass.
        work: Folder that keeps what is done, picture by picture: repeat a call that was
            interrupted and it goes on, also from few pictures to more. It takes one comparison
            only, of paths or a data set.
        spec: How to feed the model; by default what it carries.
        fit: Overrides how pictures are brought to the model's size.
        multi_label: True for a model with independent (sigmoid) outputs.
        output: Where the logits are in what the model returns; see `Explainer`.
        decode: Who decodes JPEG files; see `Explainer`.
        progress: Show a bar; by default on a terminal, for more than a batch.

    Raises:
        UnknownNameError: no such model, method or metric.
        InputError: arguments that do not fit together, a folder that holds another comparison, or
            pictures none of which can be read.
    """
    if min(every, batch_size) < 1 or shown < 0 or (limit is not None and limit < 1):
        raise InputError("every, batch_size and limit are 1 or more, shown is 0 or more")
    subject = subject_of(
        model,
        methods,
        metrics,
        spec=spec,
        fit=fit,
        multi_label=multi_label,
        output=output,
        decode=decode,
    )
    name, sources, kind = sources_of(subject, pictures, targets, every, limit)
    if not sources:
        raise InputError("there is no picture to compare methods on")
    facts = _facts(subject, name, kind)
    done, failed = _run(subject, sources, facts, work, shown, batch_size, progress)
    if failed and not done:
        first = next(iter(failed.values()))
        raise InputError(f"none of {len(failed)} pictures could be read; the first: {first}")
    return Comparison(
        name=name,
        methods=tuple(subject.methods),
        metrics=tuple(subject.metrics),
        pictures=tuple(done[source.id] for source in sources if source.id in done),
        failed=failed,
        targets=kind,
        threshold=threshold,
        model=facts["model"],
    )


def _run(
    subject: Subject,
    sources: Sequence[Source],
    facts: dict[str, Any],
    work: str | Path | None,
    shown: int,
    batch_size: int,
    progress: bool | None,
) -> tuple[dict[str, PictureRecord], dict[str, str]]:
    """Measure what is not measured yet; return everything that is, and what failed."""
    done: dict[str, PictureRecord] = {}
    marks = {source.id: source.mark for source in sources}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        journal = None
        if work is not None:
            _check_kept(sources)
            journal = stack.enter_context(open_job(Path(work), facts))
        kept = {source.id for source in sources[:shown]}
        if journal is not None:
            done = _known(journal, sources, kept)
        todo = [source for source in sources if source.id not in done]
        for batch in _batches(subject.reader(), todo, batch_size, len(sources), progress):
            items, unread = _items(batch, kept)
            failed |= unread
            for record in measure(subject, items) if items else ():
                done[record.id] = record
                if journal is not None:
                    mark = marks[record.id]
                    journal.add(record.id, "done", source=mark, **record.to_dict())
    return done, failed


def _check_kept(sources: Sequence[Source]) -> None:
    if not all(source.kept for source in sources):
        raise InputError("work= keeps comparisons of files; these pictures have no paths")


def _known(journal: Journal, sources: Sequence[Source], kept: set[str]) -> dict[str, PictureRecord]:
    """Read what was measured of these pictures with these classes and objects."""
    lines, known = journal.read(), {}
    with reading(journal.folder):
        for source in sources:
            line = lines.get(source.id)
            if line is None or line["status"] != "done" or line["source"] != source.mark:
                continue
            record = PictureRecord.from_dict(source.id, line)
            if source.id not in kept:
                known[source.id] = replace(record, shown=None)
            elif record.shown is not None:
                known[source.id] = record
    return known


def _batches(
    reader: Reader, todo: Sequence[Source], size: int, total: int, progress: bool | None
) -> Iterator[list[tuple[Source, Future[Picture]]]]:
    """Yield sources and their pictures, the next batch of which is read meanwhile."""
    reads = reader.ahead(todo, attrgetter("picture"), depth=size)
    with progress_bar(total, progress, initial=total - len(todo), from_left=size + 1) as bar:
        while batch := list(islice(reads, size)):
            yield batch
            bar.update(len(batch))


def _items(
    batch: Sequence[tuple[Source, Future[Picture]]], kept: set[str]
) -> tuple[list[Item], dict[str, str]]:
    items, failed = [], {}
    for source, read in batch:
        try:
            picture = read.result()
        except InputError as error:
            failed[source.id] = in_one_line(error)
            continue
        items.append(
            Item(
                id=source.id,
                picture=picture,
                classes=source.classes,
                labels=source.labels,
                truth=source.sample() if source.sample else None,
                shown=source.id in kept,
            )
        )
    return items, failed


def _facts(subject: Subject, name: str, targets: str) -> dict[str, Any]:
    """Everything that the results of a picture depend on, but for the picture."""
    return {
        "schema": "attrib.comparison-job/3",
        "pictures": name,
        "methods": list(subject.methods),
        "metrics": list(subject.metrics),
        "targets": targets,
        "device": subject.classifier.device.type,
        "model": ModelRecord(subject.classifier, subject.fit, subject.decode).to_dict(),
        "captum": version("captum"),
    }
