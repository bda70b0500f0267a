"""Make `docs/benchmarks.md` from `benchmarks/results/maps-*.json`: `python benchmarks/page.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TARGET = 1.05
"""Most that a map of attrib may cost, over the plain forward pass."""
CONTROL = "forward again"
NOISE = 0.1
HEAD = "# Benchmarks\n\nWritten by `python benchmarks/page.py` from what `make bench` measured.\n"


def page(reports: list[dict[str, Any]]) -> str:
    """Write the page for reports as `maps.py --json` gives them."""
    return "\n".join([HEAD, *(section(report) for report in reports)])


def section(report: dict[str, Any]) -> str:
    setting = report["setting"]
    title = f"## {setting['model']}, batch {setting['batch']}, {setting['size']} pixels\n"
    head = "| library | method | ms | ratio | spread | target |\n|---|---|---|---|---|---|"
    lines = [title, *warnings(report), head, *(line(row) for row in report["methods"])]
    return "\n".join(lines) + "\n"


def warnings(report: dict[str, Any]) -> list[str]:
    found = []
    if (report["speedup"] or 1) < 1 and report["machine"]["threads"] != 1:
        found.append("**BUSY**: threads waited for other processes.\n")
    control = [row for row in report["methods"] if row["method"] == CONTROL]
    if any(max(1 - row["low"], row["high"] - 1) > NOISE for row in control):
        found.append("**NOISY**: the forward pass differs from itself by more than 10 %.\n")
    return found


def line(row: dict[str, Any]) -> str:
    spread = f"{row['low']:.2f} .. {row['high']:.2f}"
    figures = f"{row['milliseconds']:.1f} | {row['ratio']:.3f} | {spread}"
    return f"| {row['library']} | {row['method']} | {figures} | {verdict(row)} |"


def verdict(row: dict[str, Any]) -> str:
    if row["library"] != "attrib":
        return ""
    missed = row["ratio"] / TARGET - 1
    return "met" if missed <= 0 else f"missed by {missed:.1%}"


if __name__ == "__main__":
    files = sorted((HERE / "results").glob("maps-*.json"))
    if not files:
        raise SystemExit("no results; run `python benchmarks/run.py` first")
    text = page([json.loads(file.read_text(encoding="utf-8")) for file in files])
    (HERE.parent / "docs" / "benchmarks.md").write_text(text, encoding="utf-8")
