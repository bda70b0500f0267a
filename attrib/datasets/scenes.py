"""Rendered pictures of creatures that the head tells apart, with exact masks and boxes.

The head wears what makes a bull a bull. The body below is many times larger, of any colour and
coat, and has a bull's build more often than not. A classifier learns to look at the head, and so
class activation maps stop there: the gap between what they show and where the object is.

    >>> scene = Scenes(length=10, seed=0)[3]
    >>> scene.image.shape, CLASSES[scene.label], bool((scene.part <= scene.mask).all())
    (torch.Size([3, 96, 96]), 'elephant', True)
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from attrib.datasets.samples import BoxSample
from attrib.errors import InputError

__all__ = ["CLASSES", "Scene", "Scenes", "ScenesWithBoxes"]

Array = NDArray[Any]
Colour = tuple[float, float, float]  # RGB, 0 to 255
Point = tuple[int | float, int | float]

SMALLEST = 32  # pixels a side; a head is hard to tell below
OVERSAMPLE = 3  # creatures are drawn this much larger, then averaged down
FRACTION_BITS = 4  # of the vertices that OpenCV draws
INK, WHITE, PINK = (45.0, 38.0, 48.0), (250.0, 248.0, 240.0), (240.0, 150.0, 160.0)
IVORY, GOLD, BROWN = (243.0, 229.0, 196.0), (250.0, 200.0, 70.0), (150.0, 100.0, 60.0)
ORANGE, RED = (246.0, 150.0, 40.0), (220.0, 45.0, 50.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A rendered picture of one creature, with its ground truth.

    A pixel belongs to `mask` or `part` when the creature or its head covers at least half of it.

    Args:
        image: RGB, 0 to 255.
        label: Index into `CLASSES`.
        mask: The whole creature.
        part: Its head, which alone tells the class; lies within `mask`.
        box: `(x0, y0, x1, y1)` in pixels, half-open, tight around `mask`.
    """

    image: UInt8[Tensor, "3 H W"]
    label: int
    mask: Bool[Tensor, "H W"]
    part: Bool[Tensor, "H W"]
    box: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Scenes(Dataset[Scene]):
    """A sequence of scenes; each follows from `seed` and its index, and from nothing else.

    The creature fills about 10 to 40 % of the picture (less of a very long one), its head a tenth
    to a fifth of the creature. Classes are equally likely; colours and coats do not depend on them.

    Args:
        length: Number of scenes. A scene does not depend on it.
        size: `(H, W)` or the side of a square, in pixels, 32 or more.
        seed: Chooses the sequence; 0 or more.
        clutter: Things lying about, relative to the usual number; 0 or more.
        kinship: Probability, in [0, 1], that legs, tail and girth are of the head's class; else
            they are of any class. At 0 the body says nothing about the class.

    Raises:
        InputError: an option out of its range.
    """

    length: int = 100
    size: tuple[int, int] | int = 96
    seed: int = 0
    clutter: float = 1.0
    kinship: float = 0.75

    def __post_init__(self) -> None:
        if self.length < 0:
            raise InputError(f"length is a number of scenes, 0 or more, got {self.length}")
        if min(_height_width(self.size)) < SMALLEST:
            raise InputError(f"size is (H, W) of {SMALLEST} pixels or more, got {self.size}")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}")
        if not 0 <= self.clutter < np.inf:
            raise InputError(f"clutter must be 0 or more, got {self.clutter}")
        if not 0 <= self.kinship <= 1:
            raise InputError(f"kinship is a probability in [0, 1], got {self.kinship}")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:
        if not -self.length <= index < self.length:
            raise IndexError(f"scene {index} is out of range; there are {self.length}")
        rng = np.random.default_rng([self.seed, index % self.length])
        return _render(rng, self)


def _height_width(size: tuple[int, int] | int) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _render(rng: Generator, options: Scenes) -> Scene:
    height, width = _height_width(options.size)
    label, other = (int(i) for i in rng.integers(len(CLASSES), size=2))
    build = label if rng.uniform() < options.kinship else other
    hue = rng.uniform()
    creature = _creature(rng, CLASSES[label], CLASSES[build], hue + rng.uniform(0.25, 0.75))
    colour, mask, part = _rasterise(_place(rng, creature, height, width), height, width)
    image = _compose(_background(rng, height, width, hue, options.clutter), colour, mask)
    inside = mask >= 0.5
    return Scene(
        image=torch.from_numpy(image).permute(2, 0, 1).contiguous(),
        label=label,
        mask=torch.from_numpy(inside),
        part=torch.from_numpy(part >= 0.5),
        box=_tight_box(inside),
    )


