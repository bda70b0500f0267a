"""Weakly supervised object localisation: boxes against boxes, by named protocols."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib.localize import largest_component, normalize, to_source
from attrib.localize.heatmap import Resize
from attrib.types import Attribution, Frame

__all__ = ["InfoCAMProtocol", "infocam_boxes", "pairwise_iou"]


def pairwise_iou(a: Float[Tensor, "*n 4"], b: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Intersection over union of corresponding half-open boxes `x0 y0 x1 y1`; 0 for empty ones."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = ((x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b))
    union = area_a + area_b - intersection
    return intersection / union.where(union > 0, torch.ones_like(union))


def infocam_boxes(
    attribution: Attribution, *, threshold: float = 0.2, resize: Resize = "bilinear"
) -> Float[Tensor, "n 4"]:
    """Find boxes as infoCAM's evaluation does: one per map, in pixels of the model input.

    The map is resized to the input, brought to [0, 1] by its range, cut at `threshold` (kept when
    equal), and the largest 8-connected component by pixel count gets a tight half-open box.
    Negative maps are treated like any other; a constant map has an empty box. Deviations from the
    authors' code: its colour map detour, which amounts to a threshold of 0.2031, its bicubic
    resize (`resize="bicubic"`), and its contour area and closed pixel boxes.
    """
    size = attribution.input_size
    frame = Frame(source=size, resized=size, tensor=size)
    heat, low, high = normalize(to_source(attribution.maps.float(), frame, resize))
    masks = (heat >= threshold) & (high > low)[:, None, None]
    return largest_component(masks).boxes.float()


@dataclass(kw_only=True)
class InfoCAMProtocol:
    """infoCAM's own score: a fixed threshold, and a box that is right from an IoU of 0.5 on.

    *GT-known* counts the box of the true class's map; *Top-1* counts it only where the model's
    most likely class is the true one. Feed it batch by batch; `result` gives the figures.

    Args:
        threshold: Fraction of each map's range.
        resize: How maps are brought to the input's size.
        iou: From where on a box is right.
    """

    threshold: float = 0.2
    resize: Resize = "bilinear"
    iou: float = 0.5
    _localized: list[Tensor] = field(default_factory=list, init=False, repr=False)
    _classified: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def update(self, attribution: Attribution, truth: Float[Tensor, "n 4"]) -> Bool[Tensor, " n"]:
        """Score one batch.

        Args:
            attribution: One map per image, of its true class.
            truth: The object's box in pixels of the model input, half-open.

        Returns:
            Which boxes are right.
        """
        boxes = infocam_boxes(attribution, threshold=self.threshold, resize=self.resize)
        right = pairwise_iou(boxes, truth.to(boxes)) >= self.iou
        label = attribution.targets.label
        self._localized.append(right.cpu())
        self._classified.append((attribution.logits.argmax(1) == label).cpu())
        return right

    def result(self) -> dict[str, Any]:
        """Return `gt_known_loc`, `top1_loc` and `top1_acc` in per cent, and what they rest on."""
        localized = torch.cat(self._localized) if self._localized else torch.zeros(0) > 0
        classified = torch.cat(self._classified) if self._classified else localized
        return {
            "protocol": "infocam",
            "images": len(localized),
            "threshold": self.threshold,
            "iou": self.iou,
            "resize": self.resize,
            "gt_known_loc": _per_cent(localized),
            "top1_loc": _per_cent(localized & classified),
            "top1_acc": _per_cent(classified),
        }


def _per_cent(hits: Bool[Tensor, " n"]) -> float:
    return 100 * float(hits.double().mean()) if len(hits) else float("nan")
