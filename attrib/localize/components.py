"""The largest 8-connected component of each mask, with its box and area.

Three implementations of one definition: OpenCV, mask by mask, on the CPU; on a GPU a union-find in
Triton, which never waits for the host; and batched label propagation in plain torch, which asks
once per round whether it is done, for any other device and where there is no Triton. Of components
of equal area the one whose first pixel in reading order comes first is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError

__all__ = [
    "Components",
    "Engine",
    "component_engine",
    "label_components",
    "largest_component",
    "largest_component_batched",
]

Engine = Literal["opencv", "triton", "torch"]
"""What labels: see the module. All give the same answer, to the pixel."""

CHUNK_PIXELS = 1 << 25
"""At most so many pixels are labelled at once: about 1 GiB of working memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """One component per mask, for any number of leading axes.

    Args:
        masks: The component's pixels.
        boxes: Its tight box, half-open `x0 y0 x1 y1`; zeros for an empty mask.
        areas: Its number of pixels; 0 for an empty mask.
    """

    masks: Bool[Tensor, "*n H W"]
    boxes: Int[Tensor, "*n 4"]
    areas: Int[Tensor, "*n"]


def component_engine(device: torch.device) -> Engine:
    """Tell what labels masks on a device, unless another engine is asked for.

    Triton where it is installed and the GPU is one that it compiles for (compute capability 7.0
    on), else plain torch; OpenCV on the CPU.
    """
    if device.type == "cpu":
        return "opencv"
    return "triton" if device.type == "cuda" and _compiles_for(device) else "torch"


@cache
def _compiles_for(device: torch.device) -> bool:
    return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (7, 0)


def largest_component(masks: Bool[Tensor, "n H W"], engine: Engine | None = None) -> Components:
    """Keep the largest 8-connected component of each mask, on the masks' device.

    Args:
        masks: Any number, of one size.
        engine: What labels them; None for `component_engine` of their device.
    """
    engines: dict[str, Callable[[Tensor], Components]] = {
        "opencv": _largest_with_opencv,
        "triton": _largest_with_triton,
        "torch": largest_component_batched,
    }
    engine = engine or component_engine(masks.device)
    if engine not in engines:
        raise InputError(f"engine is 'opencv', 'triton' or 'torch', got {engine!r}")
    if engine == "opencv" and masks.device.type != "cpu":
        raise InputError(f"engine 'opencv' needs masks on the CPU, got {masks.device}")
    return engines[engine](masks)


def _largest_with_opencv(masks: Bool[Tensor, "n H W"]) -> Components:
    import cv2

    kept = torch.zeros_like(masks)
    boxes = torch.zeros(len(masks), 4, dtype=torch.int64)
    areas = torch.zeros(len(masks), dtype=torch.int64)
    for i, mask in enumerate(masks.numpy().view(np.uint8)):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if len(stats) < 2:
            continue
        found = stats[1:, cv2.CC_STAT_AREA]
        ties = 1 + np.flatnonzero(found == found.max())
        best = ties[0] if len(ties) == 1 else _first_in_reading_order(labels, ties)
        x, y, w, h, area = (int(value) for value in stats[best])
        kept[i] = torch.from_numpy(labels == best)
        boxes[i] = torch.tensor([x, y, x + w, y + h])
        areas[i] = area
    return Components(masks=kept, boxes=boxes, areas=areas)


def _first_in_reading_order(labels: np.ndarray, candidates: np.ndarray) -> int:
    flat = labels.ravel()
    return int(flat[np.isin(flat, candidates).argmax()])


def _largest_with_triton(masks: Bool[Tensor, "n H W"]) -> Components:
    from attrib.localize.components_triton import component_table

    parts = []
    for part in _chunks(masks):
        table = component_table(part)
        first = torch.arange(table.areas.shape[1], dtype=torch.int32, device=masks.device)
        area = table.areas.amax(1, keepdim=True)
        best = torch.where(table.areas == area, first, len(first)).amin(1, keepdim=True)
        boxes = table.boxes.gather(2, best.long().expand(4, -1, -1))[..., 0].T * (area > 0)
        parts.append(((table.roots == best).view_as(part), boxes.long(), area[:, 0].long()))
    if not parts:
        return largest_component_batched(masks)
    kept, boxes, areas = (torch.cat(part) for part in zip(*parts, strict=True))
    return Components(masks=kept, boxes=boxes, areas=areas)


