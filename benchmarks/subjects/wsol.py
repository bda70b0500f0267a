"""WSOL evaluation: boxes at a thousand thresholds beside a forward pass, and the whole job."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import attrib
from attrib.datasets import BoxList
from attrib.datasets.samples import batch_of
from attrib.evaluate import evaluate_wsol
from attrib.images import preprocess
from attrib.metrics import MaxBoxAcc
from attrib.metrics.maxboxacc import Contours, best_ious
from benchmarks.harness import OURS, Budget, Effort, Table, call, measure
from benchmarks.models import build, photograph, predicting, prepare
from benchmarks.wsol import TRUTH, literal, scores

TITLE = "Evaluation of localisation"
ABOUT = (
    "First the best overlap at each of 1,000 thresholds, per map of 224 x 224 pixels (smooth "
    "random ones of 17 x 17 cells), over a ResNet-50's forward pass of a batch, per picture, which "
    "any evaluation has to make. The loop is the literal one: threshold, trace contours, box, "
    "overlap, a thousand times. Both find the same overlaps. `python benchmarks/wsol.py --maps "
    "FOLDER` takes real maps. Then *evaluate_wsol* whole, per picture of eight, by MaxBoxAcc at as "
    "many thresholds: JPEGs of 500 x 375 pixels decoded in threads beside the network, class maps, "
    "boxes, overlaps, and the weights hashed once per job, which more pictures would hide; over "
    "decoding them, torchvision's preprocessing and the plain forward pass."
)
BUDGET = Budget(seconds=15, least=3, most=15)
COUNT, SIZE, THRESHOLDS = 8, 224, 1000
MODEL, METHOD, PICTURES = "torchvision/resnet50", "cam", 8


def tables(
    effort: Effort,
    model: str = MODEL,
    count: int = COUNT,
    size: int = SIZE,
    steps: int = THRESHOLDS,
    pictures: int = PICTURES,
) -> Iterator[Table]:
    """Measure with the largest contour of each threshold, with all of them, and the job."""
    cv2.setNumThreads(1)
    planes = list(scores(None, count, 1, size))
    thresholds = np.arange(0, 1, 1 / steps)
    work = prepare(model, count)
    forward = call("torch", f"forward, {model}", work.forward, per=count)
    for contours in ("largest", "all"):
        loop = partial(_loop, planes, thresholds, contours)
        sweep = partial(_sweep, planes, thresholds, contours)
        if loop() != sweep():
            raise RuntimeError("the sweep and the loop do not find the same, so nothing was timed")
        candidates = [
            forward,
            call("loop", "best overlaps", loop, per=count),
            call(OURS, "best overlaps", sweep, per=count),
        ]
        yield measure(f"contours: {contours}", candidates, BUDGET, effort)
    with tempfile.TemporaryDirectory() as folder:
        yield _job_table(model, Path(folder), pictures, 1 / steps, effort)


def _job_table(model: str, folder: Path, pictures: int, interval: float, effort: Effort) -> Table:
    network = build(model)
    explainer = attrib.Explainer(network, METHOD)
    data = _data(folder, pictures, explainer.classifier.num_classes)
    samples = [data[i] for i in range(pictures)]
    read = [explainer.reader().read(sample.picture) for sample in samples]
    images, frames = preprocess(read, explainer.classifier.spec, fit=explainer.fit)
    maps = partial(explainer, images, [sample.label for sample in samples])
    raw = maps().maps

    def score() -> None:
        _protocol(interval).update(batch_of(samples, raw, frames, None))  # a batch keeps its answer

    paths = sorted(folder.glob("*.jpg"))
    candidates = [
        call("torchvision", "predict", predicting(network, paths), per=pictures),
        call(OURS, "evaluate_wsol", _job(explainer, data, interval), per=pictures),
        call(OURS, "maps of pictures that were read", maps, per=pictures),
        call(OURS, "scoring the maps", score, per=pictures),
    ]
    return measure(f"evaluate_wsol, {model}, {pictures} pictures", candidates, BUDGET, effort)


def _data(folder: Path, pictures: int, classes: int) -> BoxList:
    names = [f"{i}.jpg" for i in range(pictures)]
    for name in names:
        photograph(folder / name)
    rows = "\n".join(f"{name},{i},100,80,400,300" for i, name in enumerate(names))
    (folder / "boxes.csv").write_text(f"path,label,x0,y0,x1,y1\n{rows}\n", encoding="utf-8")
    labels = [f"class {i}" for i in range(classes)]
    return BoxList(folder, folder / "boxes.csv", classes=labels)


def _job(explainer: attrib.Explainer, data: BoxList, interval: float) -> Callable[[], None]:
    def run() -> None:
        answer = evaluate_wsol(explainer, data, _protocol(interval), batch_size=len(data))
        if answer["images"] != len(data):
            raise RuntimeError(f"{answer['images']} of {len(data)} pictures were scored")

    return run


def _protocol(interval: float) -> MaxBoxAcc:
    return MaxBoxAcc(interval=interval)


def _loop(
    planes: list[NDArray[np.float64]], thresholds: NDArray[np.float64], contours: str
) -> list[list[float]]:
    return [literal(plane, thresholds, contours == "all") for plane in planes]


def _sweep(
    planes: list[NDArray[np.float64]], thresholds: NDArray[np.float64], contours: Contours
) -> list[list[float]]:
    maps, grid = torch.from_numpy(np.stack(planes)), torch.from_numpy(thresholds)
    truth = [torch.from_numpy(TRUTH).double()] * len(planes)
    found: list[list[float]] = best_ious(maps, grid, truth, contours).tolist()
    return found
