"""`explain()` from a JPEG to heatmap, mask and box, over what a prediction alone costs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import attrib
from attrib.images import preprocess, read_image
from benchmarks.harness import OURS, Budget, Effort, Table, call, measure
from benchmarks.models import build, photograph, predicting

TITLE = "explain()"
ABOUT = (
    "From a JPEG of 500 x 375 pixels to the heatmap, mask and box of the most likely class, over "
    "decoding it, torchvision's preprocessing and the plain forward pass. Preprocessed by attrib "
    "is the same with attrib's own reading, which keeps where each pixel came from. Of a "
    "MobileNetV2's picture the target leaves 2.5 ms for map, resizing and localisation."
)
LIMIT = 1.15
BUDGET = Budget(seconds=15, least=5, most=101, warm=3)
MODELS = ("torchvision/resnet50", "torchvision/mobilenet_v2")
METHODS = ("infocam+", "cam", "gradcam")


def tables(effort: Effort, models: Sequence[str] = MODELS) -> Iterator[Table]:
    """Measure one picture at a time, for each model."""
    with tempfile.TemporaryDirectory() as folder:
        path = photograph(Path(folder) / "photograph.jpg")
        for name in models:
            yield _table(name, path, effort)


def _table(name: str, path: Path, effort: Effort) -> Table:
    model = build(name).to(effort.device)
    classifier = attrib.split(model)
    explainers = [attrib.Explainer(classifier, method) for method in METHODS]
    candidates = [
        call("torchvision", "predict", predicting(model, [path], effort.device)),
        call(OURS, "predict, preprocessed by attrib", _own(classifier, path)),
        *(
            call(OURS, f"explain, {method}", partial(_explain, explainer, path), limit=LIMIT)
            for method, explainer in zip(METHODS, explainers, strict=True)
        ),
    ]
    return measure(f"{name}, one picture", candidates, BUDGET, effort)


def _own(classifier: attrib.SpatialClassifier, path: Path) -> Callable[[], int]:
    @torch.inference_mode()
    def predict() -> int:
        images, _ = preprocess([read_image(path)], classifier.spec, device=classifier.device)
        logits: Tensor = classifier.model(images)
        return int(logits.argmax())

    return predict


def _explain(explainer: attrib.Explainer, path: Path) -> Any:
    return explainer.explain(path).box  # type: ignore[union-attr]
