"""How long it takes until there is something to use: importing, and the command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.harness import OURS, Budget, Effort, Table, call, measure

TITLE = "Start"
ABOUT = (
    "New processes from start to end, over one that imports torch. torchvision and timm are what "
    "models come from, so that a program that explains one imports them all the same."
)
BUDGET = Budget(seconds=45, least=3, most=7)
ATTRIB = "from attrib.cli import main; main()"


def tables(effort: Effort) -> Iterator[Table]:
    """Measure processes one after the other."""
    candidates = [
        call("torch", "import torch", partial(_run, "import torch")),
        call("torch", "import torch, torchvision, timm", partial(_run, "import torchvision, timm")),
        call(OURS, "import attrib", partial(_run, "import attrib")),
        call(OURS, "attrib --help", partial(_run, ATTRIB, "--help")),
        call(OURS, "attrib methods", partial(_run, ATTRIB, "methods")),
    ]
    yield measure("a process", candidates, BUDGET, effort)


def _run(code: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
