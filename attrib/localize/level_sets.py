"""The contours of a map above many levels, found in one sweep over its pixels.

Steepest ascent leads each pixel to a peak and so parts a map into *basins*. Above a level, basins
whose peaks rise above it hang together where the *saddle* between them does; what is to be found
per level is then a matter of a few basins, not of all pixels. Holes are the same upside down.

Three implementations of one definition, all exact. Engine `"opencv"`: OpenCV and NumPy, a few maps
at once, on the CPU, where not pixels ascend but what lies between two valleys of a row. On any
other device all maps at once, in batched torch, which never returns to the host per map or level:
`"triton"` leaves what hangs together to kernels that join all basins at all levels, `"torch"` to
rounds of which each asks once whether it was the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attrib.errors import InputError
from attrib.localize import level_sets_batched, level_sets_host
from attrib.localize.components import Engine, component_engine

__all__ = ["LevelBoxes", "all_contours", "largest_contours"]

TOGETHER = 1 << 18
"""Pixels of maps that the CPU looks at in one go; fewer take longer per map, and more do too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelBoxes:
    """Tight boxes around parts of maps above levels.

    Args:
        image: Which map.
        cut: Which level, as an index into the cuts that were asked for.
        boxes: Half-open `x0 y0 x1 y1`, pixels of the map.
    """

    image: Int[Tensor, " m"]
    cut: Int[Tensor, " m"]
    boxes: Int[Tensor, "m 4"]


def all_contours(
    scores: Float[Tensor, "n H W"],
    cuts: Int[Tensor, " t"],
    engine: Engine | None = None,
) -> LevelBoxes:
    """Find the boxes of all contours of `int(255 * scores) > cut`: of components and of holes.

    Components are 8-connected, holes 4-connected background that does not reach the border. The
    contour of a hole runs over the pixels around it, so its box is one pixel wider on each side.

    Args:
        scores: In [0, 1]; double precision where exact agreement matters.
        cuts: Ascending, distinct, from 0 to 254.
        engine: What finds them; None for `component_engine` of the device.

    Returns:
        One row per contour, in no particular order.
    """
    engine = _engine(scores, cuts, engine)
    if engine != "opencv":
        return LevelBoxes(**level_sets_batched.all_boxes(scores, cuts, engine))
    return _some_by_some(level_sets_host.all_boxes, scores, cuts)


def largest_contours(
    scores: Float[Tensor, "n H W"],
    cuts: Int[Tensor, " t"],
    engine: Engine | None = None,
) -> LevelBoxes:
    """Find the box of the contour of largest area of `int(255 * scores) > cut`.

    The area is that of the polygon through the pixels' centres, holes included, as OpenCV's
    `contourArea` measures it. Of equals the component whose first pixel in reading order comes
    last is taken: OpenCV's `findContours` lists it first.

    Args:
        scores: See `all_contours`.
        cuts: Ascending, distinct, from 0 to 254.
        engine: What finds them; None for `component_engine` of the device.

    Returns:
        One row per map and cut, but for those where nothing lies above the cut.
    """
    engine = _engine(scores, cuts, engine)
    if engine != "opencv":
        return LevelBoxes(**level_sets_batched.largest_boxes(scores, cuts, engine))
    return _some_by_some(level_sets_host.largest_boxes, scores, cuts)


def _engine(scores: Tensor, cuts: Tensor, engine: Engine | None) -> Engine:
    values = cuts.tolist()
    if values != sorted(set(values)) or not all(0 <= value < 255 for value in values):
        raise InputError(f"cuts are ascending, distinct levels from 0 to 254, got {values}")
    return engine or component_engine(scores.device)


def _some_by_some(
    find: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]], scores: Tensor, cuts: Tensor
) -> LevelBoxes:
    """Run the host's implementation on as many maps at once as a processor's cache holds."""
    few = max(1, TOGETHER // max(1, scores[:1].numel()))
    found = [
        (image + first, cut, boxes)
        for first in range(0, len(scores), few)
        for image, cut, boxes in [
            find(scores[first : first + few].cpu().numpy(), cuts.cpu().numpy())
        ]
    ]
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4), np.int64))
    parts = (np.concatenate(part) for part in zip(none, *found, strict=True))
    image, cut, boxes = (torch.from_numpy(part).to(scores.device) for part in parts)
    return LevelBoxes(image=image, cut=cut, boxes=boxes)
