"""One picture's answer, for people and for files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib.errors import InputError
from attrib.files import replacing
from attrib.images import Picture
from attrib.models import ModelRecord
from attrib.report import Box, Panel, figure
from attrib.transfer import to_device, to_host
from attrib.types import Attribution, Localization, Targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "explanations"]

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


def explanations(
    pictures: Sequence[Picture], attribution: Attribution, where: Localization, model: ModelRecord
) -> list[Explanation]:
    """Cut what was found in a batch up into one answer per picture.

    Args:
        pictures: What was explained, in the order of the batch.
        attribution: The raw maps, with their frames.
        where: Heatmaps, masks and boxes of those maps.
        model: What made them.
    """
    pairs, spec = attribution.targets, model.spec
    scores = spec.probabilities(attribution.logits)[pairs.image, pairs.label]
    found = to_host(scores, pairs.image, pairs.label, where.map_index)
    scored, owner, labels, boxes_of = (values.tolist() for values in found)
    done = []
    for i, picture in enumerate(pictures):
        rows = [row for row, image in enumerate(owner) if image == i]
        targets = tuple(labels[row] for row in rows)
        done.append(
            Explanation(
                picture=replace(picture, sent=None),  # which would be kept on the GPU beside it
                targets=targets,
                labels=tuple(map(spec.label_of, targets)),
                scores=tuple(scored[row] for row in rows),
                attribution=_attribution_of(attribution, i, rows),
                localization=_localization_of(where, rows, boxes_of),
                model=model,
            )
        )
    return done


def _attribution_of(attribution: Attribution, image: int, rows: list[int]) -> Attribution:
    index = to_device(rows, attribution.maps.device)
    pairs = attribution.targets
    return replace(
        attribution,
        maps=attribution.maps[index],
        targets=Targets(image=torch.zeros_like(index), label=pairs.label[index]),
        logits=attribution.logits[image : image + 1],
        frames=attribution.frames[image : image + 1],
    )


def _localization_of(where: Localization, rows: list[int], boxes_of: list[int]) -> Localization:
    """Cut out the maps at `rows`; `boxes_of` is `where.map_index`, which is on the host already."""
    first = {row: i for i, row in enumerate(rows)}
    kept = [m for m, owner in enumerate(boxes_of) if owner in first]
    device = where.boxes.device
    index = to_device(kept, device)
    return Localization(
        heatmaps=tuple(where.heatmaps[row] for row in rows),
        masks=tuple(where.masks[row] for row in rows),
        boxes=where.boxes[index],
        map_index=to_device([first[boxes_of[m]] for m in kept], device),
        threshold_index=where.threshold_index[index],
        areas=where.areas[index],
        thresholds=where.thresholds[to_device(rows, device)],
        status=tuple(where.status[row] for row in rows),
    )
