"""What was measured on one picture, in memory and as a line of a journal."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

__all__ = ["Outcome", "PictureRecord", "Shown", "SmallMap"]

JPEG_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one method on one picture.

    Args:
        scores: By metric, means over the picture's classes; NaN where a map has no score. Where a
            threshold is chosen, at the picture's own best.
        rows: By metric that needs true objects, what the picture contributes to its score.
        notes: By metric, why it could not be computed.
        seconds: To explain the picture, its share of a batch; 0 if that failed.
        peak_bytes: Most memory that the batch took on the GPU; None elsewhere.
        exact: The map follows the method's equation on this model.
        error: Why there is no map; empty if there is one.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    peak_bytes: int | None = None
    exact: bool = True
    error: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class SmallMap:
    """A heatmap of a whole picture, in 8 bits and small, brought to [0, 255]."""

    values: UInt8[Tensor, "h w"]

    def heatmap(self, size: tuple[int, int]) -> Float[Tensor, "H W"]:
        """Return it in [0, 1] at a picture's size."""
        small = self.values[None, None].float() / 255
        return torch.nn.functional.interpolate(small, size, mode="bilinear")[0, 0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What a report shows of a picture.

    Args:
        pixels: The picture, perhaps shrunk.
        size: `(H, W)` of the picture itself.
        target: Name of the class explained; the first of several.
        top: Names and probabilities of the most likely classes.
        maps: By method; those that made one.
        truth: Names of the picture's own classes, where they are known.
        boxes: Half-open `x0 y0 x1 y1`, source pixels, of its true objects, where they are known.
    """

    pixels: UInt8[Tensor, "3 h w"]
    size: tuple[int, int]
    target: str
    top: tuple[tuple[str, float], ...]
    maps: Mapping[str, SmallMap]
    truth: tuple[str, ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureRecord:
    """Everything that was measured on one picture.

    Args:
        id: Unique in a comparison.
        outcomes: By method.
        shown: What a report shows; None for pictures that are only scored.
    """

    id: str
    outcomes: Mapping[str, Outcome]
    shown: Shown | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; pictures and maps as base64."""
        return {
            "outcomes": {name: _outcome_dict(o) for name, o in self.outcomes.items()},
            "shown": None if self.shown is None else _shown_dict(self.shown),
        }

    @classmethod
    def from_dict(cls, key: str, data: Mapping[str, Any]) -> PictureRecord:
        """Read back what `to_dict` returned."""
        shown = data["shown"]
        return cls(
            id=key,
            outcomes={name: _outcome(o) for name, o in data["outcomes"].items()},
            shown=None if shown is None else _shown(shown),
        )


def _outcome_dict(outcome: Outcome) -> dict[str, Any]:
    scores = {k: v if math.isfinite(v) else None for k, v in outcome.scores.items()}
    rows = {k: [int(v) for v in row] for k, row in outcome.rows.items()}
    return {**vars(outcome), "scores": scores, "rows": rows, "notes": dict(outcome.notes)}


def _outcome(data: Mapping[str, Any]) -> Outcome:
    scores = {k: math.nan if v is None else v for k, v in data["scores"].items()}
    rows = {k: tuple(map(float, row)) for k, row in data["rows"].items()}
    return Outcome(**{**data, "scores": scores, "rows": rows})


def _shown_dict(shown: Shown) -> dict[str, Any]:
    buffer = io.BytesIO()
    picture = Image.fromarray(shown.pixels.permute(1, 2, 0).numpy())
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return {
        "jpeg": _text(buffer.getvalue()),
        "size": list(shown.size),
        "target": shown.target,
        "top": [list(pair) for pair in shown.top],
        "maps": {name: _map_dict(small.values) for name, small in shown.maps.items()},
        "truth": list(shown.truth),
        "boxes": [list(box) for box in shown.boxes],
    }


def _map_dict(values: UInt8[Tensor, "h w"]) -> dict[str, Any]:
    height, width = values.shape
    return {"height": height, "width": width, "data": _text(values.numpy().tobytes())}


def _shown(data: Mapping[str, Any]) -> Shown:
    height, width = data["size"]
    return Shown(
        pixels=_pixels(data["jpeg"]),
        size=(height, width),
        target=data["target"],
        top=tuple((name, probability) for name, probability in data["top"]),
        maps={name: _map(small) for name, small in data["maps"].items()},
        truth=tuple(data["truth"]),
        boxes=tuple(map(tuple, data["boxes"])),
    )


def _pixels(jpeg: str) -> UInt8[Tensor, "3 h w"]:
    with Image.open(io.BytesIO(base64.b64decode(jpeg))) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def _map(data: Mapping[str, Any]) -> SmallMap:
    flat = np.frombuffer(base64.b64decode(data["data"]), np.uint8).copy()
    return SmallMap(values=torch.from_numpy(flat).view(data["height"], data["width"]))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
