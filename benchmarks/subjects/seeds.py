"""Multi-scale CAM seeds: how much of the time passes inside the network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import attrib
from attrib.datasets import Folder
from attrib.models import identity
from attrib.seeds import SeedOptions, make_seeds
from attrib.seeds.formats import FORMATS, Naming, Seed
from attrib.seeds.maker import SeedMaker
from benchmarks.harness import OURS, Budget, Effort, Table, call, measure
from benchmarks.models import build, photograph

TITLE = "Seeds"
ABOUT = (
    "CAM over four scales and mirror images, two classes per picture, over the network's passes on "
    "the same views alone; a ratio up to 1.11 is at least 90 % of the time inside the network. "
    "*Job* is `make_seeds` whole, per picture of eight: JPEGs read, label images and IRN's npy "
    "written in a thread beside the network, weights hashed, journal kept. Its parts are timed "
    "alone below it. Output stride 16, channels last."
)
LIMIT = 1 / 0.9
BUDGET = Budget(seconds=30, least=3, most=11)
CLASSES = tuple(f"class {i}" for i in range(20))
PICTURES = 8
SMALL = (
    "the parts below it are the same for any network, and share two cores with it; the smaller it "
    "is, the more they weigh"
)
OPTIONS = SeedOptions(formats=("label", "irn"))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One table: a timm model and the size of the pictures."""

    model: str
    width: int
    height: int


SETTINGS = (
    Setting(model="resnet50", width=320, height=240),
    Setting(model="mobilenetv2_100", width=500, height=375),
)


def tables(effort: Effort, settings: Sequence[Setting] = SETTINGS) -> Iterator[Table]:
    """Measure a few pictures per call, for each setting."""
    for setting in settings:
        with tempfile.TemporaryDirectory() as folder:
            yield _table(setting, Path(folder), effort)


def _table(setting: Setting, folder: Path, effort: Effort) -> Table:
    model = build(setting.model, output_stride=16, num_classes=len(CLASSES))
    explainer = attrib.Explainer(model.to(memory_format=torch.channels_last), "cam")
    maker = SeedMaker(explainer.classifier, explainer.method, OPTIONS)
    data = _data(setting, folder)
    read = maker.read(data[0])
    views = [view.here() for view in read[1]]
    candidates = [
        call("torch", "the network alone", partial(_passes, model, views)),
        call(OURS, "job", _job(explainer, data, folder), limit=LIMIT, per=PICTURES, why=SMALL),
        call(OURS, "maps of a picture that was read", partial(maker, data[0], *read)),
        call(OURS, "reading it and making its views", partial(maker.read, data[0])),
        call(OURS, "writing its files", _writing(maker(data[0], *read), folder)),
        call(OURS, "weights' hash", partial(identity, explainer.classifier), per=PICTURES),
    ]
    title = f"{setting.model}, {setting.width} x {setting.height} pixels"
    return measure(title, candidates, BUDGET, effort)


def _data(setting: Setting, folder: Path) -> Folder:
    names = [f"{i}.jpg" for i in range(PICTURES)]
    for name in names:
        photograph(folder / name, setting.width, setting.height)
    rows = "\n".join(f"{name},{CLASSES[3]};{CLASSES[7]}" for name in names)
    (folder / "labels.csv").write_text(f"path,label\n{rows}\n", encoding="utf-8")
    return Folder(folder, folder / "labels.csv", classes=CLASSES)


def _job(explainer: attrib.Explainer, data: Folder, folder: Path) -> Callable[[], None]:
    def run() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            report = make_seeds(explainer, data, out, OPTIONS)
        if report.made != PICTURES:
            raise RuntimeError(f"{report.made} of {PICTURES} seeds were made: {report.failed}")

    return run


def _writing(seed: Seed, folder: Path) -> Callable[[], None]:
    naming = Naming(labels=CLASSES)

    def run() -> None:
        for name in OPTIONS.formats:
            FORMATS[name].write(seed, folder / f"seed-{name}", naming)

    return run


@torch.no_grad()
def _passes(model: nn.Module, views: Sequence[Tensor]) -> None:
    for view in views:
        model(view)
