"""What a call adds to a process at its height, in a process of its own."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrib
from attrib.localize import localize
from benchmarks import peers
from benchmarks.harness import OURS, Candidate, Effort, Table, call, measured
from benchmarks.models import Work, prepare

TITLE = "Memory"
ABOUT = (
    "Height of the resident memory during a second call (`VmHWM` after it, over `VmRSS` before "
    "it) of a process that does nothing else, over that of the plain forward pass. All of them "
    "hold the weights before, which are not counted. attrib runs on a copy of the pictures, as "
    "models may write over what they are given, and class maps keep a copy of the features: a note "
    "says how large both are. Methods that try many pictures work in batches of 16, whatever the "
    "number of steps."
)
MODEL, BATCH = "torchvision/resnet50", 16
METHODS = ("cam", "infocam+", "gradcam", "layercam", "integrated-gradients(steps=2)")
CLEAR = Path("/proc/self/clear_refs")
LIMITED = ("cam", "infocam+")
LIMIT = 1.05
"""Target of the class maps, which keep nothing for a backward pass."""


def tables(effort: Effort, model: str = MODEL, batch: int = BATCH) -> Iterator[Table]:
    """Measure each call in a process of its own, in several if more than all the time is given."""
    if not CLEAR.exists():
        yield Table(title=model, rows=(), notes=("It is read from Linux's /proc.",))
        return
    names = ["forward", "forward again", *METHODS, "cam and localize"]
    found, missing = peers.installed(peers.PEERS)
    theirs = [f"{peer.name}:gradcam" for peer in found]
    runs = max(1, round(3 * effort.factor))
    figures = [[_child(model, batch, name) for _ in range(runs)] for name in (*names, *theirs)]
    shown = [_shown(name) for name in (*names, *theirs)]
    notes = [*missing, _copies(prepare(model, batch))]
    yield measured(f"{model}, batch {batch}", shown, figures, unit="MiB", notes=notes)


def _copies(work: Work) -> str:
    features = work.classifier.forward(work.images).grid
    pictures, kept = (x.numel() * x.element_size() / 2**20 for x in (work.images, features))
    return f"The copy of the pictures takes {pictures:.1f} MiB, that of the features {kept:.1f}."


def _shown(name: str) -> Candidate:
    library, _, method = name.rpartition(":")
    ours = library or ("torch" if name.startswith("forward") else OURS)
    return call(ours, method, lambda: None, limit=LIMIT if name in LIMITED else None)


def _child(model: str, batch: int, name: str) -> float:
    command = [sys.executable, "-m", "benchmarks.subjects.memory", model, str(batch), name]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    return float(done.stdout.split()[-1])


def added(work: Work, name: str) -> float:
    """Return the MiB that a call adds at its height, once it has been made before."""
    run = _call(work, name)
    run()
    _give_back()
    CLEAR.write_text("5")  # the height is what there is now
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 2**10


def _give_back() -> None:
    """Let glibc return what the first call has freed, so that the second has to ask for it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(field: str) -> int:
    return int(re.findall(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def _call(work: Work, name: str) -> Callable[[], Any]:
    library, _, method = name.rpartition(":")
    if name.startswith("forward"):
        return work.forward
    if library:
        (peer,) = (peer for peer in peers.PEERS if peer.name == library)
        return partial(_with_hooks, peers.candidates(work, peer, [method])[method])
    method, _, then = name.partition(" and ")
    explainer = attrib.Explainer(work.classifier, method)
    if then:
        return lambda: localize(explainer(work.images, work.labels))
    return partial(explainer, work.images, work.labels)


def _with_hooks(candidate: Candidate) -> Any:
    with candidate.ready() as run:
        return run()


def main(arguments: Sequence[str]) -> None:
    model, batch, name = arguments
    print(added(prepare(model, int(batch)), name))


if __name__ == "__main__":
    main(sys.argv[1:])
