"""The same maps by other libraries: eigencam, xgradcam, scorecam and ablationcam side by side.

`python benchmarks/peer_cams.py` makes the maps of one batch by attrib and by each library that is
installed (`pip install grad-cam torchcam`), says how alike they are and what each takes of one
processor once set up; `--json FILE` keeps the figures. Maps are brought to the peer's size and
to 0 .. 1, as peers scale theirs. The weights are random; the peers run as their own documentation
shows. Where a peer computes something else, attrib's map is made that way too, and compared again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision import models

import attrib

PEERS = {
    "pytorch-grad-cam": {
        "eigencam": "EigenCAM",
        "xgradcam": "XGradCAM",
        "scorecam": "ScoreCAM",
        "ablationcam": "AblationCAM",
    },
    "torchcam": {"xgradcam": "XGradCAM", "scorecam": "ScoreCAM"},
}
"""The classes of each, by attrib's names."""
PACKAGES = {"pytorch-grad-cam": ("grad-cam", "pytorch_grad_cam"), "torchcam": ("torchcam",) * 2}
REASONS = {
    ("pytorch-grad-cam", "eigencam"): "takes the mean off what it projects too",
    ("pytorch-grad-cam", "scorecam"): "enlarges masks with their corners aligned",
}
"""What the peer does otherwise."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of one peer beside attrib's.

    Args:
        peer: Library.
        method: Name in attrib.
        correlation: Of the two, over all values of all maps.
        difference: Largest one, of maps in 0 .. 1.
        done_alike: The same once attrib does what `reason` says; None where there is none.
        theirs: Seconds of processor time for the batch, median over rounds.
        ours: The same of attrib.
        reason: What the peer does otherwise; empty where the maps are the same.
    """

    peer: str
    method: str
    correlation: float
    difference: float
    theirs: float
    ours: float
    reason: str
    done_alike: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """A model with the layer of its feature map, and a batch with its likeliest classes."""

    model: nn.Module
    layer: str
    images: Tensor
    labels: list[int]


def prepare(name: str, layer: str, batch: int, size: int) -> Work:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.get_model(name, weights=None).eval()
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(images).argmax(1).tolist()
    return Work(model=model, layer=layer, images=images, labels=labels)


@contextmanager
def grad_cam(make: Any, work: Work) -> Iterator[Callable[[], Tensor]]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(label) for label in work.labels]
    extractor = make(model=work.model, target_layers=[work.model.get_submodule(work.layer)])
    try:
        yield lambda: torch.from_numpy(extractor(input_tensor=work.images, targets=targets))
    finally:
        extractor.activations_and_grads.release()
        work.model.zero_grad()


@contextmanager
def torchcam(make: Any, work: Work) -> Iterator[Callable[[], Tensor]]:
    with make(work.model, target_layer=work.layer) as extractor:

        def call() -> Tensor:
            scores = work.model(work.images)
            found: Tensor = extractor(class_idx=work.labels, scores=scores)[0]
            return found.detach()

        yield call


READY = {"pytorch-grad-cam": grad_cam, "torchcam": torchcam}


def timed(call: Callable[[], Tensor], rounds: int) -> tuple[Tensor, float]:
    """Return the maps and the median processor time; what a library prints meanwhile is lost."""
    seconds = []
    with redirect_stderr(StringIO()):
        for _ in range(rounds):
            started = time.process_time()
            maps = call()
            seconds.append(time.process_time() - started)
    return maps, median(seconds)


def beside(peer: str, method: str, work: Work, rounds: int) -> Row:
    make = getattr(importlib.import_module(module_of(peer)), PEERS[peer][method])
    with READY[peer](make, work) as call:
        other, theirs = timed(call, rounds)
    explainer = attrib.Explainer(work.model, f"{method}(layer={work.layer!r})")
    maps, ours = timed(lambda: explainer(work.images, work.labels).maps, rounds)
    correlation, difference = likeness(maps, other)
    alike = ALIKE.get((peer, method))
    return Row(
        peer=peer,
        method=method,
        correlation=correlation,
        difference=difference,
        theirs=theirs,
        ours=ours,
        reason=REASONS.get((peer, method), ""),
        done_alike=None if alike is None else likeness(alike(work), other)[1],
    )


def own_maps(work: Work, spec: str) -> Tensor:
    return attrib.Explainer(work.model, spec)(work.images, work.labels).maps


def centred(work: Work) -> Tensor:
    """Do Eigen-CAM with the mean taken off what is projected, and not only off the basis."""
    maps = own_maps(work, f"eigencam(layer={work.layer!r}, relu=False)")
    return (maps - maps.mean((1, 2), keepdim=True)).relu()


def aligned(work: Work) -> Tensor:
    """Do Score-CAM with masks whose corner cells lie on the corner pixels."""
    with patch.object(F, "interpolate", partial(F.interpolate, align_corners=True)):
        return own_maps(work, f"scorecam(layer={work.layer!r})")


ALIKE = {("pytorch-grad-cam", "eigencam"): centred, ("pytorch-grad-cam", "scorecam"): aligned}


def module_of(peer: str) -> str:
    return f"{PACKAGES[peer][1]}.methods" if peer == "torchcam" else PACKAGES[peer][1]


def likeness(own: Tensor, other: Tensor) -> tuple[float, float]:
    """Return the correlation and the largest difference of maps, both brought to 0 .. 1."""
    own = F.interpolate(own[:, None].double(), other.shape[1:], mode="bilinear")[:, 0]
    own, other = unit(own), unit(other.double())
    correlation = torch.corrcoef(torch.stack([own.flatten(), other.flatten()]))[0, 1]
    return float(correlation), float((own - other).abs().max())


def unit(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def installed(peer: str) -> bool:
    try:
        importlib.import_module(module_of(peer))
    except ImportError as error:
        print(f"{peer}: not installed ({error}); pip install {PACKAGES[peer][0]}")
        return False
    return True


def line(row: Row) -> str:
    known = "" if row.done_alike is None else f"; {row.reason}: {row.done_alike:.0e} if we do too"
    return (
        f"{row.peer:18}{row.method:13}correlation {row.correlation:.4f}, largest difference "
        f"{row.difference:.0e}; {row.theirs:.3f} s, ours {row.ours:.3f} s{known}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18", help="of torchvision")
    parser.add_argument("--layer", default="layer4", help="of its feature map")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=96, help="of the pictures, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", default="", help="comma-separated; all if left")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = prepare(options.model, options.layer, options.batch, options.size)
    rows = []
    print(f"{options.model}, {options.batch} pictures of {options.size} x {options.size} pixels")
    for peer in filter(installed, PEERS):
        for method in PEERS[peer]:
            if options.methods and method not in options.methods.split(","):
                continue
            rows.append(beside(peer, method, work, options.rounds))
            print(line(rows[-1]), flush=True)
    if options.json:
        versions = {peer: version(PACKAGES[peer][0]) for peer in PEERS if installed(peer)}
        setting = {key: value for key, value in vars(options).items() if key != "json"}
        report = {"setting": setting, "versions": versions, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
