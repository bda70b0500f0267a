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
from attrib.localize.heatmap import Resize, Window, normalize, status_of, to_source, window
from attrib.localize.threshold import Rule, cut_values
from attrib.types import Attribution, Frame, Localization, MapStatus, Normalize

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
    status = status_of(maps)
    _warn(status, attribution)
    usable = torch.tensor([s == "ok" for s in status], dtype=torch.bool)
    usable = usable.to(maps.device, non_blocking=True)
    maps = torch.where(usable[:, None, None], maps, 0)
    how = attribution.normalize if normalize is None else normalize
    images = attribution.targets.image.tolist() if attribution.frames else [0] * len(maps)
    frames = attribution.frames or (_whole(attribution.input_size),)

    parts: dict[int, tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = {}
    for frame, rows in _by_frame(frames, images).items():
        index = torch.tensor(rows).to(maps.device, non_blocking=True)
        heat, cut, found = _localize(
            maps[index], frame, usable[index], threshold, rule, how, resize
        )
        of_frame = zip(heat, cut, found.masks, found.boxes, found.areas, strict=True)
        parts.update(zip(rows, of_frame, strict=True))
    return _collect([parts[row] for row in range(len(maps))], status, maps.device)


def _whole(size: tuple[int, int]) -> Frame:
    return Frame(source=size, resized=size, tensor=size)


def _by_frame(frames: Sequence[Frame], images: list[int]) -> dict[Frame, list[int]]:
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
    corner = torch.tensor([cols.start, rows.start] * 2).to(maps.device, non_blocking=True)
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


def _collect(
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]],
    status: tuple[MapStatus, ...],
    device: torch.device,
) -> Localization:
    """Stack what is of one size, and keep a row for each box there is."""
    if parts:
        heatmaps, cuts, masks, box_parts, area_parts = zip(*parts, strict=True)
        thresholds, boxes, areas = (torch.stack(x) for x in (cuts, box_parts, area_parts))
    else:
        heatmaps, masks, thresholds = (), (), torch.zeros(0, 0, device=device)
        areas = torch.zeros(0, 0, dtype=torch.int64, device=device)
        boxes = areas[..., None].expand(0, 0, 4)
    map_index, threshold_index = (areas > 0).nonzero(as_tuple=True)
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


def _warn(status: tuple[MapStatus, ...], attribution: Attribution) -> None:
    for cause, text in _CAUSES.items():
        rows = [i for i, s in enumerate(status) if s == cause]
        if rows:
            image, label = attribution.targets.image[rows[0]], attribution.targets.label[rows[0]]
            more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
            warnings.warn(
                f"the {attribution.method} map of image {int(image)}, class {int(label)}{more} "
                f"{text}; its mask is empty and it has no box",
                DegenerateMapWarning,
                stacklevel=3,
            )
