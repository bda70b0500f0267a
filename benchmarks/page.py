"""Make `docs/benchmarks.md` from `benchmarks/results/*.json`: `python -m benchmarks.page`.

It shows what stands there and decides nothing: see `benchmarks.harness` and `benchmarks.report`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.subjects import SUBJECTS

__all__ = ["page", "table", "write"]

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results", HERE.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench` from what it measured; the figures of every round stand in
`benchmarks/results/`. Candidates take turns, round by round, and a ratio is a call's time over that
of the first row in the same round: the median over the rounds, and the range that leaves a tenth of
them out at either end. The row *again* is the first one once more, and so the noise of the machine.
*Beside the fastest peer* is attrib's time over that peer's, likewise. Weights are random.

`python -m benchmarks.run maps explain` runs those alone, `--factor 0.2` in a fifth of the time, and
`--threads 1 --clock processor` counts the processor's time, for a machine that is not idle.
"""
COLUMNS = ("library", "what", "{unit}", "ratio", "range", "target", "", "beside the fastest peer")


def write(results: Path, to: Path) -> None:
    """Write the page of all results that there are.

    Raises:
        FileNotFoundError: there are none.
    """
    files = [file for subject in SUBJECTS for file in sorted(results.glob(f"{subject}*.json"))]
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if not reports:
        raise FileNotFoundError(f"no results in {results}; run `make bench` first")
    to.write_text(page(reports), encoding="utf-8")


def page(reports: Sequence[dict[str, Any]]) -> str:
    """Write the page for reports as `benchmarks.report.Report` describes them."""
    parts = [HEAD, _targets(reports), *(_section(report) for report in reports)]
    return "\n".join(parts)


def _targets(reports: Sequence[dict[str, Any]]) -> str:
    lines = [
        "## Targets",
        "",
        *_runs(reports),
        "Counted in rows of the tables below.",
        "",
        "| subject | met | missed | beside a peer | slower by the median | in nine of ten rounds |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        missed, slower = len(report["missed"]), len(report["slower"])
        counts = (report["met"], missed, report["compared"], slower, report["surely"])
        lines.append(_line([report["title"], *map(str, counts)]))
    for head, kind in (("Missed:", "missed"), ("Slower than the fastest peer:", "slower")):
        found = [finding for report in reports for finding in report[kind]]
        lines += ["", head, "", *_findings(found)] if found else []
    return "\n".join(lines) + "\n"


def _runs(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Say so where not all was measured of one commit."""
    commits = dict.fromkeys(report["commit"] for report in reports)
    if len(commits) == 1:
        return []
    titles = {c: [r["title"] for r in reports if r["commit"] == c] for c in commits}
    each = "; ".join(f"{', '.join(own)} of {commit}" for commit, own in titles.items())
    return [f"**NOT ONE RUN: {each}.**", ""]


def _findings(found: Sequence[dict[str, Any]]) -> list[str]:
    """Write a line per table and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        told = groups.setdefault((finding["table"], finding["why"]), [])
        told.append(f"{finding['what']} {finding['says']}")
    return [
        f"- {table}: {'; '.join(told)}. {'Why: ' + why if why else 'No reason is known'}."
        for (table, why), told in groups.items()
    ]


def _section(report: dict[str, Any]) -> str:
    lines = [f"## {report['title']}", "", report["about"], "", _machine(report), ""]
    for warning in report["warnings"]:
        lines += [f"**{warning}**", ""]
    for part in report["tables"]:
        lines += [*table(part), ""]
    return "\n".join(lines)


def _machine(report: dict[str, Any]) -> str:
    facts = dict(report["machine"])
    where = f"{facts.pop('device')}, {facts.pop('threads')} threads"
    versions = ", ".join(f"{name} {version}" for name, version in facts.items())
    clock = "" if report["clock"] == "wall" else "; times are of the processor"
    when = f"{report['date']}, {report['commit']}"
    return f"{when}; {where}; {versions}; {report['seconds']:.0f} s{clock}."


def table(part: dict[str, Any]) -> list[str]:
    """Write one table, as `benchmarks.harness.Table` describes it."""
    rounds = len(part["rows"][0]["values"]) if part["rows"] else 0
    lines = [f"### {part['title']}", ""]
    for warning in part["warnings"]:
        lines += [f"**{warning}**", ""]
    if part["rows"]:
        lines += _rows(part["rows"], part["unit"])
    notes = [f"{rounds} rounds.", *part["notes"]] if rounds else part["notes"]
    return [*lines, "", *_list(notes)]


def _rows(rows: Sequence[dict[str, Any]], unit: str) -> list[str]:
    """Leave out the columns that are empty throughout."""
    cells = [_cells(row) for row in rows]
    kept = [i for i in range(len(COLUMNS)) if any(row[i] for row in cells)]
    head = [COLUMNS[i].format(unit=unit) for i in kept]
    return [
        _line(head),
        "|" + "---|" * len(kept),
        *(_line([row[i] for i in kept]) for row in cells),
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["library"],
        row["what"],
        _figure(row["value"]),
        _ratio(row["ratio"], 3),
        f"{_ratio(row['low'], 2)} .. {_ratio(row['high'], 2)}",
        "" if row["limit"] is None else f"{row['limit']:.3g}",
        row["verdict"],
        "" if row["beside"] is None else f"{row['beside']:.2f} × {row['peer']}",
    ]


def _ratio(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value >= 0.1 else f"{value:.{digits - 1}g}"


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _list(items: Sequence[str]) -> list[str]:
    return [f"- {item}" for item in items]


if __name__ == "__main__":
    write(RESULTS, PAGE)
