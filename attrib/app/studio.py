"""What the page does, without the page: predict, explain, cut, draw, pack."""

from __future__ import annotations

import shutil
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import interpolate

from attrib.app.limits import AppOptions, deadline, held
from attrib.errors import InputError, ModelError, TargetError
from attrib.explain import Explainer
from attrib.explanation import Explanation
from attrib.images import Picture, preprocess
from attrib.localize import localize
from attrib.models import SpatialClassifier, load_model, split
from attrib.report import Box, Panel, figure
from attrib.surgery import dtype_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Answer", "Studio", "cut", "draw", "pack"]

COLUMNS = 4
SIDE = 640
"""Longest side of a picture on the page, in pixels."""
TOP = 10
"""Classes that are listed with their probability."""
FILE_AGE = 600
"""Seconds after which a packed answer is deleted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """One class of one picture, by several methods.

    Args:
        explanations: By method, in the order asked for.
        failures: Method → why it has no map.
    """

    explanations: dict[str, Explanation]
    failures: dict[str, str]


@dataclass(kw_only=True, eq=False)
class _Kept:
    """A model in memory; one request at a time uses it."""

    classifier: SpatialClassifier
    lock: Lock = field(default_factory=Lock)
    explainers: dict[str, Explainer] = field(default_factory=dict)

    def explainer(self, method: str) -> Explainer:
        if method not in self.explainers:
            self.explainers[method] = Explainer(self.classifier, method)
        return self.explainers[method]


class Studio:
    """The models and methods of a page, kept between requests, at most `kept_models` at a time."""

    def __init__(self, options: AppOptions) -> None:
        self.options = options
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._loading = Lock()

    def predict(self, picture: Picture, model: str) -> list[tuple[str, float, int]]:
        """List the most likely classes: label, probability, index.

        Raises:
            UnknownNameError: the model is not offered.
            DeadlineError: it takes too long.
        """
        with deadline(self.options.timeout) as left:
            kept = self._keep(model, left())
            with held(kept.lock, left()):
                return _top(kept.classifier, picture)

    def explain(self, picture: Picture, model: str, target: str, methods: Sequence[str]) -> Answer:
        """Explain a picture by several methods.

        Args:
            picture: What `read_upload` made.
            model: One that is offered.
            target: Class index or label; empty for the most likely.
            methods: Some that are offered.

        Raises:
            UnknownNameError: the model or a method is not offered.
            InputError: no method is chosen, or the model has no such class.
            DeadlineError: it takes too long; what was made until then is lost.
        """
        if not methods:
            raise InputError("choose a method or more")
        specs = [self.options.method(method) for method in methods]
        with deadline(self.options.timeout) as left:
            kept = self._keep(model, left())
            with held(kept.lock, left()):
                return _explain(kept, picture, target.strip(), specs)

    def _keep(self, name: str, seconds: float) -> _Kept:
        name = self.options.model(name)
        with held(self._loading, seconds):
            if name not in self._kept:
                while len(self._kept) >= self.options.kept_models:
                    self._kept.popitem(last=False)
                module = load_model(name, device=self.options.device)
                self._kept[name] = _Kept(classifier=split(module, need="features"))
            self._kept.move_to_end(name)
            return self._kept[name]


def _top(classifier: SpatialClassifier, picture: Picture) -> list[tuple[str, float, int]]:
    spec, dtype = classifier.spec, dtype_of(classifier.model)
    images, _ = preprocess([picture], spec, device=classifier.device, dtype=dtype)
    scores = spec.probabilities(classifier.forward(images).logits[0])
    values, classes = scores.topk(min(TOP, len(scores)))
    return [
        (spec.label_of(c), value, c)
        for value, c in zip(values.tolist(), classes.tolist(), strict=True)
    ]


def _explain(kept: _Kept, picture: Picture, target: str, specs: list[str]) -> Answer:
    targets = [int(target) if target.isdecimal() else target] if target else None
    answer = Answer(explanations={}, failures={})
    for spec in specs:
        try:
            explanation = kept.explainer(spec).explain(picture, targets)
        except TargetError:
            raise  # no method could explain it
        except (InputError, ModelError) as error:
            answer.failures[spec] = str(error)
        else:
            answer.explanations[spec] = cast(Explanation, explanation)
    return answer


def cut(answer: Answer, threshold: float) -> Answer:
    """Localise again at another threshold, from the maps that are there; no model runs."""
    return replace(
        answer,
        explanations={
            spec: replace(e, localization=localize(e.attribution, threshold=threshold))
            for spec, e in answer.explanations.items()
        },
    )


def draw(answer: Answer, parts: Sequence[str] = ("heatmap", "mask", "box")) -> Figure:
    """Draw the maps side by side.

    Args:
        answer: With one map or more.
        parts: Which of `"heatmap"`, `"mask"` (its outline) and `"box"` to lay over the picture.
    """
    panels = [_panel(spec, e, parts) for spec, e in answer.explanations.items()]
    width = min(COLUMNS, len(panels))
    rows = [panels[i : i + width] for i in range(0, len(panels), width)]
    return figure(rows, size=3.2)


def _panel(spec: str, explanation: Explanation, parts: Sequence[str]) -> Panel:
    """Draw no more pixels than a page shows, whatever the picture's size."""
    status, box = explanation.localization.status[0], explanation.box
    image, mask = explanation.picture.pixels, explanation.mask
    scale = min(1.0, SIDE / max(mask.shape))
    small_box = box and cast(Box, tuple(round(v * scale) for v in box))
    return Panel(
        image=_shrunk(image, scale).round().to(torch.uint8),
        heatmap=_shrunk(explanation.heatmap[None], scale)[0] if "heatmap" in parts else None,
        mask=_shrunk(mask[None], scale)[0] >= 0.5 if "mask" in parts else None,
        box=small_box if "box" in parts else None,
        title=spec if status == "ok" else f"{spec}: the map is {status}",
    )


def _shrunk(x: Shaped[Tensor, "k H W"], scale: float) -> Float[Tensor, "k h w"]:
    size = [max(1, round(length * scale)) for length in x.shape[1:]]
    return interpolate(x[None].float(), size, mode="area")[0]


def pack(answer: Answer, folder: Path) -> Path:
    """Write what `Explanation.save` writes of each method into one zip file.

    Zip files that are older than ten minutes are deleted from the folder.

    Args:
        answer: With one map or more.
        folder: For zip files only.
    """
    _prune(folder)
    target = Path(tempfile.mkdtemp(dir=folder)) / "attrib.zip"
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(target, "w") as archive:
        for number, (spec, explanation) in enumerate(answer.explanations.items(), 1):
            stem = f"{number}-{spec.partition('(')[0]}"
            for suffix in (".png", ".json", ".npz"):
                archive.write(
                    explanation.save(Path(scratch) / f"{stem}{suffix}"), f"{stem}{suffix}"
                )
    return target


def _prune(folder: Path) -> None:
    for path in folder.glob("*/attrib.zip"):
        if time.time() - path.stat().st_mtime > FILE_AGE:
            shutil.rmtree(path.parent, ignore_errors=True)  # another request may be at it
