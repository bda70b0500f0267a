"""What an explanation costs a service, over the prediction alone.

`python benchmarks/serving.py` prints, for each model, milliseconds per picture of: the plain
forward pass; `Explainer.explain` from a picture in memory, with reading and preprocessing; the
same up to raw maps, from a tensor; the exported torch program; and the program in onnxruntime,
beside the same network alone there. One thread, one picture at a time, random weights. Times are
of the processor, so that a busy machine's waiting is not counted. All take turns, round by round,
and each is compared with the plain forward pass of its own round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.files import replacing

MODELS = ("torchvision/mobilenet_v2", "torchvision/resnet50")
METHOD = "infocam+"
ONNX = ("onnx", "onnxscript", "onnxruntime")
Call = Callable[[], Any]


def build(name: str) -> nn.Module:
    """Build a model with random weights, by the names that `attrib.load_model` takes."""
    torch.manual_seed(0)
    if name == "demo":
        return attrib.load_model("demo", device="cpu")
    if name.startswith("torchvision/"):
        from torchvision import models

        return models.get_model(name.removeprefix("torchvision/"), weights=None).eval()
    import timm

    return timm.create_model(name, pretrained=False).eval()


def candidates(model: nn.Module, boxes: str) -> tuple[dict[str, Call], dict[str, Any]]:
    """List what is timed, the plain forward pass first, and how far the programs deviate."""
    explainer = attrib.Explainer(model, METHOD)
    size = explainer.classifier.spec.input_size
    coarse = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = F.interpolate(coarse, size, mode="bicubic")
    pixels = (images[0].sigmoid() * 255).byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    program = explainer.export(boxes=boxes)
    run = program.program.module()
    calls: dict[str, Call] = {
        "forward": lambda: model(images),
        "forward again": lambda: model(images),
        "explain(), from a picture": lambda: explainer.explain(picture),
        "Explainer(), raw maps": lambda: explainer(images),
        "torch.export program": lambda: run(images),
    }
    deviation = {"torch": program.metadata["checked"]}
    if all(importlib.util.find_spec(name) for name in ONNX):
        whole = explainer.export(boxes=boxes, format="onnx")
        calls["network alone, onnxruntime"] = session(plain(model, images), images)
        calls["onnx program, onnxruntime"] = session(whole.program, images)
        deviation["onnx"] = whole.metadata["checked"]
    return calls, deviation


def plain(model: nn.Module, images: Tensor) -> Any:
    """Export the model without any explanation."""
    found = torch.onnx.export(
        model, (images,), dynamo=True, verbose=False, opset_version=18, input_names=["images"]
    )
    return found.model_proto


def session(program: Any, images: Tensor) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    ready = onnxruntime.InferenceSession(program.SerializeToString(), options)
    given = {"images": images.numpy()}
    return lambda: ready.run(None, given)


def measure(calls: dict[str, Call], rounds: int) -> list[dict[str, Any]]:
    """Time all in turns; the first is what the others are compared with."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    with torch.no_grad():
        for i in range(-2, rounds):  # two rounds to warm up
            start = i % len(names)
            for name in (*names[start:], *names[:start]):
                started = time.process_time()
                calls[name]()
                if i >= 0:
                    times[name].append(time.process_time() - started)
    return [row(name, own, times[names[0]]) for name, own in times.items()]


def row(name: str, own: Sequence[float], forward: Sequence[float]) -> dict[str, Any]:
    ratios = sorted(a / b for a, b in zip(own, forward, strict=True))
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    return {
        "what": name,
        "milliseconds": 1000 * median(own),
        "ratio": median(ratios),
        "low": low,
        "high": high,
    }


def run(names: Sequence[str], boxes: str, rounds: int) -> dict[str, Any]:
    packages = ("attrib", "torch", *(n for n in ONNX if importlib.util.find_spec(n)))
    models = {}
    for name in names:
        calls, deviation = candidates(build(name), boxes)
        models[name] = {"rows": measure(calls, rounds), "deviation": deviation}
        print(table(name, boxes, models[name]["rows"]), flush=True)
    return {
        "method": METHOD,
        "boxes": boxes,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "versions": {package: version(package) for package in packages},
        "models": models,
    }


def table(name: str, boxes: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write what was measured of a model as Markdown."""
    lines = [f"{name}, boxes: {boxes}", ""]
    lines += ["| what | ms | over forward | 10 % .. 90 % of rounds |", "|---|---|---|---|"]
    lines += [
        f"| {r['what']} | {r['milliseconds']:.1f} | {r['ratio']:.2f} | "
        f"{r['low']:.2f} .. {r['high']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", action="append", help=f"repeatable; {', '.join(MODELS)} if left")
    parser.add_argument("--boxes", choices=("largest", "all"), default="largest")
    parser.add_argument("--rounds", type=int, default=15, help="timed calls of each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report = run(given.model or MODELS, given.boxes, given.rounds)
    if given.json is not None:
        with replacing(given.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
