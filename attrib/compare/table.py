"""Means over pictures, with how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from attrib.compare.record import Outcome, PictureRecord

__all__ = ["Estimate", "MethodRow", "estimate", "row_of"]

RESAMPLES, LEVEL = 2000, 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over pictures.

    Args:
        mean: NaN if no picture has a score.
        low: Lower end of the interval; NaN for fewer than two pictures.
        high: Its upper end.
        pictures: How many have a score.
        without: How many have none, as their map puts no pixel before another.
    """

    mean: float
    low: float
    high: float
    pictures: int
    without: int


def estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Compute the mean and its 95 % interval by the percentile bootstrap over pictures.

    Equally many pictures are resampled alike, so that methods are compared on the same draws.

    Args:
        values: One per picture; NaN for those without.
        seed: Of the draws.
    """
    known = torch.tensor([v for v in values if math.isfinite(v)], dtype=torch.float64)
    count = len(known)
    low = high = math.nan
    if count > 1:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(0, count, (RESAMPLES, count), generator=generator)
        tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
        low, high = known[drawn].mean(1).quantile(tails).tolist()
    mean = float(known.mean()) if count else math.nan
    return Estimate(mean=mean, low=low, high=high, pictures=count, without=len(values) - count)


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
            spec: {key: _or_none(value) for key, value in vars(cell).items()}
            for spec, cell in self.scores.items()
        }
        return {**vars(self), "scores": scores}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def row_of(method: str, metrics: Sequence[str], pictures: Sequence[PictureRecord]) -> MethodRow:
    """Sum one method up over pictures."""
    every = [record.outcomes[method] for record in pictures]
    good = [outcome for outcome in every if not outcome.error]
    reasons = [outcome.error for outcome in every if outcome.error]
    peaks = [outcome.peak_bytes for outcome in good if outcome.peak_bytes is not None]
    return MethodRow(
        method=method,
        scores={
            spec: estimate([o.scores[spec] for o in good if spec in o.scores]) for spec in metrics
        },
        notes=_notes(good),
        seconds=median(outcome.seconds for outcome in good) if good else None,
        peak_bytes=max(peaks) if peaks else None,
        exact=all(outcome.exact for outcome in good),
        pictures=len(good),
        failures=len(reasons),
        error=reasons[0] if reasons else "",
    )


def _notes(outcomes: Sequence[Outcome]) -> dict[str, str]:
    found: dict[str, str] = {}
    for outcome in outcomes:
        for spec, reason in outcome.notes.items():
            found.setdefault(spec, reason)
    return found