def _tight_box(mask: Array) -> tuple[int, int, int, int]:
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


# Geometry and colour


def _ellipse(centre: Point, radii: Point, turn: float = 0.0, corners: int = 28) -> Array:
    angle = 2 * math.pi / corners * np.arange(corners)
    points: Array = np.stack([np.cos(angle), np.sin(angle)], -1) * radii @ _rotation(turn).T
    return points + centre


def _stroke(start: Point, bend: Point, end: Point, width: float, tip: float) -> Array:
    """Outline of a quadratic Bezier curve that narrows from `width` to `tip`."""
    t = np.arange(10)[:, None] / 9
    a, b, c = (np.asarray(p, float) for p in (start, bend, end))
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    along = (1 - t) * (b - a) + t * (c - b)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = along[:, ::-1] * (-1, 1) * (width + t * (tip - width)) / 2
    cap = [curve[-1] + (0.8 * s * side[-1] + 0.3 * tip * along[-1]) for s in (1, -1)]
    return np.concatenate([curve + side, cap, (curve - side)[::-1]])


def _rotation(angle: float) -> Array:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([(cos, -sin), (sin, cos)])


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return 255 * r, 255 * g, 255 * b


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255.0, factor * c) for c in colour)
    return r, g, b


# Creatures: outlines in body units (half a body long), x forwards, y down.


class _Shape(NamedTuple):
    points: Array  # [p, 2], closed
    colour: Colour
    outline: bool = True
    part: bool = False


class _Build(NamedTuple):
    height: float  # half the body's
    legs: float  # length below the body
    girth: float  # of a leg


def _creature(rng: Generator, head: str, build: str, hue: float) -> list[_Shape]:
    """Put the head of one class on the body of another, or of the same."""
    coat = _hsv(hue, rng.uniform(0.3, 0.75), rng.uniform(0.6, 0.95))
    body = _body_outline(rng, BUILDS[build].height)
    far_and_near = _legs(rng, body, BUILDS[build], coat)
    return [
        *_tail(rng, TAILS[build], coat),
        *far_and_near[:2],
        _Shape(body, coat),
        *_markings(rng, body, hue),
        *far_and_near[2:],
        *_head(rng, HEADS[head](coat), coat),
    ]


def _tail(rng: Generator, outlines: Sequence[Array], coat: Colour) -> list[_Shape]:
    root, swing = np.array([-0.85, -0.15]), _rotation(rng.uniform(-0.25, 0.25)).T
    return [_Shape((points - root) @ swing + root, _shade(coat, 0.85)) for points in outlines]


def _body_outline(rng: Generator, height: float) -> Array:
    angle = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    power = rng.uniform(0.7, 1.0)  # 1 is an ellipse, less is boxier
    cos, sin = np.cos(angle), np.sin(angle)
    x = np.sign(cos) * np.abs(cos) ** power
    y = np.sign(sin) * np.abs(sin) ** power * height * rng.uniform(0.92, 1.08)
    hump = rng.uniform(-0.08, 0.08) * np.cos(2 * angle + rng.uniform(0, 2 * math.pi))
    return np.stack([x, y * (1 + hump)], -1)


def _legs(rng: Generator, body: Array, build: _Build, coat: Colour) -> list[_Shape]:
    """Two far legs, then two near ones; each starts inside the body."""
    reach = body[:, 1].max() + build.legs * rng.uniform(0.85, 1.15)
    thick = build.girth * rng.uniform(0.85, 1.15)
    places = np.array([-0.35, 0.68, -0.68, 0.35]) + rng.uniform(-0.07, 0.07, 4)
    shades = (0.72, 0.72, 0.95, 0.95)
    return [
        _Shape(_stroke((x, 0.2), (x, 0.4), (x * 1.02, reach), thick, thick * 0.8), _shade(coat, s))
        for x, s in zip(places, shades, strict=True)
    ]


