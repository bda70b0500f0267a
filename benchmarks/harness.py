"""How everything is timed: candidates take turns, and each is compared with the first of its round.

So the drift of a busy machine hits all alike. The first candidate of a table is what the others are
compared with, and it comes twice: how far it strays from itself is the noise of the machine.
What a figure means, whether it meets its target and whether the machine was quiet is decided here,
once, and stands in the JSON; the page only shows it.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from random import Random
from statistics import median
from typing import Any, Literal

import torch

__all__ = [
    "CONTROL",
    "MET",
    "NOISE",
    "OURS",
    "Budget",
    "Candidate",
    "Clock",
    "Effort",
    "Row",
    "Table",
    "call",
    "measure",
    "measured",
    "noisy",
    "rows_of",
]

CONTROL = " again"
"""What the name of the first candidate's second turn ends with."""
NOISE = 0.1
"""A table is called noisy where its first candidate strays from itself further than this."""
OURS = "attrib"
MET = "met"
Ready = Callable[[], AbstractContextManager[Callable[[], Any]]]

Clock = Literal["wall", "processor"]
"""What passes: time, or the processor's time for this process and those that it starts. A busy
machine lengthens the latter less; it means something with one thread only."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a table may take.

    Args:
        seconds: After which no further round begins.
        least: Rounds that are made all the same.
        most: Rounds that are enough.
        warm: Rounds that are not counted.
    """

    seconds: float
    least: int = 3
    most: int = 31
    warm: int = 1


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What is said of all tables at once.

    Args:
        factor: Fraction of every budget's seconds, and of its least rounds.
        clock: By which calls are timed.
        device: Where models and maps are, `"cpu"` or `"cuda"`.
    """

    factor: float = 1.0
    clock: Clock = "wall"
    device: str = "cpu"

    def of(self, budget: Budget) -> Budget:
        """Return what remains of a budget."""
        least = max(1, min(budget.least, round(budget.least * self.factor)))
        return replace(budget, seconds=budget.seconds * self.factor, least=least)


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """Something to time.

    Args:
        library: Whose it is.
        what: What it does; peers that do the same have the same.
        ready: Sets up, gives the call to time, and takes down.
        limit: The target: most that its ratio may be.
        per: Pictures in a call, or the share of one picture's work; times are of one.
        why: What it does beyond those that it is measured against, for where it falls behind them.
    """

    library: str
    what: str
    ready: Ready
    limit: float | None = None
    per: float = 1
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table.

    Args:
        library: Whose it is.
        what: What it does.
        values: One figure per round, in the table's unit.
        value: Their median.
        ratio: Median over rounds of its figure over that of the round's first candidate.
        low: The ratio that a tenth of the rounds lies below; with less than ten, the smallest.
        high: Likewise above, the largest.
        limit: The target: most that the ratio may be; None for no target.
        verdict: Whether the target is met, or by how much it is missed and how many rounds met it
            all the same; empty without.
        peer: What does the same fastest; empty for others than attrib.
        beside: Median over rounds of its figure over that peer's; None without.
        slower: It took longer than that peer in nine of ten rounds.
        why: What it does beyond those that it is measured against.
    """

    library: str
    what: str
    values: tuple[float, ...]
    value: float
    ratio: float
    low: float
    high: float
    limit: float | None = None
    verdict: str = ""
    peer: str = ""
    beside: float | None = None
    slower: bool = False
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that are compared with the first of them.

    Args:
        title: What all have in common.
        rows: The first is the limit, or the reference.
        unit: Of `Row.values`.
        warnings: Why not to trust it.
        notes: What else was found out.
    """

    title: str
    rows: tuple[Row, ...]
    unit: str = "ms"
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def call(library: str, what: str, function: Callable[[], Any], **options: Any) -> Candidate:
    """Make a candidate of a function that needs nothing set up."""
    return Candidate(library=library, what=what, ready=partial(nullcontext, function), **options)


def measure(
    title: str,
    candidates: Sequence[Candidate],
    budget: Budget,
    effort: Effort,
    *,
    notes: Sequence[str] = (),
) -> Table:
    """Time all candidates in turns, the first one twice."""
    first = candidates[0]
    again = Candidate(
        library=first.library, what=first.what + CONTROL, ready=first.ready, per=first.per
    )
    shown = [first, again, *candidates[1:]]
    times = _times(shown, effort.of(budget), effort)
    return measured(title, shown, times, notes=notes)


def _times(
    candidates: Sequence[Candidate], budget: Budget, effort: Effort
) -> list[tuple[float, ...]]:
    """Milliseconds per picture of each candidate in each round."""
    for _ in range(budget.warm):
        for candidate in candidates:
            seconds(candidate, effort)
    times: list[list[float]] = [[] for _ in candidates]
    for i in _rounds(budget):
        for j in _turns(i, len(candidates)):
            times[j].append(1000 * seconds(candidates[j], effort) / candidates[j].per)
    return [tuple(own) for own in times]


def _rounds(budget: Budget) -> Iterator[int]:
    started = time.perf_counter()
    for i in count():
        late = time.perf_counter() - started >= budget.seconds
        if i >= budget.most or (late and i >= budget.least):
            return
        yield i


def _turns(number: int, length: int) -> list[int]:
    """Shuffle a round, such that nobody always comes after the same one.

    It leaves its caches, and sometimes threads that spin for a while.
    """
    order = list(range(length))
    Random(number).shuffle(order)
    return order


def seconds(candidate: Candidate, effort: Effort) -> float:
    clock = _worked if effort.clock == "processor" else time.perf_counter
    with candidate.ready() as run:
        _synchronise(effort.device)
        started = clock()
        run()
        _synchronise(effort.device)
        return clock() - started


def _worked() -> float:
    """Seconds of the processor for this process and those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def measured(
    title: str,
    candidates: Sequence[Candidate],
    values: Sequence[Sequence[float]],
    *,
    unit: str = "ms",
    notes: Sequence[str] = (),
) -> Table:
    """Make a table of what was measured of each candidate in each round."""
    rows = rows_of(candidates, values)
    return Table(title=title, rows=rows, unit=unit, warnings=noisy(rows), notes=tuple(notes))


