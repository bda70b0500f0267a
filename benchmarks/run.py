"""Run the benchmarks one after the other: `python -m benchmarks.run`, or `make bench`.

Each subject runs in a process of its own and writes `benchmarks/results/NAME.json`; then the page
is made from all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import torch

from attrib.cli.memory import keep_freed_memory
from attrib.files import replacing
from benchmarks import page, report
from benchmarks.harness import Clock, Effort
from benchmarks.subjects import ON_DEVICE, SUBJECTS

QUIET = {"OPENBLAS_THREAD_TIMEOUT": "4"}
"""NumPy's linear algebra, which a peer uses, else leaves threads that spin for a tenth of a second
and slow down whatever comes next; 4 is the least."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--factor", type=float, default=1.0, help="of the time that all may take")
    parser.add_argument("--clock", choices=get_args(Clock), default="wall", help="what is counted")
    parser.add_argument("--device", default="cpu", help=f"cpu or cuda: {', '.join(ON_DEVICE)}")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice if not given")
    parser.add_argument("--results", type=Path, default=page.RESULTS)
    parser.add_argument("--no-page", action="store_true", help="only measure")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in SUBJECTS]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(SUBJECTS)}")
    names = given.names or list(SUBJECTS if given.device == "cpu" else ON_DEVICE)
    if len(names) == 1 and QUIET.items() <= os.environ.items():
        _measure(names[0], given)
    else:
        _each(names, given)
    if not given.no_page:
        page.write(given.results, page.PAGE)


def _each(names: Sequence[str], given: argparse.Namespace) -> None:
    options = ["--factor", str(given.factor), "--clock", given.clock, "--no-page"]
    options += ["--device", given.device]
    options += ["--results", str(given.results.resolve())]
    if given.threads is not None:
        options += ["--threads", str(given.threads)]
    for name in names:
        command = [sys.executable, "-m", "benchmarks.run", name, *options]
        environment = {**os.environ, **QUIET}
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1], env=environment)


def _measure(name: str, given: argparse.Namespace) -> None:
    keep_freed_memory()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    effort = Effort(factor=given.factor, clock=given.clock, device=given.device)
    found = report.run(name, effort)
    end = "" if given.device == "cpu" else f"-{given.device}"
    given.results.mkdir(parents=True, exist_ok=True)
    with replacing(given.results / f"{name}{end}.json") as temporary:
        temporary.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
