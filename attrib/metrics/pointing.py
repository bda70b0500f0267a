"""The pointing game: does the highest point of a map hit the object?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError
from attrib.localize import covered, to_source
from attrib.localize.heatmap import Resize
from attrib.metrics.thresholds import per_cent
from attrib.metrics.wsol_batch import WsolBatch
from attrib.types import Frame

__all__ = ["PointingGame", "highest_point", "hits"]


def highest_point(
    plane: Float[Tensor, "u v"], frame: Frame, resize: Resize
) -> tuple[int, int] | None:
    """Return row and column of a map's maximum in its source picture, where the model saw it.

    Of equals the first in reading order; None for a constant map, which points nowhere.
    """
    heat = to_source(plane[None].double(), frame, resize)[0]
    seen = covered(frame, heat.device)
    inside = heat if seen is None else heat[seen]
    if not len(inside) or bool(inside.max() <= inside.min()):
        return None
    flat = heat if seen is None else heat.masked_fill(~seen, -torch.inf)
    index = int(flat.argmax())
    return index // frame.source[1], index % frame.source[1]


def hits(
    point: tuple[int, int],
    tolerance: float,
    boxes: Float[Tensor, "m 4"],
    mask: Tensor | None,
    source: tuple[int, int],
) -> bool:
    """Tell whether a pixel lies within `tolerance` pixels of the object's nearest pixel.

    Distances are Euclidean, between pixel centres, in the source picture. The mask decides where
    there is one, the boxes else.
    """
    y, x = point
    if mask is None:
        last = (boxes[:, 2:].double().ceil() - 1).maximum(boxes[:, :2].double())
        at = torch.tensor([x, y], dtype=torch.float64, device=boxes.device)
        away = (boxes[:, :2].floor().double() - at).maximum(at - last).clamp(min=0)
    else:
        scale = torch.tensor([s / m for s, m in zip(source, mask.shape, strict=True)])
        pixels = ((mask == 1).nonzero().double() + 0.5) * scale - 0.5
        away = pixels - torch.tensor([y, x], dtype=torch.float64)
    return bool((away.norm(dim=1) <= tolerance).any())


@dataclass(kw_only=True)
class PointingGame:
    """Share of pictures where the map's maximum lies on the object, or close by.

    Zhang et al., *Top-down Neural Attention by Excitation Backprop*. No threshold is involved.

    Args:
        tolerance: How close in source pixels.
        resize: How maps are brought to the source picture.
    """

    tolerance: float = 15
    resize: Resize = "bilinear"

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise InputError(f"tolerance is 0 pixels or more, got {self.tolerance}")
        self._hits: list[bool] = []

    @property
    def name(self) -> str:
        """As on the command line."""
        return "pointing"

    def update(self, batch: WsolBatch) -> list[bool]:
        """Score one batch; return which pictures are hit."""
        found = []
        for i, frame in enumerate(batch.frames):
            boxes, mask = batch.boxes[i].cpu(), batch.masks[i]
            if mask is None and not len(boxes):
                raise InputError(f"picture {batch.ids[i]} has neither a box nor a mask to point at")
            point = highest_point(batch.maps[i], frame, self.resize)
            mask = None if mask is None else mask.cpu()
            found.append(
                point is not None and hits(point, self.tolerance, boxes, mask, frame.source)
            )
        self._hits += found
        return found

    def add(self, other: PointingGame) -> None:
        """Add what the same protocol counted on other pictures."""
        self._hits += other._hits

    def state_dict(self) -> dict[str, Any]:
        """Return which pictures are hit, as JSON values."""
        return {"hits": self._hits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count what `state_dict` returned, and nothing else."""
        self._hits = [bool(hit) for hit in state["hits"]]

    def result(self, validation: PointingGame | None = None) -> dict[str, Any]:
        """Return the share of hits in per cent."""
        return {
            "protocol": self.name,
            "images": len(self._hits),
            "tolerance": self.tolerance,
            "resize": self.resize,
            "hits": per_cent(sum(self._hits), len(self._hits)),
        }