def _markings(rng: Generator, body: Array, hue: float) -> list[_Shape]:
    """Stripes, a belly, spots or nothing, in a second colour and within the body's outline."""
    second = _hsv(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.15, 0.8), rng.uniform(0.35, 1.0))
    kind = rng.integers(4)
    if kind == 0:  # corners k and -k of the outline are one above the other
        starts = range(int(rng.integers(7, 10)), 26, int(rng.integers(3, 6)))
        marks = [body[[k, k + 1, k + 2, -k - 2, -k - 1, -k]] for k in starts]
    elif kind == 1:
        marks = [body[body[:, 1] > rng.uniform(0.05, 0.3)]]
    elif kind == 2:
        where = rng.uniform((-0.75, -0.3), (0.55, 0.3), (12, 2))
        marks = [
            _ellipse((x, y), (r, 0.85 * r))
            for (x, y), r in zip(where, rng.uniform(0.06, 0.16, 12), strict=True)
        ]
    else:
        marks = []
    return [_detail(0.97 * points, second) for points in marks]


# Heads: in units of the head's radius, seen from the front, before they are put on a body.


class _Head(NamedTuple):
    behind: list[_Shape]
    face: list[_Shape]


def _head(rng: Generator, head: _Head, coat: Colour) -> list[_Shape]:
    skull = _Shape(_ellipse((0, 0), (1, 0.95)), _shade(coat, 1.08))
    whites = _both(_detail(_ellipse((0.42, -0.2), (0.24, 0.24)), WHITE))
    pupils = _both(_detail(_ellipse((0.42, -0.17), (0.15, 0.15)), INK))
    turn = rng.uniform(0.3, 0.37) * _rotation(rng.uniform(-0.25, 0.25)).T
    neck = rng.uniform((0.78, -0.6), (0.95, -0.35))
    return [
        shape._replace(points=shape.points @ turn + neck, part=True)
        for shape in (*head.behind, skull, *whites, *pupils, *head.face)
    ]


def _bull(coat: Colour) -> _Head:
    horn = _stroke((0.6, -0.55), (1.75, -0.6), (1.3, -1.6), 0.45, 0.06)
    muzzle = _Shape(_ellipse((0, 0.5), (0.62, 0.38)), PINK)
    nostrils = _both(_detail(_ellipse((0.25, 0.48), (0.11, 0.14)), INK))
    return _Head(_both(_Shape(horn, IVORY)), [muzzle, *nostrils])


def _cat(coat: Colour) -> _Head:
    ear = np.array([(0.95, -0.2), (0.1, -0.85), (0.85, -1.65)])
    inner = np.array([(0.8, -0.55), (0.4, -0.85), (0.76, -1.3)])
    ears = [*_both(_Shape(ear, coat)), *_both(_detail(inner, PINK))]
    nose = _detail(np.array([(-0.18, 0.18), (0.18, 0.18), (0, 0.4)]), PINK)
    whiskers = [
        _detail(_stroke((0.3, 0.4), (0.8, y), (1.35, y), 0.07, 0.05), INK) for y in (0.25, 0.55)
    ]
    return _Head(ears, [nose, *(w for whisker in whiskers for w in _both(whisker))])


def _deer(coat: Colour) -> _Head:
    beam = _stroke((0.3, -0.7), (0.5, -1.4), (1.1, -1.95), 0.24, 0.1)
    tines = [
        _stroke((0.5, -1.2), (0.9, -1.2), (1.25, -1.35), 0.2, 0.1),
        _stroke((0.6, -1.5), (0.5, -1.8), (0.45, -2.05), 0.2, 0.1),
    ]
    antlers = [a for points in (beam, *tines) for a in _both(_Shape(points, BROWN))]
    return _Head(antlers, [_detail(_ellipse((0, 0.42), (0.26, 0.2)), INK)])


def _duck(coat: Colour) -> _Head:
    tuft = _stroke((0, -0.8), (0.1, -1.2), (0.45, -1.3), 0.25, 0.08)
    bill = [_ellipse((0, 0.52), (0.6, 0.3)), _ellipse((0, 0.36), (0.85, 0.3))]
    return _Head([_Shape(tuft, coat)], [_Shape(points, ORANGE) for points in bill])


