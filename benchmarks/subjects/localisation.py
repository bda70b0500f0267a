"""Localisation alone: heatmaps cut, labelled and boxed beside two literal loops; labels alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import cv2
import numpy as np
import torch
from skimage.measure import label, regionprops
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.localize import largest_component
from attrib.localize.components import label_components
from attrib.types import Attribution, Targets
from benchmarks import peers
from benchmarks.harness import OURS, Budget, Candidate, Effort, Table, call, measure
from benchmarks.models import prepare

TITLE = "Localisation"
ABOUT = (
    "Maps at 224 x 224 pixels to the box of the largest component above a fifth of the range, per "
    "map, over the forward pass of a ResNet-50 per picture of a batch of 16. The loops are of one "
    "map at a time: threshold, label with 8 neighbours, the largest area, its box. The last row "
    "is `attrib.localize` whole, from raw maps of 7 x 7 cells: resized and normalised as well. The "
    "second table is of the labels alone, of what lies above half of the range: of all masks at "
    "once by tensor operations, as on a GPU without Triton, and by OpenCV mask by mask. Labels are "
    "compared but for their names; kornia's pooling takes its usual 100 steps, of a pixel each."
)
LIMIT = 0.05
BUDGET = Budget(seconds=30, least=3, most=15)
COUNT, SIZE, BATCH, CUT = 1000, 224, 16, 0.2
LABELLED, HALF = 64, 0.5
"""Masks whose labels alone are compared, and their cut: they have several components."""


def tables(
    effort: Effort,
    count: int = COUNT,
    model: str = "torchvision/resnet50",
    labelled: int = LABELLED,
) -> Iterator[Table]:
    """Check that all find the same boxes, then measure; likewise labels."""
    raw = torch.randn(count, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    maps = F.interpolate(raw, (SIZE, SIZE), mode="bilinear")[:, 0]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    maps = (maps - low) / (high - low)
    work = prepare(model, BATCH, device=effort.device)
    forward = call("torch", f"forward, {model}", work.forward, per=BATCH)
    yield _boxes(raw[:, 0], maps, forward, effort)
    yield _labels(maps[:labelled] >= HALF, forward, effort)


def _boxes(raw: Tensor, maps: Tensor, forward: Candidate, effort: Effort) -> Table:
    boxes, count = _ours(maps.to(effort.device)).cpu(), len(maps)
    if not (torch.equal(boxes, _with_opencv(maps)) and torch.equal(boxes, _with_skimage(maps))):
        raise RuntimeError("the loops find other boxes than attrib, so nothing was timed")
    attribution = _attribution(raw.to(effort.device))
    candidates = [
        forward,
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
    return measure(f"{count:,} maps, {SIZE} x {SIZE} pixels", candidates, BUDGET, effort)


def _labels(masks: Tensor, forward: Candidate, effort: Effort) -> Table:
    count, there = len(masks), masks.to(effort.device)
    truth, ours = _opencv_labels(masks), partial(label_components, there)
    kornia, notes = _with_kornia(there)
    wrong = {name: count - _alike(run().cpu(), truth) for name, run in kornia.items()}
    if _alike(ours().cpu(), truth) < count or wrong.get("labels"):
        raise RuntimeError("attrib, OpenCV and kornia label differently, so nothing was timed")
    candidates = [
        forward,
        call(OURS, "labels", ours, per=count),
        *(call("kornia", name, run, per=count) for name, run in kornia.items()),
        call("OpenCV", "labels, mask by mask", partial(_opencv_labels, masks), per=count),
    ]
    notes += [f"kornia: {name} are wrong on {n} of the {count} masks." for name, n in wrong.items()]
    title = f"labels of {count} masks, {SIZE} x {SIZE} pixels"
    return measure(title, candidates, BUDGET, effort, notes=notes)


def _with_kornia(masks: Tensor) -> tuple[dict[str, Callable[[], Tensor]], list[str]]:
    """List what kornia can do, and say so where it is missing."""
    if absent := peers.missing("kornia", "kornia.contrib"):
        return {}, [absent]
    from kornia import contrib

    planes = masks[:, None]
    return {
        "labels": lambda: contrib.connected_components_union_find(planes)[:, 0],
        "labels after 100 steps": lambda: contrib.connected_components(planes, 100)[:, 0],
    }, []


def _alike(labels: Tensor, others: Tensor) -> int:
    """Count the masks whose labels are the same but for their names; 0 is the background's."""
    return sum(map(_renamed, labels, others))


def _renamed(labels: Tensor, others: Tensor) -> bool:
    met = torch.stack([labels.flatten().long(), others.flatten().long()], 1).unique(dim=0)
    counts = {len(labels.unique()), len(others.unique()), len(met)}
    return len(counts) == 1 and torch.equal(labels > 0, others > 0)


def _opencv_labels(masks: Tensor) -> Tensor:
    planes = masks.numpy().astype(np.uint8)
    labels = [cv2.connectedComponents(plane, connectivity=8)[1] for plane in planes]
    return torch.from_numpy(np.stack(labels))


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
