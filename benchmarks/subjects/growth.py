"""How the time grows with the batch, the picture, the classes and the targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import log
from statistics import linear_regression

import attrib
from benchmarks.harness import OURS, Budget, Candidate, Effort, Row, Table, call, measure
from benchmarks.models import Work, prepare

TITLE = "Growth"
ABOUT = (
    "The exponent is the slope of a line through the logarithms of number and time: 1 is in "
    "proportion, 0 not at all. Of each number the least time of all rounds is taken, as a busy "
    "machine only lengthens it; the range is from the lowest to the highest exponent of a round by "
    "itself. *All* is `explain` on tensors: maps, and boxes at the input's size. More targets are "
    "more classes of the same picture, in one call."
)
BUDGET = Budget(seconds=10, least=3, most=9)
MODEL = "torchvision/mobilenet_v2"
METHODS = ("cam", "infocam+", "gradcam")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What grows, and in which steps."""

    name: str
    steps: tuple[int, ...]


AXES = (
    Axis(name="batch", steps=(1, 2, 4, 8, 16)),
    Axis(name="pixels of a side", steps=(96, 160, 224, 320, 448)),
    Axis(name="classes", steps=(10, 100, 1000, 10000)),
    Axis(name="targets per picture", steps=(1, 4, 16, 64)),
)


def tables(
    effort: Effort, model: str = MODEL, axes: Sequence[Axis] = AXES, size: int = 224
) -> Iterator[Table]:
    """Measure every step of an axis in turns, and fit the exponents."""
    for axis in axes:
        works = {step: _work(model, axis.name, step, size) for step in axis.steps}
        per_step = {step: _candidates(work, axis, step) for step, work in works.items()}
        candidates = [candidate for step in axis.steps for candidate in per_step[step]]
        found = measure(f"{axis.name}, {model}", candidates, BUDGET, effort)
        yield Table(
            title=found.title,
            rows=found.rows,
            warnings=found.warnings,
            notes=(f"Exponents: {', '.join(_exponents(found.rows, axis))}.",),
        )


def _work(model: str, axis: str, step: int, size: int) -> Work:
    if axis == "batch":
        return prepare(model, step, size)
    if axis == "pixels of a side":
        return prepare(model, 1, step)
    if axis == "classes":
        return prepare(model, 1, size, num_classes=step)
    return prepare(model, 1, size)


def _candidates(work: Work, axis: Axis, step: int) -> list[Candidate]:
    count = step if axis.name == "targets per picture" else 1
    targets = work.logits.topk(count).indices.tolist()
    end = _end(axis, step)
    found = [call("torch", f"forward{end}", work.forward)]
    for method in METHODS:
        explainer = attrib.Explainer(work.classifier, method)
        found.append(call(OURS, f"{method}{end}", partial(explainer, work.images, targets)))
    explainer = attrib.Explainer(work.classifier, "infocam+")
    found.append(call(OURS, f"all{end}", partial(_all, explainer, work, targets)))
    return found


def _end(axis: Axis, step: int) -> str:
    return f", {axis.name} {step:,}"


def _all(explainer: attrib.Explainer, work: Work, targets: list[list[int]]) -> object:
    return attrib.localize(explainer(work.images, targets)).boxes


def _exponents(rows: Sequence[Row], axis: Axis) -> list[str]:
    values = {row.what: row.values for row in rows}
    told = []
    for name in ("forward", *METHODS, "all"):
        steps = [values[name + _end(axis, step)] for step in axis.steps]
        least = exponent(axis.steps, [min(times) for times in steps])
        each = [exponent(axis.steps, times) for times in zip(*steps, strict=True)]
        told.append(f"{name} {least:.2f} ({min(each):.2f} to {max(each):.2f})")
    return told


def exponent(steps: Sequence[float], times: Sequence[float]) -> float:
    """Fit `time ~ step ** exponent` by least squares of the logarithms."""
    return linear_regression([log(s) for s in steps], [log(t) for t in times]).slope
