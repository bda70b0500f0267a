"""Creatures as outlines in body units: half a body long, x forwards, y down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from attrib.datasets.scene_shapes import (
    Array,
    Colour,
    Shape,
    ellipse,
    hsv,
    rotation,
    shade,
    stroke,
)

__all__ = ["HEADS", "creature"]

INK, WHITE, PINK = (45.0, 38.0, 48.0), (250.0, 248.0, 240.0), (240.0, 150.0, 160.0)
IVORY, GOLD, BROWN = (243.0, 229.0, 196.0), (250.0, 200.0, 70.0), (150.0, 100.0, 60.0)
ORANGE, RED = (246.0, 150.0, 40.0), (220.0, 45.0, 50.0)


class _Build(NamedTuple):
    height: float  # half the body's
    legs: float  # length below the body
    girth: float  # of a leg


def creature(rng: Generator, head: str, build: str, hue: float) -> list[Shape]:
    """Put the head of one class on the body of another, or of the same."""
    coat = hsv(hue, rng.uniform(0.3, 0.75), rng.uniform(0.6, 0.95))
    body = _body_outline(rng, BUILDS[build].height)
    far_and_near = _legs(rng, body, BUILDS[build], coat)
    return [
        *_tail(rng, TAILS[build], coat),
        *far_and_near[:2],
        Shape(body, coat),
        *_markings(rng, body, hue),
        *far_and_near[2:],
        *_head(rng, HEADS[head](coat), coat),
    ]


def _tail(rng: Generator, outlines: Sequence[Array], coat: Colour) -> list[Shape]:
    root, swing = np.array([-0.85, -0.15]), rotation(rng.uniform(-0.25, 0.25)).T
    return [Shape((points - root) @ swing + root, shade(coat, 0.85)) for points in outlines]


def _body_outline(rng: Generator, height: float) -> Array:
    angle = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    power = rng.uniform(0.7, 1.0)  # 1 is an ellipse, less is boxier
    cos, sin = np.cos(angle), np.sin(angle)
    x = np.sign(cos) * np.abs(cos) ** power
    y = np.sign(sin) * np.abs(sin) ** power * height * rng.uniform(0.92, 1.08)
    hump = rng.uniform(-0.08, 0.08) * np.cos(2 * angle + rng.uniform(0, 2 * math.pi))
    return np.stack([x, y * (1 + hump)], -1)


def _legs(rng: Generator, body: Array, build: _Build, coat: Colour) -> list[Shape]:
    """Two far legs, then two near ones; each starts inside the body."""
    reach = body[:, 1].max() + build.legs * rng.uniform(0.85, 1.15)
    thick = build.girth * rng.uniform(0.85, 1.15)
    places = np.array([-0.35, 0.68, -0.68, 0.35]) + rng.uniform(-0.07, 0.07, 4)
    shades = (0.72, 0.72, 0.95, 0.95)
    return [
        Shape(stroke((x, 0.2), (x, 0.4), (x * 1.02, reach), thick, thick * 0.8), shade(coat, s))
        for x, s in zip(places, shades, strict=True)
    ]


def _markings(rng: Generator, body: Array, hue: float) -> list[Shape]:
    """Stripes, a belly, spots or nothing, in a second colour and within the body's outline."""
    second = hsv(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.15, 0.8), rng.uniform(0.35, 1.0))
    kind = rng.integers(4)
    if kind == 0:  # corners k and -k of the outline are one above the other
        starts = range(int(rng.integers(7, 10)), 26, int(rng.integers(3, 6)))
        marks = [body[[k, k + 1, k + 2, -k - 2, -k - 1, -k]] for k in starts]
    elif kind == 1:
        marks = [body[body[:, 1] > rng.uniform(0.05, 0.3)]]
    elif kind == 2:
        where = rng.uniform((-0.75, -0.3), (0.55, 0.3), (12, 2))
        marks = [
            ellipse((x, y), (r, 0.85 * r))
            for (x, y), r in zip(where, rng.uniform(0.06, 0.16, 12), strict=True)
        ]
    else:
        marks = []
    return [_detail(0.97 * points, second) for points in marks]


# Heads: in units of the head's radius, seen from the front, before they are put on a body.


class _Head(NamedTuple):
    behind: list[Shape]
    face: list[Shape]


def _head(rng: Generator, head: _Head, coat: Colour) -> list[Shape]:
    skull = Shape(ellipse((0, 0), (1, 0.95)), shade(coat, 1.08))
    whites = _both(_detail(ellipse((0.42, -0.2), (0.24, 0.24)), WHITE))
    pupils = _both(_detail(ellipse((0.42, -0.17), (0.15, 0.15)), INK))
    turn = rng.uniform(0.3, 0.37) * rotation(rng.uniform(-0.25, 0.25)).T
    neck = rng.uniform((0.78, -0.6), (0.95, -0.35))
    return [
        shape._replace(points=shape.points @ turn + neck, part=True)
        for shape in (*head.behind, skull, *whites, *pupils, *head.face)
    ]


def _bull(coat: Colour) -> _Head:
    horn = stroke((0.6, -0.55), (1.75, -0.6), (1.3, -1.6), 0.45, 0.06)
    muzzle = Shape(ellipse((0, 0.5), (0.62, 0.38)), PINK)
    nostrils = _both(_detail(ellipse((0.25, 0.48), (0.11, 0.14)), INK))
    return _Head(_both(Shape(horn, IVORY)), [muzzle, *nostrils])


