"""Boxes at a thousand thresholds: one sweep beside the literal loop of the field's evaluator.

`python benchmarks/wsol.py --maps FOLDER` takes the maps that `attrib evaluate wsol --save-maps`
wrote; without `--maps`, smooth random ones. They come in batches, as in an evaluation, and each is
scored by the two in turn: the loop takes its pictures one by one, the sweep all at once. Their
overlaps must be the same; the ratio is of the processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import quantiles
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from attrib.cli.memory import keep_freed_memory
from attrib.files import replacing
from attrib.metrics.maxboxacc import best_ious

TRUTH = np.array([[30, 40, 150, 160]])
"""A true box; which makes no difference to the time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--count", type=int, default=702, help="most pictures to take")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--thresholds", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    thresholds = np.arange(0, 1, 1 / options.thresholds)
    rows: dict[str, Any] = {}
    for contours in ("largest", "all"):
        planes = scores(options.maps, options.count, options.every, options.size)
        times = [measure(batch, thresholds, contours) for batch in batches(planes, options.batch)]
        rows[contours] = summary(times)
        print(f"{contours:8} {options.thresholds} thresholds: {line(rows[contours])}", flush=True)
    if options.json is not None:
        with replacing(options.json) as temporary:
            temporary.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def scores(folder: Path | None, count: int, every: int, size: int) -> Iterator[NDArray[np.float64]]:
    """Give score maps, resized and brought to [0, 1] by their range."""
    if folder is None:
        random = np.random.default_rng(0)
        planes = (random.normal(size=(17, 17)) for _ in range(count))
    else:
        files = sorted(folder.rglob("*.npz"))[::every][:count]
        planes = (np.load(file)["map"].astype(float) for file in files)
    for plane in planes:
        score = cv2.resize(plane, (size, size), interpolation=cv2.INTER_CUBIC)
        yield (score - score.min()) / np.ptp(score)


def batches(
    planes: Iterator[NDArray[np.float64]], size: int
) -> Iterator[list[NDArray[np.float64]]]:
    while batch := list(islice(planes, size)):
        yield batch


def measure(
    batch: list[NDArray[np.float64]], thresholds: NDArray[np.float64], contours: str
) -> tuple[int, float, float]:
    """Return how many maps, and the seconds of the loop and of the sweep, which must agree."""
    planes, grid = torch.from_numpy(np.stack(batch)), torch.from_numpy(thresholds)
    truth = [torch.from_numpy(TRUTH).double()] * len(batch)
    multiple = contours == "all"
    slow, ious = seconds(lambda: [literal(score, thresholds, multiple) for score in batch])
    fast, found = seconds(lambda: best_ious(planes, grid, truth, contours))
    if found.tolist() != ious:
        raise SystemExit("the sweep and the loop do not find the same")
    return len(batch), slow, fast


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.thread_time()
    answer = run()
    return time.thread_time() - started, answer


def literal(
    score: NDArray[np.float64], thresholds: NDArray[np.float64], multiple: bool
) -> list[float]:
    """Threshold, trace contours and overlap boxes for each threshold by itself."""
    image = np.expand_dims((score * 255).astype(np.uint8), 2)
    boxes, counts = [], []
    for threshold in thresholds:
        cut = int(threshold * np.max(image))
        _, mask = cv2.threshold(image, cut, 255, cv2.THRESH_BINARY)
        traced = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if traced and not multiple:
            traced = [max(traced, key=cv2.contourArea)]
        found = [corners(contour, score.shape) for contour in traced] or [[0, 0, 0, 0]]
        boxes.append(np.asarray(found))
        counts.append(len(found))
    best = overlaps(np.concatenate(boxes), TRUTH).max(1)
    ends = np.cumsum(counts)
    return [float(best[end - n : end].max()) for n, end in zip(counts, ends, strict=True)]


def corners(contour: NDArray[np.int32], shape: tuple[int, ...]) -> list[int]:
    x, y, w, h = cv2.boundingRect(contour)
    return [x, y, min(x + w, shape[1] - 1), min(y + h, shape[0] - 1)]


def overlaps(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(-1)
    area_a, area_b = ((x[:, 2:] - x[:, :2] + 1).prod(-1) for x in (a, b))
    return shared / (area_a[:, None] + area_b - shared)


def summary(times: list[tuple[int, float, float]]) -> dict[str, Any]:
    """Give milliseconds of a picture, and ratios, by the batch; and the seconds of them all."""
    slow, fast, ratio = (
        quantiles(values, n=20, method="inclusive") if len(values) > 1 else [*values] * 19
        for values in zip(*((s / n, f / n, s / f) for n, s, f in times), strict=True)
    )
    counts, loop, sweep = (sum(values) for values in zip(*times, strict=True))
    return {
        "pictures": counts,
        "loop_ms": 1000 * slow[9],
        "sweep_ms": 1000 * fast[9],
        "loop_s": loop,
        "sweep_s": sweep,
        "ratio": ratio[9],
        "ratio_5": ratio[0],
        "ratio_95": ratio[18],
    }


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['pictures']} pictures, loop {row['loop_ms']:.1f} ms, "
        f"sweep {row['sweep_ms']:.2f} ms, "
        f"ratio {row['ratio']:.1f} ({row['ratio_5']:.1f} to {row['ratio_95']:.1f}); "
        f"together {row['loop_s']:.1f} s and {row['sweep_s']:.2f} s"
    )


if __name__ == "__main__":
    main()
