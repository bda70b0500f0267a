"""`attrib.localize`: raw maps to heatmaps, masks and boxes, in source pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import DegenerateMapWarning
from attrib.localize.components import Components, largest_component
from attrib.localize.heatmap import (
    STATUS,
    Resize,
    Window,
    normalize,
    status_code,
    to_source,
    window,
)
from attrib.localize.threshold import Rule, cut_values
from attrib.transfer import to_device, to_host
from attrib.types import Attribution, Frame, Localization, MapStatus, Normalize, Targets

__all__ = ["localize"]

_CAUSES = {
    "constant": "is constant: no place differs from another",
    "negative": "is negative everywhere: no place speaks for the class",
    "nan": "is not finite: the model or the input produced NaN or infinity",
}


def localize(
    attribution: Attribution,
    *,
    threshold: float | Sequence[float] = 0.2,
    rule: Rule = "fraction",
    normalize: Normalize | None = None,
    resize: Resize = "bilinear",
) -> Localization:
    """Resize maps to source pixels, normalise, cut, and keep the largest 8-connected component.

    Stays on the maps' device. With frames the sizes and boxes are those of the source pictures,
    without them those of the model input.

    Args:
        attribution: Raw maps.
        threshold: One number or several; each gives a mask and a box.
        rule: How a threshold is read, see `attrib.localize.threshold.Rule`.
        normalize: `"minmax"`, or `"max"` to cut negative values off first; None for what suits the
            method, see `Attribution`.
        resize: `"bilinear"`, `"bicubic"` or `"nearest"`.

    Returns:
        One heatmap and mask stack per map, and one box row per map and threshold that has one. A
        constant, all-negative or non-finite map has an empty mask, a heatmap of zeros and no box;
        its status and a `DegenerateMapWarning` say why.
    """
    maps = attribution.maps.detach().float()
    if not len(maps):
        return _nothing(maps.device)
    code = status_code(maps)
    usable = code == STATUS.index("ok")
    maps = torch.where(usable[:, None, None], maps, 0)
    how = attribution.normalize if normalize is None else normalize

    parts: dict[int, tuple[Tensor, ...]] = {}
    for frame, rows in _by_frame(attribution).items():
        index = to_device(rows, maps.device)
        heat, cut, found = _localize(
            maps[index], frame, usable[index], threshold, rule, how, resize
        )
        of_frame = zip(heat, found.masks, cut, found.boxes, found.areas, strict=True)
        parts.update(zip(rows, of_frame, strict=True))
    heatmaps, masks, *rest = zip(*(parts[row] for row in range(len(maps))), strict=True)
    thresholds, boxes, areas = (torch.stack(x) for x in rest)
    pairs = attribution.targets
    codes, there, image, label = to_host(code, areas > 0, pairs.image, pairs.label)  # asked once
    status = tuple(STATUS[i] for i in codes.tolist())
    _warn(status, attribution.method, Targets(image=image, label=label))
    map_index, threshold_index = to_device(there.nonzero().tolist(), maps.device).view(-1, 2).T
    return Localization(
        heatmaps=heatmaps,
        masks=masks,
        boxes=boxes[map_index, threshold_index],
        map_index=map_index,
        threshold_index=threshold_index,
        areas=areas[map_index, threshold_index],
        thresholds=thresholds,
        status=status,
    )


def _whole(size: tuple[int, int]) -> Frame:
    return Frame(source=size, resized=size, tensor=size)


def _by_frame(attribution: Attribution) -> dict[Frame, list[int]]:
    """Group the maps by where they lie; whose they are is asked only where that makes a difference.

    Of pictures of several sizes it does: which maps are of which shape is then for the host to say.
    """
    frames = attribution.frames or (_whole(attribution.input_size),)
    count = len(attribution.maps)
    one = len(set(frames)) == 1
    images = [0] * count if one else attribution.targets.image.tolist()
    groups: dict[Frame, list[int]] = {}
    for row, image in enumerate(images):
        groups.setdefault(frames[image], []).append(row)
    return groups


def _localize(
    maps: Float[Tensor, "n u v"],
    frame: Frame,
    usable: Tensor,
    threshold: float | Sequence[float],
    rule: Rule,
    how: Normalize,
    resize: Resize,
) -> tuple[Tensor, Tensor, Components]:
    """Localise maps of one frame: heatmaps `[n, H, W]`, cuts `[n, t]`, components `[n, t, ...]`."""
    seen = window(frame)  # outside of it heatmaps and masks are empty
    heat, low, high = normalize(to_source(maps, frame, resize, seen), how)
    cut = cut_values(heat, low, high, threshold, rule)
    masks = (heat[:, None] >= cut[..., None, None]) & usable[:, None, None, None]
    found = largest_component(masks.flatten(0, 1))
    rows, cols = seen
    corner = to_device([cols.start, rows.start] * 2, maps.device)
    boxes = found.boxes + corner * (found.areas > 0)[:, None]
    return (
        _put_back(heat, seen, frame),
        cut,
        Components(
            masks=_put_back(found.masks, seen, frame).unflatten(0, cut.shape),
            boxes=boxes.unflatten(0, cut.shape),
            areas=found.areas.unflatten(0, cut.shape),
        ),
    )


def _put_back(part: Shaped[Tensor, "n _h _w"], where: Window, frame: Frame) -> Tensor:
    """Put what lies in a window of the source into its place, with zeros around it."""
    rows, cols = where
    height, width = frame.source
    margins = (cols.start, width - cols.stop, rows.start, height - rows.stop)
    return F.pad(part, margins) if any(margins) else part


def _nothing(device: torch.device) -> Localization:
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return Localization(
        heatmaps=(),
        masks=(),
        boxes=none[:, None].expand(0, 4),
        map_index=none,
        threshold_index=none,
        areas=none,
        thresholds=torch.zeros(0, 0, device=device),
        status=(),
    )


def _warn(status: tuple[MapStatus, ...], method: str, pairs: Targets) -> None:
    for cause, text in _CAUSES.items():
        rows = [i for i, s in enumerate(status) if s == cause]
        if rows:
            image, label = int(pairs.image[rows[0]]), int(pairs.label[rows[0]])
            more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
            warnings.warn(
                f"the {method} map of image {image}, class {label}{more} "
                f"{text}; its mask is empty and it has no box",
                DegenerateMapWarning,
                stacklevel=3,
            )