def _cat(coat: Colour) -> _Head:
    ear = np.array([(0.95, -0.2), (0.1, -0.85), (0.85, -1.65)])
    inner = np.array([(0.8, -0.55), (0.4, -0.85), (0.76, -1.3)])
    ears = [*_both(Shape(ear, coat)), *_both(_detail(inner, PINK))]
    nose = _detail(np.array([(-0.18, 0.18), (0.18, 0.18), (0, 0.4)]), PINK)
    whiskers = [
        _detail(stroke((0.3, 0.4), (0.8, y), (1.35, y), 0.07, 0.05), INK) for y in (0.25, 0.55)
    ]
    return _Head(ears, [nose, *(w for whisker in whiskers for w in _both(whisker))])


def _deer(coat: Colour) -> _Head:
    beam = stroke((0.3, -0.7), (0.5, -1.4), (1.1, -1.95), 0.24, 0.1)
    tines = [
        stroke((0.5, -1.2), (0.9, -1.2), (1.25, -1.35), 0.2, 0.1),
        stroke((0.6, -1.5), (0.5, -1.8), (0.45, -2.05), 0.2, 0.1),
    ]
    antlers = [a for points in (beam, *tines) for a in _both(Shape(points, BROWN))]
    return _Head(antlers, [_detail(ellipse((0, 0.42), (0.26, 0.2)), INK)])


def _duck(coat: Colour) -> _Head:
    tuft = stroke((0, -0.8), (0.1, -1.2), (0.45, -1.3), 0.25, 0.08)
    bill = [ellipse((0, 0.52), (0.6, 0.3)), ellipse((0, 0.36), (0.85, 0.3))]
    return _Head([Shape(tuft, coat)], [Shape(points, ORANGE) for points in bill])


def _elephant(coat: Colour) -> _Head:
    ears = _both(Shape(ellipse((0.95, -0.2), (0.5, 0.68)), shade(coat, 0.9)))
    trunk = Shape(stroke((0, 0.1), (-0.1, 1.3), (0.6, 1.5), 0.5, 0.3), shade(coat, 1.08))
    tusks = _both(_detail(stroke((0.42, 0.55), (0.5, 0.9), (0.75, 1.0), 0.2, 0.06), IVORY))
    return _Head(ears, [*tusks, trunk])


def _rabbit(coat: Colour) -> _Head:
    ear = Shape(ellipse((0.5, -1.5), (0.28, 0.85), 0.2), coat)
    inner = _detail(ellipse((0.5, -1.5), (0.13, 0.6), 0.2), PINK)
    teeth = Shape(np.array([(-0.2, 0.4), (0.2, 0.4), (0.17, 0.75), (-0.17, 0.75)]), WHITE)
    nose = _detail(ellipse((0, 0.28), (0.18, 0.13)), PINK)
    return _Head([*_both(ear), *_both(inner)], [teeth, nose])


def _rooster(coat: Colour) -> _Head:
    lobes = ((-0.5, -0.95, 0.33), (0.5, -0.95, 0.33), (0, -1.15, 0.42))
    comb = [Shape(ellipse((x, y), (r, r * 1.15)), RED) for x, y, r in lobes]
    wattle = _both(Shape(ellipse((0.16, 0.85), (0.2, 0.32)), RED))
    beak = Shape(np.array([(-0.32, 0.15), (0, 0.0), (0.32, 0.15), (0, 0.7)]), GOLD)
    return _Head(comb, [*wattle, beak])


def _unicorn(coat: Colour) -> _Head:
    horn = Shape(np.array([(-0.3, -0.7), (0.3, -0.7), (0, -2.3)]), GOLD)
    rings = [
        _detail(stroke((-w, y), (0, y), (w, y - 0.15), 0.1, 0.1), WHITE)
        for y, w in ((-1.1, 0.2), (-1.5, 0.13))
    ]
    nostrils = _both(_detail(ellipse((0.2, 0.5), (0.09, 0.12)), INK))
    return _Head([horn, *rings], nostrils)


def _detail(points: Array, colour: Colour) -> Shape:
    return Shape(points, colour, outline=False)


def _both(shape: Shape) -> list[Shape]:
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
        stroke((-0.8, -0.2), (-1.3, -0.3), (-1.2, 0.5), 0.12, 0.12),
        ellipse((-1.2, 0.55), (0.12, 0.2)),
    ],
    "cat": [stroke((-0.8, -0.1), (-1.5, 0), (-1.3, -1), 0.18, 0.14)],
    "deer": [stroke((-0.8, -0.2), (-1, -0.3), (-1.2, -0.45), 0.3, 0.1)],
    "duck": [np.array([(-0.7, 0), (-0.75, -0.4), (-1.35, -0.6), (-1.2, -0.1)])],
    "elephant": [stroke((-0.8, -0.2), (-1.2, -0.1), (-1.15, 0.35), 0.12, 0.08)],
    "rabbit": [ellipse((-1.05, -0.2), (0.25, 0.25))],
    "rooster": [
        stroke((-0.75, -0.1), (-1.3, y + 0.2), (-1.45, y), 0.3, 0.16) for y in (-0.1, -0.5, -0.9)
    ],
    "unicorn": [stroke((-0.85, -0.2), (-1.5, -0.5), (-1.4, 0.6), 0.2, 0.4)],
}
