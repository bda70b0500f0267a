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
HEAD = """# Benchmarks

Written by `python benchmarks/page.py` from what `make bench` measured. A ratio is a call's time
over that of the plain forward pass of the same round: median and spread over the rounds. *forward
again* is that pass once more, and so the noise of the machine. The target is attrib's own, a ratio
of 1.05. Before anything is timed, the peers' maps are compared with ours; only their Grad-CAM++
differ. pytorch-grad-cam runs backward through the whole network and resizes to the input; torchcam
and Captum record the whole forward pass; attrib records from the layer on.
"""


def page(reports: list[dict[str, Any]]) -> str:
    """Write the page for reports as `maps.py --json` gives them."""
    return "\n".join([HEAD, *(section(report) for report in reports)])


def section(report: dict[str, Any]) -> str:
    setting = report["setting"]
    title = f"## {setting['model']}, batch {setting['batch']}, {setting['size']} pixels\n"
    head = "| library | method | ms | ratio | spread | target |\n|---|---|---|---|---|---|"
    lines = [
        title,
        machine(report) + "\n",
        *warnings(report),
        head,
        *(line(row) for row in report["methods"]),
    ]
    return "\n".join([*lines, *notes(report)]) + "\n"


def machine(report: dict[str, Any]) -> str:
    """Name the machine and the versions, and how often each call was timed."""
    facts = dict(report["machine"])
    where = f"{facts.pop('device')}, {facts.pop('threads')} threads"
    versions = ", ".join(f"{name} {version}" for name, version in facts.items())
    return f"{where}, {report['setting']['rounds']} rounds; {versions}."


def notes(report: dict[str, Any]) -> list[str]:
    """Say what else was measured: more targets per picture, and importing."""
    found = []
    if report["growth"]:
        rows = [
            f"{row['method']} {row['ratio']:.3f}"
            for row in report["growth"]
            if row["library"] == "attrib"
        ]
        found.append(f"\nMore classes of each picture: {'; '.join(rows)}.")
    if report["imports"]:
        seconds = report["imports"]["difference"]
        found.append(f"\n`import attrib` takes {seconds:.2f} s more than `import torch`.")
    return found


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
