"""Rendered pictures of creatures that the head tells apart, with exact masks and boxes.

The head wears what makes a bull a bull. The body below is many times larger, of any colour and
coat, and has a bull's build more often than not. A classifier learns to look at the head, and so
class activation maps stop there: the gap between what they show and where the object is.

    >>> scene = Scenes(length=10, seed=0)[3]
    >>> scene.image.shape, CLASSES[scene.label], bool((scene.part <= scene.mask).all())
    (torch.Size([3, 96, 96]), 'elephant', True)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from attrib.datasets.samples import BoxSample
from attrib.datasets.scene_creatures import HEADS, creature
from attrib.datasets.scene_drawing import background, compose, place, rasterise
from attrib.datasets.scene_shapes import Array
from attrib.errors import InputError

__all__ = ["CLASSES", "Scene", "Scenes", "ScenesWithBoxes"]

SMALLEST = 32  # pixels a side; a head is hard to tell below

CLASSES: tuple[str, ...] = tuple(HEADS)
"""What a head can make of a creature; a label is an index into it."""


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
    shapes = creature(rng, CLASSES[label], CLASSES[build], hue + rng.uniform(0.25, 0.75))
    colour, mask, part = rasterise(place(rng, shapes, height, width), height, width)
    image = compose(background(rng, height, width, hue, options.clutter), colour, mask)
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
