"""What infoCAM's two ideas are worth: regions, and the evidence that is subtracted.

`python benchmarks/infocam.py --dataset cub --root CUB_200_2011 --model local-dir:FOLDER` scores
each of the six combinations by every protocol and prints a row as it is done; several `--model`
stand in one table. `--json FILE` keeps all figures by model and method, and rows that stand in it
already are not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import attrib
from attrib.cli.box_data import BOX_DATASETS, BoxSource
from attrib.cli.memory import keep_freed_memory
from attrib.evaluate import evaluate_wsol
from attrib.files import replacing
from attrib.metrics import wsol_protocols

METHODS = {
    ("nothing", "one cell"): "cam",
    ("nothing", "4 x 4"): "cam(region=4)",
    ("mean of the others", "one cell"): "infocam(region=1)",
    ("mean of the others", "4 x 4"): "infocam",
    ("the least likely", "one cell"): "infocam+(region=1)",
    ("the least likely", "4 x 4"): "infocam+",
}
"""By what is subtracted from the class's evidence, and by the region that is summed over."""

HEADS = ("accuracy", "GT-known", "Top-1", "MaxBoxAcc", "at", "Top-5", "at .2", "V2", "pointing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cub", choices=list(BOX_DATASETS))
    parser.add_argument("--root", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--model", action="append", help="demo if left; several times for several")
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    names = options.model or ["demo"]
    wide = max(map(len, ["model", *names])) + 2
    print(f"{options.dataset}, one picture in {options.every}")
    print(f"{'model':{wide}}{'subtracted':20}{'region':10}" + "".join(f"{h:>11}" for h in HEADS))
    for name in names:
        model = attrib.load_model(name)
        for (subtracted, region), spec in METHODS.items():
            result = recorded(options.json, name, spec)
            if result is None:
                result = measure(model, spec, options)
                record(options.json, name, spec, result)
            cells = "".join(f"{value:11.2f}" for value in figures(result))
            print(f"{name:{wide}}{subtracted:20}{region:10}{cells}", flush=True)


def measure(model: torch.nn.Module, spec: str, options: argparse.Namespace) -> dict[str, Any]:
    explainer = attrib.Explainer(model, spec)
    classes = explainer.classifier.spec.labels or None
    data = BoxSource(name=options.dataset, root=options.root, classes=classes).open(options.split)
    return evaluate_wsol(
        explainer,
        data,
        wsol_protocols("infocam,maxboxacc,maxboxaccv2,pointing"),
        every=options.every,
        limit=options.limit,
        progress=None,
    )


def figures(result: dict[str, Any]) -> list[float]:
    """Pick what the table shows; thresholds are the oracle's, for MaxBoxAcc and its Top-5."""
    by = result["protocols"]
    oracle, fixed = by["maxboxacc"]["oracle"], by["maxboxacc"]["fixed"]
    return [
        result["top1_acc"],
        by["infocam"]["gt_known_loc"],
        by["infocam"]["top1_loc"],
        oracle["maxboxacc"],
        oracle["ious"][0]["threshold"],
        oracle["ious"][0]["top5_loc"],
        fixed["maxboxacc"],
        by["maxboxaccv2"]["oracle"]["maxboxaccv2"],
        by["pointing"]["hits"],
    ]


def recorded(path: Path | None, model: str, spec: str) -> dict[str, Any] | None:
    result: dict[str, Any] | None = rows_of(path).get(model, {}).get(spec)
    return result


def record(path: Path | None, model: str, spec: str, result: dict[str, Any]) -> None:
    if path is None:
        return
    rows = rows_of(path)
    rows.setdefault(model, {})[spec] = result
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def rows_of(path: Path | None) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    if path is not None and path.exists():
        rows = json.loads(path.read_text())
    return rows


if __name__ == "__main__":
    main()
