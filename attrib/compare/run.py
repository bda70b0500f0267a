"""`attrib.compare`: methods side by side on one picture, several, or a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from torch import nn

from attrib.compare.comparison import Comparison
from attrib.compare.measure import Item, measure
from attrib.compare.record import PictureRecord
from attrib.compare.subject import Subject, subject_of
from attrib.datasets.labelled import LabelledDataset, LabelledSample, digest
from attrib.errors import InputError
from attrib.explanation import ModelRecord
from attrib.files import reading, writing
from attrib.images import PictureLike, as_batch, read_image
from attrib.journal import Journal, claim
from attrib.methods import Method
from attrib.metrics import Metric
from attrib.models import Output, SpatialClassifier
from attrib.targets import TargetsLike, check_labels, classes_per_picture
from attrib.types import Fit, ModelSpec

__all__ = ["compare"]

METRICS = ("deletion", "insertion")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Source:
    """Where a picture comes from."""

    id: str
    picture: PictureLike
    classes: tuple[int, ...] | None


def compare(
    model: nn.Module | str | SpatialClassifier,
    pictures: PictureLike | Iterable[PictureLike] | LabelledDataset,
    methods: Sequence[str | Method],
    targets: TargetsLike | Literal["predicted", "true"] = "predicted",
    *,
    metrics: Sequence[str | Metric] = METRICS,
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
    progress: bool | None = None,
) -> Comparison:
    """Explain pictures by several methods and score the maps.

    Every method explains the same classes of the same tensors. One that fails or refuses becomes a
    row with its reason; so does a picture that cannot be read.

    Args:
        model: Whatever `Explainer` takes.
        pictures: One picture, a list of them, or a `LabelledDataset`.
        methods: Specs such as `"infocam+(region=4)"`, or `Method`s.
        targets: `"predicted"` for the most likely class of each; `"true"` for a data set's own;
            else as for `Explainer.explain`.
        metrics: Specs such as `"deletion(steps=64)"`, or `Metric`s; see `attrib.metrics`.
        every: Only every n-th picture, from the first on.
        limit: At most so many.
        shown: Keep the maps of the first so many pictures, for reports and figures.
        threshold: Fraction of a map's range at which a report first cuts boxes.
        batch_size: Pictures per forward pass.
        work: Folder that keeps what is done, picture by picture: repeat a call that was
            interrupted and it goes on. It takes one comparison only, of paths or a data set.
        spec: How to feed the model; by default what it carries.
        fit: Overrides how pictures are brought to the model's size.
        multi_label: True for a model with independent (sigmoid) outputs.
        output: Where the logits are in what the model returns; see `Explainer`.
        progress: Show a bar; by default on a terminal, for more than a batch.

    Raises:
        UnknownNameError: no such model, method or metric.
        InputError: arguments that do not fit together, or a folder that holds another comparison.
    """
    if min(every, batch_size) < 1 or shown < 0 or (limit is not None and limit < 1):
        raise InputError("every, batch_size and limit are 1 or more, shown is 0 or more")
    subject = subject_of(
        model, methods, metrics, spec=spec, fit=fit, multi_label=multi_label, output=output
    )
    name, sources, kind = _sources(subject, pictures, targets)
    sources = sources[::every][:limit]
    if not sources:
        raise InputError("there is no picture to compare methods on")
    facts = _facts(subject, name, sources, kind, shown, threshold)
    done, failed = _run(subject, sources, facts, work, shown, batch_size, progress)
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


# Which pictures, which classes


def _sources(
    subject: Subject, pictures: Any, targets: Any
) -> tuple[str, list[_Source], Literal["predicted", "true", "given"]]:
    if isinstance(pictures, LabelledDataset):
        return _of_dataset(subject, pictures, targets)
    items, single = as_batch(pictures)
    if isinstance(targets, str) and targets == "true":
        raise InputError("targets='true' is for data sets, which know their classes")
    ids = [_id(item, i) for i, item in enumerate(items)]
    if len(set(ids)) < len(ids):
        raise InputError("a picture is given twice; every path counts once")
    given = None if isinstance(targets, str) and targets == "predicted" else targets
    labels = subject.classifier.spec.labels
    classes = classes_per_picture(given, len(items), labels, single=single)
    sources = [
        _Source(id=key, picture=item, classes=None if classes is None else tuple(classes[i]))
        for i, (key, item) in enumerate(zip(ids, items, strict=True))
    ]
    return "pictures", sources, "predicted" if classes is None else "given"


def _of_dataset(
    subject: Subject, dataset: LabelledDataset, targets: Any
) -> tuple[str, list[_Source], Literal["predicted", "true", "given"]]:
    if targets not in (None, "predicted", "true"):
        raise InputError(f"for a data set targets are 'predicted' or 'true', got {targets!r}")
    true = targets == "true"
    if true:
        check_labels(subject.classifier, dataset.name, dataset.labels)
    samples = [dataset[i] for i in range(len(dataset))]
    sources = [
        _Source(id=s.id, picture=s.picture, classes=s.labels if true else None) for s in samples
    ]
    return dataset.name, sources, "true" if true else "predicted"


def _id(item: PictureLike, index: int) -> str:
    return os.fspath(item) if isinstance(item, str | os.PathLike) else f"picture {index}"


# Doing them, or going on


def _run(
    subject: Subject,
    sources: Sequence[_Source],
    facts: dict[str, Any],
    work: str | Path | None,
    shown: int,
    batch_size: int,
    progress: bool | None,
) -> tuple[dict[str, PictureRecord], dict[str, str]]:
    """Measure what is not measured yet; return everything that is, and what failed."""
    done: dict[str, PictureRecord] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        journal = None
        if work is not None:
            stack.enter_context(writing(work))
            journal = stack.enter_context(_opened(Path(work), sources, facts))
            done = _known(journal, sources)
        kept = {source.id for source in sources[:shown]}
        todo = [source for source in sources if source.id not in done]
        for batch in _batches(todo, batch_size, len(sources), progress):
            items, unread = _read(batch, kept)
            failed |= unread
            for record in measure(subject, items) if items else ():
                done[record.id] = record
                if journal is not None:
                    journal.add(record.id, "done", **record.to_dict())
    return done, failed


def _opened(work: Path, sources: Sequence[_Source], facts: dict[str, Any]) -> Any:
    if not all(isinstance(source.picture, str | os.PathLike) for source in sources):
        raise InputError("work= keeps comparisons of files; these pictures have no paths")
    claim(work, facts)
    return Journal(work, "1-of-1").open()


def _known(journal: Journal, sources: Sequence[_Source]) -> dict[str, PictureRecord]:
    lines, wanted = journal.read(), {source.id for source in sources}
    with reading(journal.folder):
        return {
            key: PictureRecord.from_dict(key, line)
            for key, line in lines.items()
            if key in wanted and line["status"] == "done"
        }


def _batches(
    todo: Sequence[_Source], size: int, total: int, progress: bool | None
) -> Iterator[Sequence[_Source]]:
    from tqdm import tqdm

    show = progress if progress is not None else None if len(todo) > size else False
    disable = None if show is None else not show
    with tqdm(
        total=total, initial=total - len(todo), disable=disable, unit="picture", leave=False
    ) as bar:
        for start in range(0, len(todo), size):
            yield todo[start : start + size]
            bar.update(min(size, len(todo) - start))


def _read(batch: Sequence[_Source], kept: set[str]) -> tuple[list[Item], dict[str, str]]:
    items, failed = [], {}
    for source in batch:
        try:
            picture = read_image(source.picture)
        except InputError as error:
            failed[source.id] = " ".join(str(error).split())
            continue
        items.append(
            Item(id=source.id, picture=picture, classes=source.classes, shown=source.id in kept)
        )
    return items, failed


def _facts(
    subject: Subject,
    name: str,
    sources: Sequence[_Source],
    targets: str,
    shown: int,
    threshold: float,
) -> dict[str, Any]:
    """Everything that the results depend on."""
    return {
        "schema": "attrib.comparison-job/2",
        "pictures": name,
        "list": digest(
            LabelledSample(id=s.id, picture=Path(s.id), labels=s.classes or ()) for s in sources
        ),
        "methods": list(subject.methods),
        "metrics": list(subject.metrics),
        "targets": targets,
        "shown": shown,
        "threshold": threshold,
        "device": subject.classifier.device.type,
        "model": ModelRecord(subject.classifier, subject.fit).to_dict(),
        "captum": version("captum"),
    }
