"""Localisation alone: a thousand heatmaps cut, labelled and boxed, beside two literal loops."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import torch
from skimage.measure import label, regionprops
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.localize import largest_component
from attrib.types import Attribution, Targets
from benchmarks.harness import OURS, Budget, Effort, Table, call, measure
from benchmarks.models import prepare

TITLE = "Localisation"
ABOUT = (
    "Maps at 224 x 224 pixels to the box of the largest component above a fifth of the range, per "
    "map, over the forward pass of a ResNet-50 per picture of a batch of 16. The loops are of one "
    "map at a time: threshold, label with 8 neighbours, the largest area, its box. The last row "
    "is `attrib.localize` whole, from raw maps of 7 x 7 cells: resized and normalised as well."
)
LIMIT = 0.05
BUDGET = Budget(seconds=30, least=3, most=15)
COUNT, SIZE, BATCH, CUT = 1000, 224, 16, 0.2


def tables(
    effort: Effort, count: int = COUNT, model: str = "torchvision/resnet50"
) -> Iterator[Table]:
    """Check that all find the same boxes, then measure."""
    raw = torch.randn(count, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    maps = F.interpolate(raw, (SIZE, SIZE), mode="bilinear")[:, 0]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    maps = (maps - low) / (high - low)
    boxes = _ours(maps.to(effort.device)).cpu()
    if not (torch.equal(boxes, _with_opencv(maps)) and torch.equal(boxes, _with_skimage(maps))):
        raise RuntimeError("the loops find other boxes than attrib, so nothing was timed")
    work = prepare(model, BATCH, device=effort.device)
    attribution = _attribution(raw[:, 0].to(effort.device))
    candidates = [
        call("torch", f"forward, {model}", work.forward, per=BATCH),
        call(
            OURS,
            "threshold, components, boxes",
            partial(_ours, maps.to(effort.device)),
            limit=LIMIT,
            per=count,
        ),
        call("OpenCV", "threshold, components, boxes", partial(_with_opencv, maps), per=count),
        call(
            "scikit-image", "threshold, components, boxes", partial(_with_skimage, maps), per=count
        ),
        call(OURS, "localize", partial(attrib.localize, attribution), limit=LIMIT, per=count),
    ]
    yield measure(f"{count:,} maps, {SIZE} x {SIZE} pixels", candidates, BUDGET, effort)


def _ours(maps: Tensor) -> Tensor:
    return largest_component(maps >= CUT).boxes


def _with_opencv(maps: Tensor) -> Tensor:
    boxes = []
    for plane in maps.numpy():
        mask = (plane >= CUT).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        x, y, w, h, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
        boxes.append([x, y, x + w, y + h])
    return torch.tensor(np.array(boxes), dtype=torch.int64)


def _with_skimage(maps: Tensor) -> Tensor:
    boxes = []
    for plane in maps.numpy():
        found = regionprops(label(plane >= CUT, connectivity=2))
        y0, x0, y1, x1 = max(found, key=lambda region: region.area).bbox
        boxes.append([x0, y0, x1, y1])
    return torch.tensor(boxes)


def _attribution(raw: Tensor) -> Attribution:
    index = torch.arange(len(raw), device=raw.device)
    return Attribution(
        maps=raw,
        targets=Targets(image=index, label=torch.zeros_like(index)),
        logits=raw.new_zeros(len(raw), 1),
        method="cam",
        unit="logits",
        exact=True,
        input_size=(SIZE, SIZE),
        normalize="minmax",
    )
