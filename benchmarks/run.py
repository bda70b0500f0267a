"""Run the benchmarks one after the other: `python benchmarks/run.py`.

Each writes `benchmarks/results/NAME.json`; then `page.py` makes `docs/benchmarks.md` from them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SUBJECTS = {
    "maps-1": ["maps.py", "--batch", "1", "--rounds", "7", "--imports"],
    "maps-16": ["maps.py", "--batch", "16", "--rounds", "3", "--growth"],
}


def run(names: Sequence[str]) -> None:
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        script, *options = SUBJECTS[name]
        target = ["--json", str(RESULTS / f"{name}.json")]
        subprocess.run([sys.executable, str(HERE / script), *options, *target], check=True)
    subprocess.run([sys.executable, str(HERE / "page.py")], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUBJECTS)}")
    chosen = parser.parse_args().names or list(SUBJECTS)
    if unknown := [name for name in chosen if name not in SUBJECTS]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(SUBJECTS)}")
    run(chosen)
