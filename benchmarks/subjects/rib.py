"""RIB on one picture, beside the published loop written out."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import rib
from benchmarks.harness import OURS, Budget, Effort, Table, call, measure

TITLE = "RIB"
ABOUT = (
    "Per picture, over the published loop: it lists and decodes other pictures at every step, runs "
    "the whole network on every view at every step, and keeps all scales' activations until one "
    "backward pass. ResNet-50 of output stride 16, four steps, eight others. First both run "
    "without others, to see that they compute the same. `python benchmarks/rib.py` has options."
)
BUDGET = Budget(seconds=40, least=2, most=7, warm=0)
OPTIONS = {"model": "resnet50", "size": 160, "crop": 160, "steps": 4, "others": 8}


def tables(effort: Effort, **changed: Any) -> Iterator[Table]:
    """Measure one picture."""
    options = argparse.Namespace(**{**OPTIONS, "device": "cpu", "only": None, **changed})
    with tempfile.TemporaryDirectory() as folder:
        loops = rib.candidates(options, rib.scenes(Path(folder), options.size))
        rib.agree(loops["literal, no others"](0), loops["attrib, no others"](0))
        candidates = [
            call("loop", "rib", partial(loops["literal"], rib.POOL)),
            call(OURS, "rib", partial(loops["attrib"], rib.POOL)),
            call(OURS, "rib, expected others", partial(loops["attrib, expected others"], rib.POOL)),
        ]
        title = f"{options.model}, {options.size} pixels, {options.steps} steps"
        yield measure(title, candidates, BUDGET, effort)
