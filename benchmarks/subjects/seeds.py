"""Multi-scale CAM seeds: how much of the time passes inside the network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import attrib
from attrib.datasets.labelled import LabelledSample
from attrib.methods import resolve
from attrib.seeds import SeedOptions
from attrib.seeds.engine import deal_with
from attrib.seeds.formats import Naming
from attrib.seeds.maker import SeedMaker
from attrib.seeds.output import SeedFiles
from benchmarks.harness import OURS, Budget, Effort, Table, call, measure
from benchmarks.models import build, photograph

TITLE = "Seeds"
ABOUT = (
    "CAM over four scales and mirror images, two classes per picture, over the network's passes on "
    "the same views alone; a ratio up to 1.11 is at least 90 % of the time inside the network. "
    "*Files to files* is what `attrib seeds` does: JPEGs read and label images and IRN's npy "
    "written in threads beside the network. Output stride 16, channels last."
)
LIMIT = 1 / 0.9
BUDGET = Budget(seconds=30, least=3, most=11)
CLASSES, PICTURES = 20, 2


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
    model = build(setting.model, output_stride=16, num_classes=CLASSES)
    model = model.to(memory_format=torch.channels_last)
    options = SeedOptions(formats=("label", "irn"))
    maker = SeedMaker(attrib.split(model), resolve("cam"), options)
    path = photograph(folder / "photograph.jpg", setting.width, setting.height)
    samples = [LabelledSample(id=f"{i}", picture=path, labels=(3, 7)) for i in range(PICTURES)]
    files = SeedFiles(out=folder, formats=options.formats, naming=Naming())
    read = maker.read(samples[0])
    views = read[1]

    def files_to_files() -> None:
        for _ in deal_with(samples, maker, files, readers=2):
            pass

    candidates = [
        call("torch", "the network alone", partial(_passes, model, views)),
        call(OURS, "files to files", files_to_files, limit=LIMIT, per=PICTURES),
        call(OURS, "maps of a picture that was read", partial(maker, samples[0], *read)),
        call(OURS, "reading it and making its views", partial(maker.read, samples[0])),
    ]
    title = f"{setting.model}, {setting.width} x {setting.height} pixels"
    return measure(title, candidates, BUDGET, effort)


@torch.no_grad()
def _passes(model: nn.Module, views: Sequence[Tensor]) -> None:
    for view in views:
        model(view)