def rows_of(candidates: Sequence[Candidate], values: Sequence[Sequence[float]]) -> tuple[Row, ...]:
    return tuple(
        _row(candidate, own, values[0], _fastest(candidate, candidates, values))
        for candidate, own in zip(candidates, values, strict=True)
    )


def _row(
    candidate: Candidate,
    own: Sequence[float],
    first: Sequence[float],
    fastest: tuple[str, Sequence[float]] | None,
) -> Row:
    low, ratio, high = _ratios(own, first)
    peer, beside, slower = "", None, False
    if fastest is not None:
        least, beside, _ = _ratios(own, fastest[1])
        peer, slower = fastest[0], least > 1
    return Row(
        library=candidate.library,
        what=candidate.what,
        values=tuple(own),
        value=median(own),
        ratio=ratio,
        low=low,
        high=high,
        limit=candidate.limit,
        verdict=_verdict([a / b for a, b in zip(own, first, strict=True)], candidate.limit),
        peer=peer,
        beside=beside,
        slower=slower,
        why=candidate.why,
    )


def _ratios(own: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """A tenth of the rounds lies below the first, a tenth above the last; between them the median.

    Of fewer than ten rounds, the smallest and the largest.
    """
    ratios = sorted(a / b for a, b in zip(own, other, strict=True))
    tenth = len(ratios) // 10
    return ratios[tenth], median(ratios), ratios[-1 - tenth]


def _verdict(ratios: Sequence[float], limit: float | None) -> str:
    """Judge the median."""
    if limit is None:
        return ""
    missed = median(ratios) / limit - 1
    if missed <= 0:
        return MET
    within = sum(ratio <= limit for ratio in ratios)
    return f"missed by {missed:.1%}, met in {within} of {len(ratios)} rounds"


def _fastest(
    candidate: Candidate, candidates: Sequence[Candidate], values: Sequence[Sequence[float]]
) -> tuple[str, Sequence[float]] | None:
    """Name the peer that does the same fastest, with its figures; None where there is none."""
    if candidate.library != OURS:
        return None
    peers = [
        (median(own), c.library, own)
        for c, own in zip(candidates, values, strict=True)
        if c.what == candidate.what and c.library != OURS
    ]
    return min(peers)[1:] if peers else None


def noisy(rows: Sequence[Row]) -> tuple[str, ...]:
    """Say so if the first candidate does not even agree with itself."""
    strays = [max(1 - row.low, row.high - 1) for row in rows if row.what.endswith(CONTROL)]
    if not strays or max(strays) <= NOISE:
        return ()
    return (
        f"NOISY: the first row differs from itself by up to {max(strays):.0%} in a round; ratios "
        "closer than that to each other, or to 1, tell nothing.",
    )
