"""What a subject's measurement leaves: the JSON that the page is made from."""

from __future__ import annotations

import importlib
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks import machine, page
from benchmarks.harness import MET, Clock, Effort, Row, Table

__all__ = ["Finding", "Report", "run"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A row that falls short of its target, or behind a peer.

    Args:
        table: Its table's title.
        what: Whose row it is.
        says: By how much.
        why: For what reason; empty where none is known.
    """

    table: str
    what: str
    says: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was found out about a subject.

    Args:
        subject: Its module's name.
        title: Its heading.
        about: What is measured, and over what.
        date: When it began, by the machine's clock, ISO 8601 in UTC.
        commit: What was measured; a tree that differs from its commit says so.
        machine: Processor or GPU, threads, and versions of the libraries.
        speedup: Time of a convolution with one thread over that with all, before the first table
            or after the last, whichever is less.
        clock: What passes: time, or the processor's.
        seconds: That all took.
        warnings: Why not to trust any of it.
        met: Targets that were met.
        missed: Those that were not, a row each.
        compared: Rows beside which a peer does the same.
        slower: Those of them where the fastest peer's median is less, a row each.
        surely: How many of these took longer than the peer in nine of ten rounds.
        tables: What was measured.
    """

    subject: str
    title: str
    about: str
    date: str
    commit: str
    machine: dict[str, str | int]
    speedup: float
    clock: Clock
    seconds: float
    warnings: tuple[str, ...]
    met: int
    missed: tuple[Finding, ...]
    compared: int
    slower: tuple[Finding, ...]
    surely: int
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
    date, commit = datetime.now(UTC).isoformat(timespec="minutes"), machine.commit()
    tables = []
    for table in module.tables(effort, **options):
        tables.append(table)
        print("\n".join(page.table(asdict(table))), flush=True)
    gain = min(gain, machine.speedup())
    rows = [(table.title, row) for table in tables for row in table.rows]
    return Report(
        subject=subject,
        title=module.TITLE,
        about=module.ABOUT,
        date=date,
        commit=commit,
        machine=facts,
        speedup=gain,
        clock=effort.clock,
        seconds=time.perf_counter() - started,
        warnings=machine.busy(int(facts["threads"]), gain),
        met=sum(row.verdict == MET for _, row in rows),
        missed=tuple(_found(t, r, r.verdict) for t, r in rows if r.verdict not in ("", MET)),
        compared=sum(row.beside is not None for _, row in rows),
        slower=tuple(_found(t, r, _behind(r)) for t, r in rows if (r.beside or 0) > 1),
        surely=sum(row.slower for _, row in rows),
        tables=tuple(tables),
    )


def _found(table: str, row: Row, says: str) -> Finding:
    return Finding(table=table, what=row.what, says=says, why=row.why)


def _behind(row: Row) -> str:
    how = "in nine of ten rounds" if row.slower else "by the median"
    return f"{row.beside:.3f} × {row.peer} {how}"
