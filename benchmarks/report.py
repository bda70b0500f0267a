"""What a subject's measurement leaves: the JSON that the page is made from."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import machine, page
from benchmarks.harness import Clock, Effort, Row, Table

__all__ = ["Report", "run"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was found out about a subject.

    Args:
        subject: Its module's name.
        title: Its heading.
        about: What is measured, and over what.
        machine: Processor or GPU, threads, and versions of the libraries.
        speedup: Time of a convolution with one thread over that with all, before the first table.
        clock: What passes: time, or the processor's.
        seconds: That all took.
        warnings: Why not to trust any of it.
        met: Targets that were met.
        missed: Those that were not, and by how much, per table.
        slower: What a peer does faster in nine of ten rounds, per table.
        tables: What was measured.
    """

    subject: str
    title: str
    about: str
    machine: dict[str, str | int]
    speedup: float
    clock: Clock
    seconds: float
    warnings: tuple[str, ...]
    met: int
    missed: tuple[str, ...]
    slower: tuple[str, ...]
    tables: tuple[Table, ...]


def run(subject: str, effort: Effort, **options: Any) -> Report:
    """Measure one subject, and print its tables as they are done.

    Args:
        subject: Name of a module in `benchmarks.subjects`.
        effort: How long, and by which clock.
        options: Of its `tables`.
    """
    module = importlib.import_module(f"benchmarks.subjects.{subject}")
    started, gain, facts = time.perf_counter(), machine.speedup(), machine.facts(effort.device)
    tables = []
    for table in module.tables(effort, **options):
        tables.append(table)
        print("\n".join(page.table(asdict(table))), flush=True)
    return Report(
        subject=subject,
        title=module.TITLE,
        about=module.ABOUT,
        machine=facts,
        speedup=gain,
        clock=effort.clock,
        seconds=time.perf_counter() - started,
        warnings=machine.busy(int(facts["threads"]), gain),
        met=sum(row.verdict == "met" for table in tables for row in table.rows),
        missed=_where(tables, lambda row: row.verdict.removeprefix("met")),
        slower=_where(tables, lambda row: row.peer if row.slower else ""),
        tables=tuple(tables),
    )


def _where(tables: Sequence[Table], says: Callable[[Row], str]) -> tuple[str, ...]:
    """List the tables of which there is something to say, and what, row by row."""
    found = []
    for table in tables:
        told = [f"{row.what} {says(row)}" for row in table.rows if says(row)]
        found += [f"{table.title}: {'; '.join(told)}"] if told else []
    return tuple(found)
