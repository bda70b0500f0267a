"""One picture's answer, for people and for files."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib.errors import InputError
from attrib.files import replacing
from attrib.images import Picture
from attrib.models import SpatialClassifier, fingerprint
from attrib.models.output import spelled
from attrib.report import Box, Panel, figure
from attrib.types import Attribution, Fit, Localization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "ModelRecord"]

SCHEMA = "attrib.explanation/1"


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """One picture's answer: a heatmap, a mask and a box for each class explained.

    The singular properties speak of the first class, and the first threshold.

    Args:
        picture: What was explained, upright.
        targets: Classes, by index.
        labels: Their names; the index as text where the model has no names.
        scores: Their probability: softmax, or sigmoid for a multi-label model.
        attribution: The raw maps.
        localization: Heatmaps, masks and boxes in source pixels.
        model: What made it.
    """

    picture: Picture
    targets: tuple[int, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    attribution: Attribution
    localization: Localization
    model: ModelRecord

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def target(self) -> int:
        """Class index."""
        return self.targets[self._first()]

    @property
    def label(self) -> str:
        """Class name."""
        return self.labels[self._first()]

    @property
    def score(self) -> float:
        """Class probability in [0, 1]."""
        return self.scores[self._first()]

    @property
    def heatmap(self) -> Float[Tensor, "H W"]:
        """In [0, 1], at the picture's own size, on the model's device."""
        return self.localization.heatmaps[self._first()]

    @property
    def mask(self) -> Bool[Tensor, "H W"]:
        """The largest component above the threshold."""
        return self.localization.masks[self._first()][0]

    @property
    def box(self) -> Box | None:
        """Half-open `(x0, y0, x1, y1)` around the mask, source pixels; None for an empty mask."""
        return self.boxes(self._first())[0]

    def boxes(self, index: int) -> list[Box | None]:
        """Return the box of one class at each threshold, None where there is none."""
        found: list[Box | None] = [None] * self.localization.thresholds.shape[1]
        rows = (self.localization.map_index == index).nonzero().flatten()
        for row in rows.tolist():
            box = tuple(self.localization.boxes[row].tolist())
            found[int(self.localization.threshold_index[row])] = cast(Box, box)
        return found

    def _first(self) -> int:
        if not self.targets:
            raise InputError("this picture was explained for no class; it has no heatmap")
        return 0

    def panels(self) -> list[list[Panel]]:
        """Lay out one row per class: the picture with its box, and the heatmap over it."""
        rows = []
        for i, label in enumerate(self.labels):
            box = self.boxes(i)[0]
            title = f"{_short(label)}  {self.scores[i]:.0%}"
            heat = self.localization.heatmaps[i]
            rows.append(
                [
                    Panel(image=self.picture.pixels, box=box, title=title),
                    Panel(
                        image=self.picture.pixels,
                        heatmap=heat,
                        mask=self.localization.masks[i][0],
                        title=self.attribution.method,
                    ),
                ]
            )
        return rows or [[Panel(image=self.picture.pixels, title="no class")]]

    def plot(self) -> Figure:
        """Draw the picture with box, heatmap and mask; notebooks show it by themselves."""
        return figure(self.panels())

    def to_dict(self) -> dict[str, Any]:
        """Return what `save("x.json")` writes; the field names are documented and stable."""
        height, width = self.picture.pixels.shape[1:]
        return {
            "schema": SCHEMA,
            "picture": self.picture.name,
            "width": width,
            "height": height,
            "method": self.attribution.method,
            "unit": self.attribution.unit,
            "exact": self.attribution.exact,
            "results": [self._result(i) for i in range(len(self))],
            "model": self.model.to_dict(),
        }

    def _result(self, i: int) -> dict[str, Any]:
        where = self.localization
        regions = [
            {"threshold": round(float(cut), 6), "box": box and list(box), "area": int(mask.sum())}
            for cut, box, mask in zip(
                where.thresholds[i], self.boxes(i), where.masks[i], strict=True
            )
        ]
        return {
            "target": self.targets[i],
            "label": self.labels[i],
            "score": self.scores[i],
            "logit": float(self.attribution.logits[0, self.targets[i]]),
            "status": where.status[i],
            "box": regions[0]["box"],
            "regions": regions,
        }

    def save(self, path: str | Path) -> Path:
        """Write a picture (.png), the numbers (.json) or the arrays (.npz), whole or not at all.

        The npz holds `heatmaps` float32 [n, H, W], `masks` bool [n, t, H, W], `maps` float32
        [n, u, v] (raw), `targets` [n], `logits` [c], `boxes` [m, 4], `map_index` [m],
        `threshold_index` [m] and `meta`, the JSON as text; it needs no pickle.
        """
        path = Path(path)
        writers = {".png": self._save_png, ".json": self._save_json, ".npz": self._save_npz}
        if path.suffix.lower() not in writers:
            raise InputError(
                f"cannot save an explanation as {path.name!r}; end the name in "
                + ", ".join(writers)
            )
        with replacing(path) as temporary:
            writers[path.suffix.lower()](temporary)
        return path

    def _save_png(self, path: Path | BytesIO) -> None:
        self.plot().savefig(path, format="png", dpi=150)

    def _save_json(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def _save_npz(self, path: Path) -> None:
        import numpy as np

        where = self.localization
        size = self.picture.pixels.shape[1:]
        t = where.thresholds.shape[1]
        heat = torch.stack(where.heatmaps) if len(self) else torch.zeros(0, *size)
        masks = torch.stack(where.masks) if len(self) else torch.zeros(0, t, *size) > 0
        np.savez_compressed(
            path,
            heatmaps=heat.cpu().numpy(),
            masks=masks.cpu().numpy(),
            maps=self.attribution.maps.float().cpu().numpy(),
            targets=np.asarray(self.targets, dtype=np.int64),
            logits=self.attribution.logits[0].float().cpu().numpy(),
            boxes=where.boxes.cpu().numpy(),
            map_index=where.map_index.cpu().numpy(),
            threshold_index=where.threshold_index.cpu().numpy(),
            meta=np.asarray(json.dumps(self.to_dict())),
        )

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self._save_png(buffer)
        return buffer.getvalue()

    def __repr__(self) -> str:
        what = ", ".join(
            f"{_short(label)!r} {score:.1%} box={self.boxes(i)[0]}"
            for i, (label, score) in enumerate(zip(self.labels, self.scores, strict=True))
        )
        name = f"{Path(self.picture.name).name}: " if self.picture.name else ""
        return f"<Explanation {name}{what or 'no class'} by {self.attribution.method}>"


def _short(label: str) -> str:
    return label.split(",")[0]


class ModelRecord:
    """What made an explanation, for its files. Weights are hashed when first asked for."""

    def __init__(self, classifier: SpatialClassifier, fit: Fit) -> None:
        self._model, self._output = classifier.model, classifier.output
        self._precision = classifier.precision
        self.spec = replace(classifier.spec, fit=fit)

    @cached_property
    def weights(self) -> str:
        """16 hex digits over all weights and buffers."""
        return fingerprint(self._model)

    def to_dict(self) -> dict[str, Any]:
        """Return name, weights hash, precision, where the logits are, preprocessing, versions."""
        from importlib.metadata import version

        spec = self.spec
        packages = ("attrib", "torch", "torchvision", "timm")
        return {
            "name": spec.name,
            "weights": self.weights,
            **({} if self._output is None else {"output": spelled(self._output)}),
            "precision": self._precision,
            "multi_label": spec.multi_label,
            "preprocessing": {
                "input_size": list(spec.input_size),
                "fit": spec.fit,
                "crop": spec.crop,
                "interpolation": spec.interpolation,
                "mean": list(spec.mean),
                "std": list(spec.std),
            },
            "versions": {p: version(p) for p in packages} | {"python": platform.python_version()},
        }
