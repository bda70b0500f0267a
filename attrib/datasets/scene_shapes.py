"""What rendered creatures are made of: outlines and colours."""

from __future__ import annotations

import colorsys
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Colour", "Point", "Shape", "ellipse", "hsv", "rotation", "shade", "stroke"]

Array = NDArray[Any]
Colour = tuple[float, float, float]
"""RGB, 0 to 255."""
Point = tuple[int | float, int | float]


class Shape(NamedTuple):
    """A filled outline."""

    points: Array  # [p, 2], closed
    colour: Colour
    outline: bool = True
    part: bool = False


def ellipse(centre: Point, radii: Point, turn: float = 0.0, corners: int = 28) -> Array:
    """Outline of an ellipse, turned by radians."""
    angle = 2 * math.pi / corners * np.arange(corners)
    points: Array = np.stack([np.cos(angle), np.sin(angle)], -1) * radii @ rotation(turn).T
    return points + centre


def stroke(start: Point, bend: Point, end: Point, width: float, tip: float) -> Array:
    """Outline of a quadratic Bezier curve that narrows from `width` to `tip`."""
    t = np.arange(10)[:, None] / 9
    a, b, c = (np.asarray(p, float) for p in (start, bend, end))
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    along = (1 - t) * (b - a) + t * (c - b)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = along[:, ::-1] * (-1, 1) * (width + t * (tip - width)) / 2
    cap = [curve[-1] + (0.8 * s * side[-1] + 0.3 * tip * along[-1]) for s in (1, -1)]
    return np.concatenate([curve + side, cap, (curve - side)[::-1]])


def rotation(angle: float) -> Array:
    """Matrix `[2, 2]` that turns column vectors by radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([(cos, -sin), (sin, cos)])


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Colour of a hue (1 is all round), saturation and value in [0, 1]."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return 255 * r, 255 * g, 255 * b


def shade(colour: Colour, factor: float) -> Colour:
    """Make a colour darker or, above 1, brighter."""
    r, g, b = (min(255.0, factor * c) for c in colour)
    return r, g, b
