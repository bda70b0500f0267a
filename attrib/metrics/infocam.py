"""infoCAM's own protocol of weakly supervised localisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib.images import boxes_to_tensor
from attrib.localize import largest_component, normalize, to_source
from attrib.localize.heatmap import Resize
from attrib.metrics.thresholds import per_cent
from attrib.metrics.wsol_batch import WsolBatch, need_boxes
from attrib.types import Frame, Normalize

__all__ = ["InfoCAMProtocol", "infocam_boxes", "pairwise_iou"]

_NONE = torch.zeros(0, dtype=torch.bool)


def pairwise_iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Intersection over union of corresponding half-open boxes `x0 y0 x1 y1`; 0 for empty ones."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = ((x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b))
    union = area_a + area_b - intersection
    return intersection / union.where(union > 0, torch.ones_like(union))


def infocam_boxes(
    maps: Float[Tensor, "n u v"],
    size: tuple[int, int],
    *,
    threshold: float = 0.2,
    resize: Resize = "bilinear",
    how: Normalize = "minmax",
) -> Float[Tensor, "n 4"]:
    """Find boxes as infoCAM's evaluation does: one per map, in pixels of the model input.

    The map is resized to the input, brought to [0, 1], cut at `threshold` (kept when equal), and
    the largest 8-connected component by pixel count gets a tight half-open box. By its range a
    negative map is treated like any other; a constant map has an empty box. Deviations from the
    authors' code: its colour map detour, which amounts to a threshold of 0.2031, its bicubic
    resize (`resize="bicubic"`), and its contour area and closed pixel boxes.

    Args:
        maps: Raw.
        size: `(h, w)` of the model input that the maps cover.
        threshold: Fraction of each map's range.
        resize: How maps are brought to the input's size.
        how: How maps are brought to [0, 1].
    """
    frame = Frame(source=size, resized=size, tensor=size)
    heat, low, high = normalize(to_source(maps.float(), frame, resize), how)
    masks = (heat >= threshold) & (high > low)[:, None, None]
    return largest_component(masks).boxes.float()


@dataclass(kw_only=True)
class InfoCAMProtocol:
    """infoCAM's own score: a fixed threshold, and a box that is right from an IoU of 0.5 on.

    *GT-known* counts the box of the true class's map; *Top-1* counts it only where the model's
    most likely class is the true one. Of several true boxes any will do.

    Args:
        threshold: Fraction of each map's range.
        resize: How maps are brought to the input's size.
        iou: From where on a box is right.
    """

    threshold: float = 0.2
    resize: Resize = "bilinear"
    iou: float = 0.5
    _right: list[Tensor] = field(default_factory=lambda: [_NONE], init=False, repr=False)
    _top1: list[Tensor] = field(default_factory=lambda: [_NONE], init=False, repr=False)

    @property
    def name(self) -> str:
        """As on the command line."""
        return "infocam"

    def update(self, batch: WsolBatch) -> Bool[Tensor, " n"]:
        """Score one batch; return which boxes are right."""
        need_boxes(batch, self.name)
        key = (self.name, self.threshold, self.resize)
        found = batch.once(key, lambda: self._overlaps(batch)) >= self.iou
        self._right.append(found)
        top1 = batch.within(1)
        if top1 is not None:
            self._top1.append(found & top1.cpu())
        return found

    def _overlaps(self, batch: WsolBatch) -> Float[Tensor, " n"]:
        """Return the highest IoU of each map's box with any true one, on the CPU."""
        size = batch.frames[0].tensor
        boxes = infocam_boxes(
            batch.maps, size, threshold=self.threshold, resize=self.resize, how=batch.normalize
        )
        overlaps = []
        for box, true, frame in zip(boxes.cpu(), batch.boxes, batch.frames, strict=True):
            truth = boxes_to_tensor(true.cpu(), frame)
            overlaps.append(pairwise_iou(box.expand(len(truth), 4), truth).amax())
        return torch.stack(overlaps)

    def add(self, other: InfoCAMProtocol) -> None:
        """Add what the same protocol counted on other pictures."""
        self._right += other._right
        self._top1 += other._top1

    def state_dict(self) -> dict[str, Any]:
        """Return which boxes are right, and which are where classes are known, as JSON values."""
        return {"right": torch.cat(self._right).tolist(), "top1": torch.cat(self._top1).tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count what `state_dict` returned, and nothing else."""
        self._right, self._top1 = (
            [torch.tensor(list(state[key]), dtype=torch.bool)] for key in ("right", "top1")
        )

    def result(self, validation: InfoCAMProtocol | None = None) -> dict[str, Any]:
        """Return `gt_known_loc`, and `top1_loc` where classes are known, in per cent."""
        images = sum(len(found) for found in self._right)
        ranked = images == sum(len(found) for found in self._top1)
        top1 = per_cent(sum(int(found.sum()) for found in self._top1), images)
        return {
            "protocol": self.name,
            "images": images,
            "threshold": self.threshold,
            "iou": self.iou,
            "resize": self.resize,
            "gt_known_loc": per_cent(sum(int(found.sum()) for found in self._right), images),
        } | ({"top1_loc": top1} if ranked else {})
