"""From outlines to pixels: a creature over a background, by OpenCV."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from attrib.datasets.scene_shapes import Array, Shape, ellipse, hsv, rotation, shade

__all__ = ["background", "compose", "place", "rasterise"]

OVERSAMPLE = 3  # creatures are drawn this much larger, then averaged down
FRACTION_BITS = 4  # of the vertices that OpenCV draws


def place(rng: Generator, shapes: list[Shape], height: int, width: int) -> list[Shape]:
    """Turn, perhaps mirror, scale and shift a creature so that it lies within the picture."""
    turn = rotation(rng.uniform(-0.25, 0.25)) * (rng.choice((-1.0, 1.0)), 1)
    points = np.concatenate([s.points for s in shapes]) @ turn.T
    low, extent = points.min(0), np.ptp(points, axis=0)
    margin = 2 + 0.01 * max(height, width)
    room = np.array([width, height]) - 2 * margin
    share = rng.uniform(0.25, 0.6)  # of the picture, by the creature's box
    scale = min(np.sqrt(share * height * width / extent.prod()), (room / extent).min())
    corner = margin + rng.uniform(0, 1, 2) * (room - scale * extent)
    return [s._replace(points=(s.points @ turn.T - low) * scale + corner) for s in shapes]


def rasterise(shapes: list[Shape], height: int, width: int) -> tuple[Array, Array, Array]:
    """Paint shapes in order.

    Returns:
        Colour `[H, W, 3]`, already multiplied by the coverage, in [0, 255], and the coverage
        `[H, W]` by all shapes and by those of the part, in [0, 1].
    """
    import cv2

    canvas = np.zeros((OVERSAMPLE * height, OVERSAMPLE * width, 4), np.uint8)  # RGB, coverage
    part = np.zeros(canvas.shape[:2], np.uint8)
    extent = np.ptp(np.concatenate([s.points for s in shapes]), axis=0).max()
    thickness = max(1, round(0.0135 * OVERSAMPLE * extent))
    for s in shapes:
        _paint(canvas, s, (*s.colour, 255.0), (*shade(s.colour, 0.4), 255.0), thickness)
        if s.part:
            _paint(part, s, (255.0,), (255.0,), thickness)
    small, small_part = (
        cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        for layer in (canvas, part)
    )
    return small[..., :3], small[..., 3] / 255, small_part / 255


def _paint(
    layer: Array, shape: Shape, fill: tuple[float, ...], ink: tuple[float, ...], thickness: int
) -> None:
    import cv2

    points = _fixed_point(OVERSAMPLE * shape.points)
    cv2.fillPoly(layer, [points], fill, shift=FRACTION_BITS)
    if shape.outline:
        cv2.polylines(layer, [points], True, ink, thickness, shift=FRACTION_BITS)


def _fixed_point(points: Array) -> Array:
    """As OpenCV wants vertices: integers, counted from the middle of the first pixel."""
    fixed: Array = ((points - 0.5) * 2**FRACTION_BITS).astype(np.int32)
    return fixed


def compose(background: Array, colour: Array, mask: Array) -> Array:
    """Light the creature from above, let it cast a soft shadow and lay it over the background."""
    import cv2

    blur = 0.02 * min(mask.shape)
    soft = cv2.GaussianBlur(mask, (0, 0), 1.5 * blur)
    light = 1 + 0.25 * (soft - _shift(soft, 0.0, 2 * blur))  # bright where the surface faces up
    shadow = 1 - 0.4 * _shift(soft, 0.6 * blur, 1.6 * blur)
    image = background * (shadow * (1 - mask))[..., None] + colour * light[..., None]
    composed: Array = image.clip(0, 255).astype(np.uint8)
    return composed


def _shift(layer: Array, x: float, y: float) -> Array:
    import cv2

    matrix = np.array([(1, 0, x), (0, 1, y)], np.float32)
    shifted: Array = cv2.warpAffine(layer, matrix, layer.shape[::-1])
    return shifted


def background(rng: Generator, height: int, width: int, hue: float, clutter: float) -> Array:
    """Two colours, mixed by a relief, with small things lying about."""
    near, far = (
        np.array(hsv(h, s, v), np.float32)
        for h, s, v in rng.uniform((hue - 0.08, 0.08, 0.5), (hue + 0.08, 0.4, 0.95), (2, 3))
    )
    mixed = near + _relief(rng, height, width)[..., None] * (far - near)
    picture: Array = mixed.clip(0, 255).astype(np.uint8)
    for _ in range(round(clutter * rng.integers(6, 17))):
        _litter(rng, picture)
    return picture


def _relief(rng: Generator, height: int, width: int) -> Array:
    """A slope, a few waves across it and value noise, about within [0, 1]."""
    import cv2

    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle = rng.uniform(0, 2 * math.pi)
    relief: Array = 0.5 + 0.35 * (math.cos(angle) * x + math.sin(angle) * y)
    for _ in range(3):
        wave = rng.uniform(-0.8, 0.9) + 0.15 * np.sin(rng.uniform(2, 5) * x + rng.uniform(0, 6.3))
        relief += rng.uniform(-0.4, 0.4) * (height / 2 * (y - wave)).clip(0, 1)
    for cells in (4, 12, 40):
        noise = rng.normal(0, 0.05, (cells, cells)).astype(np.float32)
        relief += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return relief


def _litter(rng: Generator, picture: Array) -> None:
    """Draw one of the things lying about somewhere, in place."""
    import cv2

    height, width, _ = picture.shape
    kind, radius = rng.integers(len(LITTER)), rng.uniform(0.015, 0.055) * min(height, width)
    points = radius * LITTER[kind] @ rotation(rng.uniform(0, 2 * math.pi))
    vertices = _fixed_point(points + rng.uniform(0, 1, 2) * (width, height))
    colour = hsv(rng.uniform(), rng.uniform(0.1, 0.6), rng.uniform(0.35, 1.0))
    if rng.uniform() < 0.3:
        thickness = max(1, round(0.4 * radius))
        cv2.polylines(picture, [vertices], True, colour, thickness, cv2.LINE_AA, FRACTION_BITS)
    else:
        cv2.fillPoly(picture, [vertices], colour, cv2.LINE_AA, FRACTION_BITS)


def _polygon(corners: int, dent: float = 1.0) -> Array:
    """A regular polygon about the origin, or a star when every other corner is dented."""
    reach = np.where(np.arange(corners) % 2, dent, 1.0)[:, None]
    return reach * ellipse((0, 0), (1, 1), corners=corners)


LITTER = (
    np.array([(-2.5, -0.15), (2.5, -0.15), (2.5, 0.15), (-2.5, 0.15)]),  # a stick
    *(_polygon(corners) for corners in (4, 5, 20)),
    *(_polygon(corners, dent) for corners, dent in ((8, 0.3), (10, 0.45), (12, 0.6))),
)
