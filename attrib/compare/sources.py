"""Which pictures are compared on, by which classes, and where their objects are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from attrib.compare.subject import Subject
from attrib.datasets.labelled import LabelledDataset, LabelledSample
from attrib.datasets.samples import BoxDataset, BoxSample
from attrib.errors import InputError
from attrib.files import Stored
from attrib.images import PictureLike, as_batch
from attrib.metrics import ObjectMetric
from attrib.targets import check_labels, classes_per_picture

__all__ = ["Source", "sources_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Where a picture comes from.

    Args:
        id: Unique.
        picture: To read.
        classes: To explain; None for the most likely one.
        labels: Its own classes, where they are known.
        boxes: Those of its objects, as text.
        sample: Reads its objects.
        kept: Its id says which picture it is also tomorrow.
    """

    id: str
    picture: PictureLike
    classes: tuple[int, ...] | None
    labels: tuple[int, ...] = ()
    boxes: str = ""
    sample: Callable[[], BoxSample] | None = None
    kept: bool = True

    @property
    def mark(self) -> str:
        """Sixteen hex digits that change with its classes and its objects."""
        known = f"{self.classes} {self.labels} {self.boxes}"
        return hashlib.sha256(known.encode()).hexdigest()[:16]


def _check_objects(subject: Subject, pictures: Any, targets: Any) -> None:
    """Raise `InputError` if a metric needs true objects and there are none."""
    wanted = [spec for spec, metric in subject.metrics.items() if isinstance(metric, ObjectMetric)]
    known = isinstance(pictures, BoxDataset) and not isinstance(pictures, LabelledDataset)
    if wanted and not (known and targets == "true"):
        raise InputError(
            f"{', '.join(wanted)} scores the map of a true class against its true objects: give a "
            "data set that knows them, such as attrib.datasets.CUB, and targets='true'"
        )


def sources_of(
    subject: Subject, pictures: Any, targets: Any, every: int, limit: int | None
) -> tuple[str, list[Source], Literal["predicted", "true", "given"]]:
    """List what is compared on: its name, each picture, and what kind of classes are explained.

    Args:
        subject: Model, methods and metrics.
        pictures: As `compare` takes them.
        targets: As `compare` takes them.
        every: Only every n-th picture.
        limit: At most so many of them.

    Raises:
        InputError: pictures, targets and metrics do not fit together.
    """
    _check_objects(subject, pictures, targets)
    if isinstance(pictures, LabelledDataset | BoxDataset):
        return _of_dataset(subject, pictures, targets, every, limit)
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
        Source(
            id=key,
            picture=item,
            classes=None if classes is None else tuple(classes[i]),
            kept=isinstance(item, str | os.PathLike | Stored),
        )
        for i, (key, item) in enumerate(zip(ids, items, strict=True))
    ]
    return "pictures", sources[::every][:limit], "predicted" if classes is None else "given"


def _of_dataset(
    subject: Subject,
    dataset: LabelledDataset | BoxDataset,
    targets: Any,
    every: int,
    limit: int | None,
) -> tuple[str, list[Source], Literal["predicted", "true", "given"]]:
    if targets not in (None, "predicted", "true"):
        raise InputError(f"for a data set targets are 'predicted' or 'true', got {targets!r}")
    true = targets == "true"
    try:
        check_labels(subject.classifier, dataset.name, dataset.labels)
        named = True
    except InputError:
        if true:
            raise
        named = False  # other classes than the model's: nothing says whether it is right
    chosen = range(len(dataset))[::every][:limit]
    if isinstance(dataset, LabelledDataset):
        sources = [_of_labelled(dataset[i], true, named) for i in chosen]
    else:
        sources = [_of_boxes(dataset, i, true, named) for i in chosen]
    return dataset.name, sources, "true" if true else "predicted"


def _of_labelled(sample: LabelledSample, true: bool, named: bool) -> Source:
    classes, known = sample.labels if true else None, sample.labels if named else ()
    return Source(id=sample.id, picture=sample.picture, classes=classes, labels=known)


def _of_boxes(dataset: BoxDataset, index: int, true: bool, named: bool) -> Source:
    sample = dataset[index]
    return Source(
        id=sample.id,
        picture=sample.picture,
        classes=(sample.label,) if true else None,
        labels=(sample.label,) if named else (),
        boxes=str(sample.boxes.tolist()),
        sample=partial(dataset.__getitem__, index),  # again when its turn comes: masks are large
    )


def _id(item: PictureLike, index: int) -> str:
    return os.fspath(item) if isinstance(item, str | os.PathLike) else f"picture {index}"
