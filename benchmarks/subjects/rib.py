"""RIB on one picture, beside the published loop written out, and the operations that it takes."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import rib
from benchmarks.harness import CONTROL, OURS, Budget, Effort, Table, call, measure
from benchmarks.models import operations

TITLE = "RIB"
ABOUT = (
    "Per picture, over the limit: the time that the operations of attrib's RIB would take at the "
    "rate of the plain network. Operations are those of convolutions and matrix products, forward "
    "and backward, counted while RIB runs; the rate is that of one forward pass of the same views. "
    "The published loop lists and decodes other pictures at every step, runs the whole network on "
    "every view at every step, and keeps all scales' activations until one backward pass. "
    "ResNet-50 of output stride 16, four steps, eight others. First both run without others, to "
    "see that they compute the same. `python benchmarks/rib.py` has options."
)
BUDGET = Budget(seconds=40, least=2, most=7, warm=0)
OPTIONS = {"model": "resnet50", "size": 160, "crop": 160, "steps": 4, "others": 8}
LOOPS = {
    "literal": ("loop", "rib"),
    "attrib": (OURS, "rib"),
    "attrib, expected others": (OURS, "rib, expected others"),
}
"""What is timed, by its name in `benchmarks.rib`: whose it is, and what."""


def tables(effort: Effort, **changed: Any) -> Iterator[Table]:
    """Measure one picture."""
    options = argparse.Namespace(**{**OPTIONS, "device": "cpu", "only": None, **changed})
    with tempfile.TemporaryDirectory() as folder:
        loops = rib.candidates(options, rib.scenes(Path(folder), options.size))
        rib.agree(loops["literal, no others"](0), loops["attrib, no others"](0))
        runs = {name: partial(loops[name], rib.POOL) for name in ("forward", *LOOPS)}
        counts = {name: operations(run) for name, run in runs.items()}
        share = counts["forward"] / counts["attrib"]
        limit = "rib's operations, at the forward pass's rate"
        candidates = [
            call("torch", limit, runs["forward"], per=share),
            *(call(*shown, runs[name]) for name, shown in LOOPS.items()),
        ]
        title = f"{options.model}, {options.size} pixels, {options.steps} steps"
        table = measure(title, candidates, BUDGET, effort)
        yield replace(table, notes=_notes(table, counts))


def _notes(table: Table, counts: dict[str, int]) -> tuple[str, ...]:
    """Say how many operations each takes, and at which share of the forward pass's rate."""
    rows = {(row.library, row.what): row for row in table.rows if not row.what.endswith(CONTROL)}
    told = [f"one forward pass of the views {counts['forward'] / 1e9:,.0f}"]
    for name, shown in LOOPS.items():
        rate = counts[name] / counts["attrib"] / rows[shown].ratio
        told.append(f"{', '.join(shown)} {counts[name] / 1e9:,.0f}, at {rate:.0%} of its rate")
    return (f"Operations, in thousand millions: {'; '.join(told)}.",)
