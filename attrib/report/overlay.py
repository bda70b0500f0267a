"""Pictures for people: heatmaps over photographs, with boxes, one by one or in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLORMAP", "Box", "Panel", "figure", "overlay"]

COLORMAP = "plasma"
STRENGTH = 0.8
"""Opacity of the heatmap where it is 1; where it is 0 the photograph is bare."""
TITLE_WIDTH = 32
"""Characters after which a title goes on below."""
BOX_COLOUR, TRUTH_COLOUR = "#00e5ff", "#ffffff"

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One picture to show.

    Args:
        image: RGB.
        heatmap: In [0, 1]; laid over the picture if given.
        mask: Outlined if given.
        box: Half-open `x0 y0 x1 y1`, in pixels of the picture; drawn if given.
        truth: Another box to compare with, drawn dashed.
        title: Above the panel.
    """

    image: UInt8[Tensor, "3 H W"]
    heatmap: Float[Tensor, "H W"] | None = None
    mask: Bool[Tensor, "H W"] | None = None
    box: Box | None = None
    truth: Box | None = None
    title: str = ""


def overlay(image: UInt8[Tensor, "3 H W"], heatmap: Float[Tensor, "H W"]) -> NDArray[np.uint8]:
    """Blend a heatmap over a picture, the more opaque the hotter; returns RGB `[H, W, 3]`."""
    from matplotlib import colormaps

    heat = heatmap.detach().cpu().numpy()
    colour = colormaps[COLORMAP](heat)[..., :3]
    alpha = STRENGTH * heat[..., None]
    base = image.cpu().permute(1, 2, 0).numpy() / 255
    blended: NDArray[np.uint8] = np.rint(255 * ((1 - alpha) * base + alpha * colour)).astype(
        np.uint8
    )
    return blended


def figure(panels: Sequence[Sequence[Panel]], *, size: float = 3.0, colorbar: str = "") -> Figure:
    """Lay panels out in rows.

    Args:
        panels: Rows of panels.
        size: Width of a panel in inches.
        colorbar: What the one colour scale of all heatmaps measures; empty for no scale.

    Returns:
        A figure that notebooks show by themselves, and that is not known to pyplot, so that
        nothing is opened and nothing leaks.
    """
    from attrib.report.drawing import Drawing

    rows, columns = len(panels), max(len(row) for row in panels)
    ratio = max(p.image.shape[1] / p.image.shape[2] for row in panels for p in row)
    height = size * min(max(ratio, 0.4), 2.0) + 0.35
    drawn = Drawing(figsize=(size * columns, height * rows), layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, row_axes in zip(panels, axes, strict=True):
        for panel, axis in zip(row, row_axes, strict=False):
            _draw(panel, axis)
    if colorbar:
        _scale(drawn, axes, colorbar)
    return drawn


def _scale(drawn: Figure, axes: Any, label: str) -> None:
    from matplotlib.cm import ScalarMappable

    bar = drawn.colorbar(ScalarMappable(cmap=COLORMAP), ax=axes, fraction=0.02, pad=0.01, aspect=40)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _draw(panel: Panel, axis: Axes) -> None:
    shown: Any = panel.image.cpu().permute(1, 2, 0).numpy()
    if panel.heatmap is not None:
        shown = overlay(panel.image, panel.heatmap)
    axis.imshow(shown, interpolation="antialiased")
    if panel.mask is not None and bool(panel.mask.any()) and not bool(panel.mask.all()):
        axis.contour(panel.mask.cpu().numpy(), levels=[0.5], colors=[BOX_COLOUR], linewidths=1)
    if panel.truth is not None:
        _rectangle(panel.truth, axis, TRUTH_COLOUR, "--")
    if panel.box is not None:
        _rectangle(panel.box, axis, BOX_COLOUR, "-")
    if panel.title:
        axis.set_title(fill(panel.title, TITLE_WIDTH), fontsize=8)


def _rectangle(box: Box, axis: Axes, colour: str, style: str) -> None:
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = box
    corner, width, height = (x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0
    axis.add_patch(
        Rectangle(
            corner, width, height, fill=False, edgecolor=colour, linestyle=style, linewidth=1.8
        )
    )
