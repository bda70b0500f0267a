"""Many methods on one data set: where their maps lie, what they say of the model, what they cost.

`python benchmarks/judge.py --dataset cub --root CUB_200_2011 --model local-dir:FOLDER --work work`
prints a row per method as it is done; `--json FILE` keeps all figures. Maps and scores of each
picture are kept in the folder `--work`, so that a run that is stopped goes on, and one over every
tenth picture is part of one over all; `attrib evaluate wsol --maps` reads the maps as well.

Every method explains the true class, one picture at a time. Seconds are of processor time, for the
explanation alone, of the median picture. A method that refuses the model is a row with its reason.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

import attrib
from attrib.cli.box_data import BOX_DATASETS, BoxSource
from attrib.cli.memory import keep_freed_memory
from attrib.datasets import BoxDataset, BoxSample
from attrib.errors import AttribError
from attrib.evaluate import evaluate_saved_maps
from attrib.evaluate.wsol import origin_of, rank_of
from attrib.evaluate.wsol_maps import write_maps, write_origin
from attrib.files import replacing, writing
from attrib.images import preprocess, read_image
from attrib.journal import Journal, claim
from attrib.metrics import WsolBatch, resolve_metric, wsol_protocols
from attrib.metrics.base import at_input

METHODS = (
    "cam",
    "infocam",
    "infocam+",
    "infocam+(region=1)",
    "gradcam",
    "gradcam++",
    "hirescam",
    "xgradcam",
    "layercam",
    "eigencam",
    "saliency",
    "smoothgrad(samples=8)",
    "guided-backprop",
    "input-x-gradient",
    "integrated-gradients(steps=8)",
    "deeplift",
    "lrp",
    "occlusion(window=64, stride=32)",
)
PROTOCOLS = "infocam,maxboxacc,maxboxaccv2,pointing"
FIGURES = {
    "MaxBoxAcc": ("maxboxacc", "oracle", "maxboxacc"),
    "at": ("maxboxacc", "oracle", "ious", 0, "threshold"),
    "V2": ("maxboxaccv2", "oracle", "maxboxaccv2"),
    "GT-known": ("infocam", "gt_known_loc"),
    "Top-1": ("infocam", "top1_loc"),
    "pointing": ("pointing", "hits"),
}
"""Where the figures of localisation stand in an answer of `attrib evaluate wsol`."""
HEADS = (*FIGURES, "deletion", "insertion", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cub", choices=list(BOX_DATASETS))
    parser.add_argument("--root", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by ;")
    parser.add_argument("--steps", type=int, default=32, help="of deletion and of insertion")
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture")
    parser.add_argument("--limit", type=int, help="take only so many of them")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    model = attrib.load_model(options.model)
    print(f"{options.dataset}, {options.model}, one picture in {options.every}")
    print(f"{'method':34}" + "".join(f"{head:>11}" for head in HEADS))
    for spec in options.methods.split(";"):
        row = judge(model, spec, options)
        record(options.json, spec, row)
        cells = "".join(f"{row[head]:11.3f}" for head in HEADS if head in row)
        print(f"{spec:34}{cells or row['error']}", flush=True)


def judge(model: torch.nn.Module, spec: str, options: argparse.Namespace) -> dict[str, Any]:
    """Score a method, or say why it explains no picture."""
    folder = options.work / re.sub(r"[^\w+]+", "-", spec).strip("-")
    explainer = attrib.Explainer(model, spec)
    classes = explainer.classifier.spec.labels or None
    data = BoxSource(name=options.dataset, root=options.root, classes=classes).open(options.split)
    samples = [data[i] for i in range(0, len(data), options.every)[: options.limit]]
    try:
        scores = explained(explainer, data, samples, options.steps, folder)
    except AttribError as error:
        return {"error": " ".join(str(error).split())}
    found = evaluate_saved_maps(
        folder / "maps",
        data,
        wsol_protocols(PROTOCOLS),
        every=options.every,
        limit=options.limit,
        progress=None,
    )
    localised = {head: at(found["protocols"], place) for head, place in FIGURES.items()}
    means = {kind: fmean(row[kind] for row in scores) for kind in ("deletion", "insertion")}
    seconds = median(row["seconds"] for row in scores)
    return {"pictures": len(samples), **localised, **means, "seconds": seconds}


def at(answer: Any, place: tuple[str | int, ...]) -> float:
    for key in place:
        answer = answer[key]
    return float(answer)


def explained(
    explainer: attrib.Explainer,
    data: BoxDataset,
    samples: list[BoxSample],
    steps: int,
    folder: Path,
) -> list[dict[str, float]]:
    """Explain and score the pictures that are not done; return the scores of all."""
    origin = origin_of(explainer, data)
    with writing(folder):
        claim(folder, {"steps": steps, **origin})
    write_origin(folder / "maps", origin)
    journal = Journal(folder, "1-of-1")
    with journal.open():
        done = journal.read()
        for sample in samples:
            if sample.id not in done:
                journal.add(sample.id, "done", **scored(explainer, sample, steps, folder / "maps"))
    done = journal.read()
    return [done[sample.id] for sample in samples]


def scored(
    explainer: attrib.Explainer, sample: BoxSample, steps: int, maps: Path
) -> dict[str, float]:
    """Write a picture's map; return its deletion, its insertion and the seconds it took."""
    classifier = explainer.classifier
    images, frames = preprocess(
        [read_image(sample.picture)],
        classifier.spec,
        fit=explainer.fit,
        device=classifier.device,
    )
    started = time.process_time()
    found = explainer(images, [sample.label])
    seconds = time.process_time() - started
    batch = WsolBatch(
        ids=(sample.id,),
        maps=found.maps,
        frames=frames,
        boxes=(sample.boxes,),
        masks=(sample.mask,),
        rank=rank_of(found.logits, found.targets.label),
    )
    write_maps(maps, batch)
    planes = at_input(found.maps, images)
    scores = {
        kind: float(
            resolve_metric(f"{kind}(steps={steps})")(classifier, images, planes, found.targets)
        )
        for kind in ("deletion", "insertion")
    }
    return scores | {"seconds": seconds}


def record(path: Path | None, spec: str, row: dict[str, Any]) -> None:
    if path is None:
        return
    rows = json.loads(path.read_text()) if path.exists() else {}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(rows | {spec: row}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
