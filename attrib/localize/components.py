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
from numpy.typing import NDArray
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
    "largest_component_bounded",
    "tight_boxes",
]

Engine = Literal["opencv", "triton", "torch"]
"""What labels: see the module. All give the same answer, to the pixel."""

CHUNK_PIXELS = 1 << 25
"""At most so many pixels are labelled at once: about 1 GiB of working memory."""

FEW = 8
"""Labels, background included, up to which comparing with each is faster than a histogram."""


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

    kept = torch.zeros_like(masks, memory_format=torch.contiguous_format)
    boxes, areas = np.zeros((len(masks), 4), np.int64), np.zeros(len(masks), np.int64)
    for i, (mask, out) in enumerate(zip(_bytes(masks), _bytes(kept), strict=True)):
        # Not with OpenCV's statistics, which take several times as long as the labels.
        count, labels = cv2.connectedComponents(mask, connectivity=8) if mask.size else (0, mask)
        if count < 2:
            continue
        found = _areas(labels, count)
        areas[i] = found.max()
        ties = 1 + np.flatnonzero(found == areas[i])
        best = ties[0] if len(ties) == 1 else _first_in_reading_order(labels, ties)
        np.equal(labels, best, out=out.view(np.bool_))
        x, y, w, h = cv2.boundingRect(out)
        boxes[i] = x, y, x + w, y + h
    return Components(masks=kept, boxes=torch.from_numpy(boxes), areas=torch.from_numpy(areas))


def _bytes(masks: Bool[Tensor, "n H W"]) -> NDArray[np.uint8]:
    return masks.numpy().view(np.uint8)


def _areas(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Count the pixels of each label above 0; a few labels faster one by one."""
    if count <= FEW:
        return np.array([np.count_nonzero(labels == label) for label in range(1, count)])
    return np.bincount(labels.ravel(), minlength=count)[1:]


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
    parts = [_most_frequent(label_components(part)) for part in _chunks(masks)]
    kept = torch.cat(parts) if parts else masks
    return Components(masks=kept, boxes=tight_boxes(kept), areas=kept.sum((1, 2)))


def largest_component_bounded(
    masks: Bool[Tensor, "n H W"], rounds: int
) -> tuple[Bool[Tensor, "n H W"], Bool[Tensor, " n"]]:
    """Do the same in a fixed number of rounds, so that it can be written down as one graph.

    Args:
        masks: Any masks.
        rounds: Of `label_components`, the one that finds nothing left to do included.

    Returns:
        The pixels kept, and whether the last round changed nothing. Where it did, a component may
        have been taken for several.
    """
    labels = before = _own_labels(masks)
    for _ in range(rounds):
        before, labels = labels, _spread(labels, masks)
    return _most_frequent(labels), (labels == before).flatten(1).all(1)


def tight_boxes(masks: Bool[Tensor, "n H W"]) -> Int[Tensor, "n 4"]:
    """Return the tight box of each mask, half-open `x0 y0 x1 y1`; zeros for an empty mask."""
    x0, x1 = _extent(masks.any(1))
    y0, y1 = _extent(masks.any(2))
    return torch.stack([x0, y0, x1, y1], dim=1) * (x1 > 0)[:, None]


def _most_frequent(labels: Int[Tensor, "n H W"]) -> Bool[Tensor, "n H W"]:
    """Keep the pixels of the most frequent label above 0; of several, of the highest."""
    n, height, width = labels.shape
    flat = labels.flatten(1).long()
    counts = torch.zeros(n, height * width + 1, dtype=torch.int64, device=labels.device)
    counts.scatter_add_(1, flat, (flat > 0).long())
    rank = torch.arange(height * width + 1, device=labels.device)
    best = (counts * (height * width + 1) + rank).argmax(1, keepdim=True)
    return ((flat == best) & (flat > 0)).view(n, height, width)


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
    labels = _own_labels(masks)
    while True:
        updated = _spread(labels, masks)
        if torch.equal(updated, labels):
            return labels
        labels = updated


def _own_labels(masks: Bool[Tensor, "n H W"]) -> Int[Tensor, "n H W"]:
    _, height, width = masks.shape
    own = torch.arange(height * width, 0, -1, device=masks.device, dtype=torch.int32)
    return torch.where(masks, own.view(height, width), 0)


def _spread(labels: Int[Tensor, "n H W"], masks: Bool[Tensor, "n H W"]) -> Int[Tensor, "n H W"]:
    """Do one round of `label_components`."""
    pixels = labels.shape[1] * labels.shape[2]
    highest = (_neighbourhood_max(labels) * masks).flatten(1)
    roots = labels.flatten(1)
    hooked = _with_sink(torch.maximum(roots, highest))
    hooked = hooked.scatter_reduce(1, _root(roots, pixels), highest, "amax")
    for _ in range(2):
        hooked = _with_sink(hooked.gather(1, _root(hooked[:, :pixels], pixels)))
    return hooked[:, :pixels].reshape(labels.shape)


def _with_sink(labels: Int[Tensor, "n p"]) -> Int[Tensor, "n p1"]:
    """Append the pixel that background points to, so that it needs no special case."""
    return F.pad(labels, (0, 1))


def _root(labels: Int[Tensor, "n p"], pixels: int) -> Int[Tensor, "n p"]:
    return (pixels - labels).long()


def _neighbourhood_max(labels: Int[Tensor, "n H W"]) -> Int[Tensor, "n H W"]:
    padded = F.pad(labels, (1, 1, 1, 1))
    rows = torch.maximum(torch.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return torch.maximum(torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])
