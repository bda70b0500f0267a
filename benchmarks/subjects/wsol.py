"""WSOL evaluation: boxes at a thousand thresholds, beside the loop of the field's evaluator."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from attrib.metrics.maxboxacc import Contours, best_ious
from benchmarks.harness import OURS, Budget, Effort, Table, call, measure
from benchmarks.wsol import TRUTH, literal, scores

TITLE = "Evaluation of localisation"
ABOUT = (
    "The best overlap at each of 1,000 thresholds, per map of 224 x 224 pixels (smooth random ones "
    "of 17 x 17 cells), over the literal loop: threshold, trace contours, box, overlap, a thousand "
    "times. Both find the same overlaps. `python benchmarks/wsol.py --maps FOLDER` takes real maps."
)
BUDGET = Budget(seconds=15, least=3, most=15)
COUNT, SIZE, THRESHOLDS = 8, 224, 1000


def tables(
    effort: Effort, count: int = COUNT, size: int = SIZE, steps: int = THRESHOLDS
) -> Iterator[Table]:
    """Measure with the largest contour of each threshold, and with all of them."""
    cv2.setNumThreads(1)
    planes = list(scores(None, count, 1, size))
    thresholds = np.arange(0, 1, 1 / steps)
    for contours in ("largest", "all"):
        loop = partial(_loop, planes, thresholds, contours)
        sweep = partial(_sweep, planes, thresholds, contours)
        if loop() != sweep():
            raise RuntimeError("the sweep and the loop do not find the same, so nothing was timed")
        candidates = [
            call("loop", "best overlaps", loop, per=count),
            call(OURS, "best overlaps", sweep, per=count),
        ]
        yield measure(f"contours: {contours}", candidates, BUDGET, effort)


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
