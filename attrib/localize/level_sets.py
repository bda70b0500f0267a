"""The contours of a map above many levels, found in one sweep over its pixels.

Steepest ascent leads each pixel to a peak and so parts a map into *basins*. Above a level, basins
whose peaks rise above it hang together where the *saddle* between them does; what is to be found
per level is then a matter of a few basins, not of all pixels. Holes are the same upside down.

Three implementations of one definition, all exact. Engine `"opencv"`: OpenCV and NumPy, map by
map, on the CPU. On any other device all maps at once, in batched torch, which never returns to the
host per map or level: `"triton"` leaves what hangs together to kernels that join all basins at all
levels, `"torch"` to rounds of which each asks once whether it was the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from attrib.errors import InputError
from attrib.localize import level_sets_batched, level_sets_host
from attrib.localize.components import Engine, component_engine

__all__ = ["LevelBoxes", "all_contours", "largest_contours"]


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
    levels: UInt8[Tensor, "n H W"],
    cuts: Int[Tensor, " t"],
    tie: Float[Tensor, "n H W"],
    engine: Engine | None = None,
) -> LevelBoxes:
    """Find the boxes of all contours of `levels > cut`: of every component, and of every hole.

    Components are 8-connected, holes 4-connected background that does not reach the border. The
    contour of a hole runs over the pixels around it, so its box is one pixel wider on each side.

    Args:
        levels: Maps in 256 levels.
        cuts: Ascending, distinct, from 0 to 254.
        tie: In [0, 1], orders pixels of one level, e.g. the map before it was cut into levels.
            Changes no answer; the better it resolves plateaus, the faster.
        engine: What finds them; None for `component_engine` of the device.

    Returns:
        One row per contour, in no particular order.
    """
    engine = _engine(levels, cuts, engine)
    if engine != "opencv":
        return LevelBoxes(**level_sets_batched.all_boxes(levels, cuts, tie, engine))
    return _each(level_sets_host.all_boxes, levels, cuts, tie)


def largest_contours(
    levels: UInt8[Tensor, "n H W"],
    cuts: Int[Tensor, " t"],
    tie: Float[Tensor, "n H W"],
    engine: Engine | None = None,
) -> LevelBoxes:
    """Find the box of the contour of largest area of `levels > cut`.

    The area is that of the polygon through the pixels' centres, holes included, as OpenCV's
    `contourArea` measures it. Of equals the component whose first pixel in reading order comes
    last is taken: OpenCV's `findContours` lists it first.

    Args:
        levels: Maps in 256 levels.
        cuts: Ascending, distinct, from 0 to 254.
        tie: See `all_contours`.
        engine: What finds them; None for `component_engine` of the device.

    Returns:
        One row per map and cut, but for those where nothing lies above the cut.
    """
    engine = _engine(levels, cuts, engine)
    if engine != "opencv":
        return LevelBoxes(**level_sets_batched.largest_boxes(levels, cuts, tie, engine))
    return _each(level_sets_host.largest_boxes, levels, cuts, tie)


def _engine(levels: Tensor, cuts: Tensor, engine: Engine | None) -> Engine:
    values = cuts.tolist()
    if values != sorted(set(values)) or not all(0 <= value < 255 for value in values):
        raise InputError(f"cuts are ascending, distinct levels from 0 to 254, got {values}")
    return engine or component_engine(levels.device)


def _each(find: Callable[..., tuple[np.ndarray, np.ndarray]], *of: Tensor) -> LevelBoxes:
    """Run the host's implementation on one map after the other."""
    levels, cuts, tie = (x.cpu().numpy() for x in of)
    found = [
        find(plane.astype(np.int64), cuts.astype(np.int64), order.astype(np.float64))
        for plane, order in zip(levels, tie, strict=True)
    ]
    counts = torch.tensor([len(cut) for cut, _ in found], dtype=torch.int64)
    device = of[0].device
    image = torch.arange(len(found)).repeat_interleave(counts)
    cut = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(c for c, _ in found)]))
    boxes = torch.from_numpy(np.concatenate([np.zeros((0, 4), np.int64), *(b for _, b in found)]))
    return LevelBoxes(image=image.to(device), cut=cut.to(device), boxes=boxes.to(device))