def _elephant(coat: Colour) -> _Head:
    ears = _both(_Shape(_ellipse((0.95, -0.2), (0.5, 0.68)), _shade(coat, 0.9)))
    trunk = _Shape(_stroke((0, 0.1), (-0.1, 1.3), (0.6, 1.5), 0.5, 0.3), _shade(coat, 1.08))
    tusks = _both(_detail(_stroke((0.42, 0.55), (0.5, 0.9), (0.75, 1.0), 0.2, 0.06), IVORY))
    return _Head(ears, [*tusks, trunk])


def _rabbit(coat: Colour) -> _Head:
    ear = _Shape(_ellipse((0.5, -1.5), (0.28, 0.85), 0.2), coat)
    inner = _detail(_ellipse((0.5, -1.5), (0.13, 0.6), 0.2), PINK)
    teeth = _Shape(np.array([(-0.2, 0.4), (0.2, 0.4), (0.17, 0.75), (-0.17, 0.75)]), WHITE)
    nose = _detail(_ellipse((0, 0.28), (0.18, 0.13)), PINK)
    return _Head([*_both(ear), *_both(inner)], [teeth, nose])


def _rooster(coat: Colour) -> _Head:
    lobes = ((-0.5, -0.95, 0.33), (0.5, -0.95, 0.33), (0, -1.15, 0.42))
    comb = [_Shape(_ellipse((x, y), (r, r * 1.15)), RED) for x, y, r in lobes]
    wattle = _both(_Shape(_ellipse((0.16, 0.85), (0.2, 0.32)), RED))
    beak = _Shape(np.array([(-0.32, 0.15), (0, 0.0), (0.32, 0.15), (0, 0.7)]), GOLD)
    return _Head(comb, [*wattle, beak])


def _unicorn(coat: Colour) -> _Head:
    horn = _Shape(np.array([(-0.3, -0.7), (0.3, -0.7), (0, -2.3)]), GOLD)
    rings = [
        _detail(_stroke((-w, y), (0, y), (w, y - 0.15), 0.1, 0.1), WHITE)
        for y, w in ((-1.1, 0.2), (-1.5, 0.13))
    ]
    nostrils = _both(_detail(_ellipse((0.2, 0.5), (0.09, 0.12)), INK))
    return _Head([horn, *rings], nostrils)


def _detail(points: Array, colour: Colour) -> _Shape:
    return _Shape(points, colour, outline=False)


def _both(shape: _Shape) -> list[_Shape]:
    return [shape, shape._replace(points=shape.points * (-1, 1))]


HEADS: dict[str, Callable[[Colour], _Head]] = {
    "bull": _bull,
    "cat": _cat,
    "deer": _deer,
    "duck": _duck,
    "elephant": _elephant,
    "rabbit": _rabbit,
    "rooster": _rooster,
    "unicorn": _unicorn,
}
BUILDS = {
    "bull": _Build(0.68, 0.28, 0.28),
    "cat": _Build(0.52, 0.3, 0.2),
    "deer": _Build(0.52, 0.5, 0.17),
    "duck": _Build(0.66, 0.18, 0.2),
    "elephant": _Build(0.74, 0.35, 0.36),
    "rabbit": _Build(0.62, 0.2, 0.26),
    "rooster": _Build(0.62, 0.45, 0.14),
    "unicorn": _Build(0.58, 0.45, 0.22),
}
TAILS: dict[str, Sequence[Array]] = {
    "bull": [
        _stroke((-0.8, -0.2), (-1.3, -0.3), (-1.2, 0.5), 0.12, 0.12),
        _ellipse((-1.2, 0.55), (0.12, 0.2)),
    ],
    "cat": [_stroke((-0.8, -0.1), (-1.5, 0), (-1.3, -1), 0.18, 0.14)],
    "deer": [_stroke((-0.8, -0.2), (-1, -0.3), (-1.2, -0.45), 0.3, 0.1)],
    "duck": [np.array([(-0.7, 0), (-0.75, -0.4), (-1.35, -0.6), (-1.2, -0.1)])],
    "elephant": [_stroke((-0.8, -0.2), (-1.2, -0.1), (-1.15, 0.35), 0.12, 0.08)],
    "rabbit": [_ellipse((-1.05, -0.2), (0.25, 0.25))],
    "rooster": [
        _stroke((-0.75, -0.1), (-1.3, y + 0.2), (-1.45, y), 0.3, 0.16) for y in (-0.1, -0.5, -0.9)
    ],
    "unicorn": [_stroke((-0.85, -0.2), (-1.5, -0.5), (-1.4, 0.6), 0.2, 0.4)],
}
CLASSES: tuple[str, ...] = tuple(HEADS)
"""What a head can make of a creature; a label is an index into it."""


