"""Pictures made from digits whose class shows in one known region: the IB mask paper's data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.datasets.digits import digits
from attrib.datasets.picture_files import picture_set
from attrib.errors import InputError

__all__ = ["RegionPictures", "anchors", "cifar10_rectangles", "digit_rectangles", "rectangles",
           "small_digits"]  # fmt: skip

Split = Literal["train", "test"]

DIGIT, SIDE = 28, 56
"""Side of a digit's picture and of the pictures with several things in them."""
JITTER = 4
"""Furthest shift from the middle of a quadrant, in pixels."""
SMALL_SIDES = {2: 18, 4: 14}
"""Side of the small digit, by the number of digits."""
RADIUS = 8
"""Of the circle around the small digit."""
ANCHOR, ANCHOR_AT = 8, (6, 42)
"""Side of an anchor and where anchors begin, in rows and columns."""
MARGIN = 4
"""Around a digit within its picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionPictures:
    """Pictures, their classes, and the region that tells the class: a data set for torch.

    An item is a picture `[c, n, n]`, its class and its region `[n, n]`, which a `DataLoader` makes
    batches of.

    Args:
        images: In [0, 1].
        labels: Classes from 0.
        regions: The region's pixels; all False in a picture without one.
        classes: Number of classes.
    """

    images: Float[Tensor, "m c n n"]
    labels: Int[Tensor, " m"]
    regions: Bool[Tensor, "m n n"]
    classes: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(
        self, index: int
    ) -> tuple[Float[Tensor, "c n n"], Int[Tensor, ""], Bool[Tensor, "n n"]]:
        return self.images[index], self.labels[index], self.regions[index]


def rectangles(
    images: Float[Tensor, "m c n n"],
    *,
    seed: int = 0,
    probability: float = 0.5,
    sides: tuple[int, int] = (3, 10),
) -> RegionPictures:
    """Add a rectangle of one colour to some pictures; the class is whether it is there.

    Zhmoginov et al., section 4.1: sides of 3 to 10 pixels anywhere in the picture, grey from 100
    to 255 on MNIST, any colour on CIFAR10.

    Args:
        images: In [0, 1], grey or colour.
        seed: Chooses pictures, rectangles and colours.
        probability: Of a rectangle.
        sides: Shortest and longest, in pixels.

    Raises:
        InputError: neither one nor three channels, or an option out of its range.
    """
    m, channels, n, _ = images.shape
    if channels not in (1, 3):
        raise InputError(f"pictures are grey or RGB, got {channels} channels")
    if not 0 <= probability <= 1 or not 1 <= sides[0] <= sides[1] <= n:
        raise InputError(
            f"probability is in [0, 1] and sides ascend from 1 to {n}, got {probability} "
            f"and {sides}"
        )
    generator = torch.Generator().manual_seed(seed)
    there = torch.rand(m, generator=generator) < probability
    spans = []
    for _axis in range(2):
        length = torch.randint(sides[0], sides[1] + 1, (m,), generator=generator)
        start = (torch.rand(m, generator=generator) * (n - length + 1)).long()
        at = torch.arange(n)
        spans.append((at >= start[:, None]) & (at < (start + length)[:, None]))
    regions = spans[0][:, :, None] & spans[1][:, None, :] & there[:, None, None]
    darkest = 100 if channels == 1 else 0
    colour = torch.randint(darkest, 256, (m, channels, 1, 1), generator=generator) / 255
    shown = torch.where(regions[:, None], colour, images)
    return RegionPictures(images=shown, labels=there.long(), regions=regions, classes=2)


def digit_rectangles(
    root: str | Path | None = None, split: Split = "train", *, seed: int = 0
) -> RegionPictures:
    """Add rectangles to handwritten digits, see `rectangles`.

    Args:
        root: See `digits`.
        split: See `digits`.
        seed: See `rectangles`.

    Raises:
        InputError: see `digits`.
        MissingExtraError: see `digits`.
    """
    return rectangles(digits(root, split)[0][:, None].float() / 255, seed=seed)


def cifar10_rectangles(
    root: str | Path, split: Split = "train", *, seed: int = 0
) -> RegionPictures:
    """Add rectangles of any colour to CIFAR-10's photographs, see `rectangles`.

    Args:
        root: Folder that torchvision was given to download to, or a zip file of
            `SPLIT/CLASS/NAME.png`.
        split: `"train"` or `"test"`.
        seed: See `rectangles`.

    Raises:
        InputError: files are missing or damaged, or there is no such split.
    """
    kind = "splits" if Path(root).suffix.lower() == ".zip" else "cifar10"
    pictures = picture_set(kind, root, split)
    return rectangles(pictures.read(range(len(pictures))).float() / 255, seed=seed)


def small_digits(
    root: str | Path | None = None,
    split: Split = "train",
    *,
    count: int = 2,
    length: int | None = None,
    seed: int = 0,
) -> RegionPictures:
    """Put two or four digits in the quadrants; the one that is smaller tells the class.

    Zhmoginov et al., section 4.2 and appendix C.4: pictures of 56 x 56, each digit up to 4 pixels
    from the middle of its quadrant; the small one is 18 (of two) or 14 (of four) pixels wide. A
    large digit's margin may leave the picture; where digits meet, the brighter pixel is kept.

    Args:
        root: See `digits`.
        split: See `digits`.
        count: Digits per picture, 2 or 4.
        length: Number of pictures; None for as many as there are digits.
        seed: Chooses digits, quadrants and shifts.

    Returns:
        Pictures whose region is a circle of radius 8 around the small digit.

    Raises:
        InputError: a wrong count or length, or see `digits`.
        MissingExtraError: see `digits`.
    """
    if count not in SMALL_SIDES:
        raise InputError(f"count is 2 or 4 digits, got {count}")
    pixels, numbers = digits(root, split)
    generator = torch.Generator().manual_seed(seed)
    chosen = _drawn(len(pixels), length, generator)
    others = torch.randint(len(pixels), (count - 1, len(chosen)), generator=generator)
    quadrants = torch.rand(len(chosen), 4, generator=generator).argsort(1)[:, :count].T
    shifts = torch.randint(-JITTER, JITTER + 1, (count, len(chosen), 2), generator=generator)
    middles = DIGIT // 2 + DIGIT * torch.stack([quadrants // 2, quadrants % 2], 2) + shifts
    canvas = torch.zeros(len(chosen), SIDE + 2 * JITTER, SIDE + 2 * JITTER)
    for index, middle in zip(others, middles[1:], strict=True):
        _paste(canvas, pixels[index].float() / 255, middle)
    _paste(canvas, _shrunk(pixels[chosen].float() / 255, SMALL_SIDES[count]), middles[0])
    images = canvas[:, JITTER:-JITTER, JITTER:-JITTER].contiguous()
    return RegionPictures(
        images=images[:, None], labels=numbers[chosen], regions=_circles(middles[0]), classes=10
    )


def anchors(
    root: str | Path | None = None,
    split: Split = "train",
    *,
    length: int | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> RegionPictures:
    """Put a digit from 0 to 4 amid four solid squares, which a mask can tell the class by.

    Zhmoginov et al., section 4.3. The paper gives no sizes: here the picture is 56 x 56, the digit
    in its middle and the squares, of 8 x 8, at its corners.

    Args:
        root: See `digits`.
        split: See `digits`.
        length: Number of pictures; None for as many as there are digits from 0 to 4.
        noise: Uniform background noise in [0, noise], on which the brighter things lie; the paper
            adds some for objective `cmi`.
        seed: Chooses digits and noise.

    Returns:
        Pictures whose region is the digit's square of 20 x 20 pixels.

    Raises:
        InputError: a wrong length or noise, or see `digits`.
        MissingExtraError: see `digits`.
    """
    if not 0 <= noise <= 1:
        raise InputError(f"noise is in [0, 1], got {noise}")
    pixels, numbers = digits(root, split)
    pixels, numbers = pixels[numbers < 5], numbers[numbers < 5]
    generator = torch.Generator().manual_seed(seed)
    chosen = _drawn(len(pixels), length, generator)
    start, end = (SIDE - DIGIT) // 2, (SIDE + DIGIT) // 2
    images = noise * torch.rand(len(chosen), SIDE, SIDE, generator=generator)
    inner = images[:, start:end, start:end]
    torch.maximum(inner, pixels[chosen].float() / 255, out=inner)
    for top in ANCHOR_AT:
        for left in ANCHOR_AT:
            images[:, top : top + ANCHOR, left : left + ANCHOR] = 1
    regions = torch.zeros(len(chosen), SIDE, SIDE, dtype=torch.bool)
    regions[:, start + MARGIN : end - MARGIN, start + MARGIN : end - MARGIN] = True
    return RegionPictures(
        images=images[:, None], labels=numbers[chosen], regions=regions, classes=5
    )


def _drawn(available: int, length: int | None, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Draw indices, each once before any comes again."""
    if length is not None and length < 1:
        raise InputError(f"length is a number of pictures, 1 or more, got {length}")
    length = available if length is None else length
    rounds = -(-length // available)
    orders = [torch.randperm(available, generator=generator) for _ in range(rounds)]
    return torch.cat(orders)[:length]


def _shrunk(pixels: Float[Tensor, "m h w"], side: int) -> Float[Tensor, "m s s"]:
    small = F.interpolate(pixels[:, None], size=(side, side), mode="bilinear", antialias=True)
    return small[:, 0]


def _paste(
    canvas: Float[Tensor, "m h w"], pixels: Float[Tensor, "m s s"], middle: Int[Tensor, "m 2"]
) -> None:
    """Paste pictures around their middles; the canvas has a margin as wide as the jitter."""
    corner = middle - pixels.shape[1] // 2 + JITTER
    at = torch.arange(pixels.shape[1])
    picture = torch.arange(len(canvas))[:, None, None]
    rows, columns = corner[:, :1, None] + at[:, None], corner[:, 1:, None] + at
    canvas[picture, rows, columns] = torch.maximum(canvas[picture, rows, columns], pixels)


def _circles(middle: Int[Tensor, "m 2"]) -> Bool[Tensor, "m n n"]:
    """Take the pixels whose centre lies in the circle; a middle is a corner of four pixels."""
    offset = (torch.arange(SIDE) + 0.5 - middle[:, :, None]).square()
    return offset[:, 0, :, None] + offset[:, 1, None, :] <= RADIUS**2
