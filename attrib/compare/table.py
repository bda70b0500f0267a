"""Means over pictures, with how sure they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.compare.record import Outcome, PictureRecord
from attrib.metrics import ObjectMetric, resolve_score
from attrib.metrics.objects import Pooled

__all__ = ["Estimate", "MethodRow", "estimate", "estimate_pooled", "row_of"]

RESAMPLES, LEVEL = 2000, 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over pictures, or what stands in its place: the share at the best threshold.

    Args:
        mean: NaN if no picture has a score.
        low: Lower end of the interval; NaN for fewer than two pictures.
        high: Its upper end.
        pictures: How many have a score.
        without: How many have none, as their map puts no pixel before another.
        oracle: Thresholds that are best for these very pictures, at which the mean was taken.
    """

    mean: float
    low: float
    high: float
    pictures: int
    without: int
    oracle: tuple[float, ...] = ()


def estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Compute the mean and its 95 % interval by the percentile bootstrap over pictures.

    Equally many pictures are resampled alike, so that methods are compared on the same draws.

    Args:
        values: One per picture; NaN for those without.
        seed: Of the draws.
    """
    return estimate_pooled([(value,) for value in values], _mean, seed=seed)


def estimate_pooled(
    rows: Sequence[Sequence[float]],
    pool: Callable[[Float[Tensor, "m s"]], Pooled],
    *,
    seed: int = 0,
) -> Estimate:
    """Compute what `pool` makes of the mean row, and its 95 % interval; see `estimate`.

    Thresholds are chosen anew in every draw, so that the choice is part of what is unsure.

    Args:
        rows: One per picture, of one length; those with NaN are left out.
        pool: Scores mean rows.
        seed: Of the draws.
    """
    known = torch.tensor([row for row in rows if all(map(math.isfinite, row))], dtype=torch.float64)
    count, without = len(known), len(rows) - len(known)
    if not count:
        return Estimate(mean=math.nan, low=math.nan, high=math.nan, pictures=0, without=without)
    found, low, high = pool(known.mean(0, keepdim=True)), math.nan, math.nan
    if count > 1:
        tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
        drawn = pool(_times_drawn(count, seed) @ known / count).values
        low, high = drawn.quantile(tails).tolist()
    oracle = tuple(round(value, 6) for value in found.thresholds[0].tolist())
    return Estimate(mean=float(found.values[0]), low=low, high=high, pictures=count,
                    without=without, oracle=oracle)  # fmt: skip


def _times_drawn(count: int, seed: int) -> Float[Tensor, "m count"]:
    """Count how often each picture is in each draw of as many."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, count, (RESAMPLES, count), generator=generator)
    times = torch.zeros(RESAMPLES, count, dtype=torch.float64)
    return times.scatter_add_(1, drawn, torch.ones_like(times))


def _mean(rows: Float[Tensor, "m 1"]) -> Pooled:
    return Pooled(rows[:, 0], rows[:, 1:])


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """What is known of one method.

    Args:
        method: Its spec.
        scores: By metric.
        notes: By metric, why a score is missing.
        seconds: Per picture, median; None if it never ran.
        peak_bytes: Most GPU memory that a batch took; None elsewhere.
        exact: Its maps follow its equation on this model.
        pictures: How many it explained.
        failures: How many it did not.
        error: Why not, for the first of these.
    """

    method: str
    scores: dict[str, Estimate]
    notes: dict[str, str]
    seconds: float | None
    peak_bytes: int | None
    exact: bool
    pictures: int
    failures: int
    error: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; None for what is not a number."""
        scores = {
            spec: {key: _plain(value) for key, value in vars(cell).items()}
            for spec, cell in self.scores.items()
        }
        return {**vars(self), "scores": scores}


def _plain(value: float | tuple[float, ...]) -> float | list[float] | None:
    if isinstance(value, tuple):
        return list(value)
    return value if math.isfinite(value) else None


def row_of(method: str, metrics: Sequence[str], pictures: Sequence[PictureRecord]) -> MethodRow:
    """Sum one method up over pictures."""
    every = [record.outcomes[method] for record in pictures]
    good = [outcome for outcome in every if not outcome.error]
    reasons = [outcome.error for outcome in every if outcome.error]
    peaks = [outcome.peak_bytes for outcome in good if outcome.peak_bytes is not None]
    return MethodRow(
        method=method,
        scores={spec: _estimate(spec, good) for spec in metrics},
        notes=_notes(good),
        seconds=median(outcome.seconds for outcome in good) if good else None,
        peak_bytes=max(peaks) if peaks else None,
        exact=all(outcome.exact for outcome in good),
        pictures=len(good),
        failures=len(reasons),
        error=reasons[0] if reasons else "",
    )


def _estimate(spec: str, outcomes: Sequence[Outcome]) -> Estimate:
    metric = resolve_score(spec)
    if isinstance(metric, ObjectMetric):
        return estimate_pooled([o.rows[spec] for o in outcomes if spec in o.rows], metric.pool)
    return estimate([o.scores[spec] for o in outcomes if spec in o.scores])


def _notes(outcomes: Sequence[Outcome]) -> dict[str, str]:
    found: dict[str, str] = {}
    for outcome in outcomes:
        for spec, reason in outcome.notes.items():
            found.setdefault(spec, reason)
    return found
