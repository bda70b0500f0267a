"""What is compared: a model, methods, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from attrib.errors import InputError
from attrib.images import Decode, Reader
from attrib.methods import Method, resolve
from attrib.metrics import Metric, ObjectMetric, resolve_score
from attrib.models import ModelLike, Output, SpatialClassifier, as_classifier
from attrib.models.recall import Recall
from attrib.registry import format_spec
from attrib.types import Fit, ModelSpec

__all__ = ["Subject", "subject_of"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A model with methods and metrics.

    Args:
        classifier: The model, split as far as it can be; metrics ask it.
        remembering: The same, with what was made of the last batch; methods explain it.
        recall: What it remembers that in.
        methods: By spec, in the order given.
        metrics: By spec, in the order given; those that need true objects among them.
        fit: How pictures are brought to the model's size.
        decode: Who decodes JPEG files.
    """

    classifier: SpatialClassifier
    remembering: SpatialClassifier
    recall: Recall
    methods: dict[str, Method]
    metrics: dict[str, Metric | ObjectMetric]
    fit: Fit
    decode: Decode

    def reader(self) -> Reader:
        """Return what reads pictures for the model."""
        return Reader(self.classifier.device, self.decode)


def subject_of(
    model: ModelLike,
    methods: Sequence[str | Method],
    metrics: Sequence[str | Metric | ObjectMetric],
    *,
    spec: ModelSpec | None = None,
    fit: Fit | None = None,
    multi_label: bool | None = None,
    output: Output | None = None,
    decode: Decode = "pillow",
) -> Subject:
    """Load and split the model, and build methods and metrics from their specs.

    Raises:
        UnknownNameError: no such model, method or metric.
        InputError: no method, or one given twice.
    """
    if isinstance(methods, str) or isinstance(metrics, str):
        raise InputError("methods and metrics are lists of specs; write ['cam'] instead of 'cam'")
    if not methods:
        raise InputError("there is no method to compare; name one or more, such as 'cam'")
    classifier = as_classifier(model, spec, multi_label, output, need="features")
    recall = Recall()
    return Subject(
        classifier=classifier,
        remembering=classifier.remembering(recall),
        recall=recall,
        methods=_by_spec("methods", [resolve(method) for method in methods]),
        metrics=_by_spec("metrics", [resolve_score(metric) for metric in metrics]),
        fit=fit or classifier.spec.fit,
        decode=decode,
    )


def _by_spec(kind: str, things: list[T]) -> dict[str, T]:
    names = [format_spec(thing) for thing in things]
    if len(set(names)) < len(names):
        raise InputError(f"{kind} are given once each, got {names}")
    return dict(zip(names, things, strict=True))
