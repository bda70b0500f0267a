"""Seed mIoU and seconds per picture of each method, with and without refinement.

`python benchmarks/seeds.py --dataset voc --root VOCdevkit --model local-dir:FOLDER` prints a row
per method as it is done; `--json FILE` adds each row to a file. What is counted of each picture is
kept in `--work FOLDER`, so that a run that is stopped goes on, and one over every fourth picture is
part of one over all. Seconds are of the median picture: from the decoded picture to maps at its
size, and for the refinement alone; they are seconds of processor time, so that with one thread
(`--threads 1`) whatever else the machine does counts little.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import attrib
from attrib.cli.memory import keep_freed_memory
from attrib.cli.options import labelled_dataset
from attrib.datasets import LabelledDataset
from attrib.files import replacing, writing
from attrib.images import read_image
from attrib.localize.pamr import pamr
from attrib.methods import RIB
from attrib.metrics.segmentation import SeedSweep
from attrib.seeds import SeedOptions, pool_of
from attrib.seeds.maker import SeedMaker

SWEEP = tuple(i / 100 for i in range(2, 96))
SMALL = (
    "scales=(1.0, 0.5, 1.5), loss_scales=(1.0, 1.5), lr={lr:g}, num_others=4, pool_pictures=64, "
    "pool_size=288, pool_long_side=(320, 480)"
)
"""RIB as for a small network; the published constants are for ResNet-50 on a large GPU."""
METHODS = {
    "cam, 1 scale": ("cam", (1.0,)),
    "cam, 3 scales": ("cam", (1.0, 0.5, 1.5)),
    "cam, 4 scales": ("cam", (1.0, 0.5, 1.5, 2.0)),
    "infocam+, 4 scales": ("infocam+", (1.0, 0.5, 1.5, 2.0)),
    "infocam+, no regions": ("infocam+(region=1)", (1.0, 0.5, 1.5, 2.0)),
    "rib, gap": (f"rib({SMALL}, pooling='gap', others='sampled')", None),
    "rib, gndrp": (f"rib({SMALL}, others='sampled')", None),
    "rib, expected others": (f"rib({SMALL}, others='expected')", None),
    "rib, no others": (f"rib({SMALL})", None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="voc")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split")
    parser.add_argument("--model", required=True)
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by ;")
    parser.add_argument("--lr", type=float, default=2e-5, help="RIB's")
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path, help="keep what is counted of each picture here")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    data = labelled_dataset(options.dataset, options.root, options.split)
    indices = range(0, len(data), options.every)
    print(f"{data.name}, {options.model}: {len(indices)} pictures, {options.threads} threads")
    print(f"{'method':24}{'mIoU':>7}{'at':>6}{'s':>8}{'PAMR':>9}{'at':>6}{'s':>8}")
    for name in options.methods.split(";"):
        key = f"{name}, lr {options.lr:g}" if name.startswith("rib") else name
        spec, scales = METHODS[name]
        spec = spec.format(lr=options.lr)
        work = None if options.work is None else options.work / re.sub(r"\W+", "-", key)
        row = measure(options.model, spec, scales, data, indices, work)
        record(options.json, key, row)
        print(
            f"{key:24}{row['miou']:7.2f}{row['at']:6.2f}{row['seconds']:8.2f}"
            f"{row['pamr_miou']:9.2f}{row['pamr_at']:6.2f}{row['pamr_seconds']:8.2f}",
            flush=True,
        )


def measure(
    model: str,
    spec: str,
    scales: tuple[float, ...] | None,
    data: LabelledDataset,
    indices: range,
    work: Path | None = None,
) -> dict[str, Any]:
    """Make and score the seeds of some pictures; the background value is the best for them."""
    maker = functools.cache(lambda: maker_of(model, spec, scales, data))  # only if one is to do
    plain, refined = (SeedSweep(len(data.labels), SWEEP) for _ in range(2))
    seconds, refining = [], []
    for index in indices:
        counted = None if work is None else kept(work / f"{index}.npz")
        if counted is None:
            counted = count(maker(), data, index)
            if work is not None:
                keep(work / f"{index}.npz", counted)
        plain.add(torch.from_numpy(counted["plain"]))
        refined.add(torch.from_numpy(counted["refined"]))
        seconds.append(float(counted["seconds"]))
        refining.append(float(counted["refining"]))
    first, second = plain.best(), refined.best()
    return {
        "spec": spec,
        "scales": scales,
        "pictures": len(indices),
        "threads": torch.get_num_threads(),
        "miou": first.miou,
        "at": first.threshold,
        "seconds": median(seconds),
        "mean_seconds": sum(seconds) / len(seconds),
        "pamr_miou": second.miou,
        "pamr_at": second.threshold,
        "pamr_seconds": median(refining),
    }


def maker_of(
    model: str, spec: str, scales: tuple[float, ...] | None, data: LabelledDataset
) -> SeedMaker:
    loaded = attrib.load_model(model).to(memory_format=torch.channels_last)
    explainer = attrib.Explainer(loaded, spec)
    method = explainer.method
    if isinstance(method, RIB) and isinstance(method.others, str):
        expected = method.others == "expected"
        pool = pool_of(data, explainer.classifier, method, expected=expected)
        method = replace(method, others=pool)
    return SeedMaker(explainer.classifier, method, SeedOptions(scales=scales))


def count(maker: SeedMaker, data: LabelledDataset, index: int) -> dict[str, np.ndarray]:
    """Make one picture's seeds; return its counts of both sweeps, and seconds."""
    sample, truth = data[index], data.mask(index)
    read = maker.read(sample)
    plain, refined = (SeedSweep(len(data.labels), SWEEP) for _ in range(2))
    started = time.process_time()
    maps = maker(sample, *read).maps
    seconds = time.process_time() - started
    plain.update(maps.high_res, maps.keys, truth)
    started = time.process_time()
    image = read_image(sample.picture).pixels[None].float()
    better = pamr(image, maps.high_res[None])[0]
    refining = time.process_time() - started
    refined.update(better, maps.keys, truth)
    return {
        "plain": plain.counts.numpy(),
        "refined": refined.counts.numpy(),
        "seconds": np.array(seconds),
        "refining": np.array(refining),
    }


def kept(path: Path) -> dict[str, np.ndarray] | None:
    if not path.exists():
        return None
    with np.load(path) as file:
        return dict(file)


def keep(path: Path, counted: dict[str, np.ndarray]) -> None:
    with writing(path.parent), replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **counted)


def record(path: Path | None, key: str, row: dict[str, Any]) -> None:
    if path is None:
        return
    rows = json.loads(path.read_text()) if path.exists() else {}
    rows[f"{key}, {row['pictures']} pictures"] = row
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