# Drawing


def _place(rng: Generator, shapes: list[_Shape], height: int, width: int) -> list[_Shape]:
    """Turn, perhaps mirror, scale and shift a creature so that it lies within the picture."""
    turn = _rotation(rng.uniform(-0.25, 0.25)) * (rng.choice((-1.0, 1.0)), 1)
    points = np.concatenate([s.points for s in shapes]) @ turn.T
    low, extent = points.min(0), np.ptp(points, axis=0)
    margin = 2 + 0.01 * max(height, width)
    room = np.array([width, height]) - 2 * margin
    share = rng.uniform(0.25, 0.6)  # of the picture, by the creature's box
    scale = min(np.sqrt(share * height * width / extent.prod()), (room / extent).min())
    corner = margin + rng.uniform(0, 1, 2) * (room - scale * extent)
    return [s._replace(points=(s.points @ turn.T - low) * scale + corner) for s in shapes]


def _rasterise(shapes: list[_Shape], height: int, width: int) -> tuple[Array, Array, Array]:
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
        _paint(canvas, s, (*s.colour, 255.0), (*_shade(s.colour, 0.4), 255.0), thickness)
        if s.part:
            _paint(part, s, (255.0,), (255.0,), thickness)
    small, small_part = (
        cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        for layer in (canvas, part)
    )
    return small[..., :3], small[..., 3] / 255, small_part / 255


def _paint(
    layer: Array, shape: _Shape, fill: tuple[float, ...], ink: tuple[float, ...], thickness: int
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


def _compose(background: Array, colour: Array, mask: Array) -> Array:
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


def _background(rng: Generator, height: int, width: int, hue: float, clutter: float) -> Array:
    """Two colours, mixed by a relief, with small things lying about."""
    near, far = (
        np.array(_hsv(h, s, v), np.float32)
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
    points = radius * LITTER[kind] @ _rotation(rng.uniform(0, 2 * math.pi))
    vertices = _fixed_point(points + rng.uniform(0, 1, 2) * (width, height))
    colour = _hsv(rng.uniform(), rng.uniform(0.1, 0.6), rng.uniform(0.35, 1.0))
    if rng.uniform() < 0.3:
        thickness = max(1, round(0.4 * radius))
        cv2.polylines(picture, [vertices], True, colour, thickness, cv2.LINE_AA, FRACTION_BITS)
    else:
        cv2.fillPoly(picture, [vertices], colour, cv2.LINE_AA, FRACTION_BITS)


def _polygon(corners: int, dent: float = 1.0) -> Array:
    """A regular polygon about the origin, or a star when every other corner is dented."""
    reach = np.where(np.arange(corners) % 2, dent, 1.0)[:, None]
    return reach * _ellipse((0, 0), (1, 1), corners=corners)


LITTER = (
    np.array([(-2.5, -0.15), (2.5, -0.15), (2.5, 0.15), (-2.5, 0.15)]),  # a stick
    *(_polygon(corners) for corners in (4, 5, 20)),
    *(_polygon(corners, dent) for corners, dent in ((8, 0.3), (10, 0.45), (12, 0.6))),
)


class ScenesWithBoxes:
    """Scenes as a data set with boxes, for scoring localisation offline.

    Args:
        scenes: What to render.
        name: For reports.
    """

    labels = CLASSES

    def __init__(self, scenes: Scenes | None = None, *, name: str = "scenes") -> None:
        self.name = name
        self._scenes = Scenes(length=200, size=192, seed=1) if scenes is None else scenes

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> BoxSample:
        scene = self._scenes[index]
        box = torch.tensor([scene.box], dtype=torch.float32)
        return BoxSample(
            id=str(index),
            picture=scene.image,
            label=scene.label,
            boxes=box,
            mask=scene.mask.to(torch.uint8),
        )