def _chunks(masks: Bool[Tensor, "n H W"]) -> tuple[Bool[Tensor, "_n H W"], ...]:
    pixels = masks.shape[1] * masks.shape[2]
    return masks.split(max(1, CHUNK_PIXELS // max(1, pixels))) if masks.numel() else ()


def largest_component_batched(masks: Bool[Tensor, "n H W"]) -> Components:
    """Do the same with tensor operations alone, on any device."""
    parts = [_largest_in_chunk(part) for part in _chunks(masks)]
    kept = torch.cat(parts) if parts else masks
    areas = kept.sum((1, 2))
    x0, x1 = _extent(kept.any(1))
    y0, y1 = _extent(kept.any(2))
    boxes = torch.stack([x0, y0, x1, y1], dim=1) * (areas > 0)[:, None]
    return Components(masks=kept, boxes=boxes, areas=areas)


def _largest_in_chunk(masks: Bool[Tensor, "n H W"]) -> Bool[Tensor, "n H W"]:
    pixels = masks.shape[1] * masks.shape[2]
    labels = label_components(masks).flatten(1).long()
    counts = torch.zeros(len(masks), pixels + 1, dtype=torch.int64, device=masks.device)
    counts.scatter_add_(1, labels, (labels > 0).long())
    rank = torch.arange(pixels + 1, device=masks.device)
    best = (counts * (pixels + 1) + rank).argmax(1, keepdim=True)
    return ((labels == best) & (labels > 0)).view_as(masks)


def _extent(present: Bool[Tensor, "n s"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """First index and one past the last index that is set."""
    index = torch.arange(present.shape[1], device=present.device)
    first = torch.where(present, index, present.shape[1]).amin(1)
    return first, torch.where(present, index, -1).amax(1) + 1


def label_components(masks: Bool[Tensor, "n H W"]) -> Int[Tensor, "n H W"]:
    """Label 8-connected components, all masks at once.

    Each round hooks every tree of pixels onto the highest label next to it and halves the paths
    to the roots, so that the rounds grow with the logarithm of a component's length, not with the
    length itself.

    Returns:
        0 for background; for a component `H * W - i`, where `i` is its first pixel in reading
        order.
    """
    n, height, width = masks.shape
    pixels = height * width
    inside = masks.flatten(1)
    own = torch.arange(pixels, 0, -1, device=masks.device, dtype=torch.int32)
    labels = torch.where(inside, own, 0)
    while True:
        highest = _neighbourhood_max(labels.view(n, height, width)).flatten(1) * inside
        hooked = _with_sink(torch.maximum(labels, highest))
        hooked.scatter_reduce_(1, _root(labels, pixels), highest, "amax")
        for _ in range(2):
            hooked = _with_sink(hooked.gather(1, _root(hooked[:, :pixels], pixels)))
        updated = hooked[:, :pixels]
        if torch.equal(updated, labels):
            return labels.view(n, height, width)
        labels = updated.contiguous()


def _with_sink(labels: Int[Tensor, "n p"]) -> Int[Tensor, "n p1"]:
    """Append the pixel that background points to, so that it needs no special case."""
    return F.pad(labels, (0, 1))


def _root(labels: Int[Tensor, "n p"], pixels: int) -> Int[Tensor, "n p"]:
    return (pixels - labels).long()


def _neighbourhood_max(labels: Int[Tensor, "n H W"]) -> Int[Tensor, "n H W"]:
    padded = F.pad(labels, (1, 1, 1, 1))
    rows = torch.maximum(torch.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return torch.maximum(torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])
