"""Handwritten digits, and those with a circle or a square beside them that tell the class too."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError, MissingExtraError
from attrib.files import read_gzip

__all__ = ["MarkedDigits", "digits", "marked_digits"]

Split = Literal["train", "test"]

SIDE, MARGIN = 28, 4
"""MNIST's pictures, and the margin around its digits, in pixels."""
HOLD_OUT = 5
"""Of the small set every fifth picture is for testing; writers follow one another in it."""
INK = 0.25
"""A pixel belongs to the digit from this fraction of white on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MarkedDigits:
    """Twos and eights, some with a mark; what is neither digit nor mark is background.

    Args:
        images: White on black, in [0, 1].
        labels: 0 for a two, whose mark is a circle; 1 for an eight, whose mark is a square.
        digit: The digit's pixels, without those under the mark.
        mark: The mark's pixels; all False in a picture without one.
    """

    images: Float[Tensor, "m 1 h w"]
    labels: Int[Tensor, " m"]
    digit: Bool[Tensor, "m h w"]
    mark: Bool[Tensor, "m h w"]

    def __post_init__(self) -> None:
        m, _, *size = self.images.shape
        expected = (m, *size)
        found = (tuple(self.digit.shape), tuple(self.mark.shape), self.labels.shape[0])
        if found != (expected, expected, m):
            raise InputError(f"{m} images of {size}; digit, mark and labels are {found}")
        if bool((self.digit & self.mark).any()):
            raise InputError("digit and mark share pixels; they are disjoint regions")

    def __len__(self) -> int:
        return len(self.images)


def digits(
    root: str | Path | None = None, split: Split = "train"
) -> tuple[UInt8[Tensor, "m 28 28"], Int[Tensor, " m"]]:
    """Read handwritten digits: MNIST's, or the small set that comes with scikit-learn.

    The small set's 1,797 pictures of 8 x 8 pixels are brought to MNIST's size and margin; every
    fifth is for testing.

    Args:
        root: Folder that holds `MNIST/raw` or `raw` with MNIST's four files, packed (`.gz`) or
            not; None for the small set.
        split: `"train"` or `"test"`.

    Returns:
        Pictures, white on black, and the digit that each shows.

    Raises:
        InputError: a file of MNIST is missing or damaged.
        MissingExtraError: the small set is wanted and scikit-learn is not installed.
    """
    if split not in ("train", "test"):
        raise InputError(f"digits have the splits 'train' and 'test', got {split!r}")
    if root is None:
        return _small(split)
    prefix = "train" if split == "train" else "t10k"
    images = _idx(Path(root), f"{prefix}-images-idx3-ubyte", 3)
    labels = _idx(Path(root), f"{prefix}-labels-idx1-ubyte", 1)
    if len(images) != len(labels) or images.shape[1:] != (SIDE, SIDE):
        raise InputError(
            f"{root}: the {split} split has {len(labels)} labels and pictures of shape "
            f"{images.shape}; MNIST's are {SIDE} x {SIDE} and one per label"
        )
    return torch.from_numpy(images), torch.from_numpy(labels).long()


def marked_digits(
    root: str | Path | None = None,
    split: Split = "train",
    *,
    fraction: float = 0.1,
    size: int = 7,
    seed: int = 0,
) -> MarkedDigits:
    """Add a circle to some twos and a square to some eights: a second, rarer sign of the class.

    The toy data of Lee et al., *Reducing Information Bottleneck for Weakly Supervised Semantic
    Segmentation*, section 3.1. The paper says "at a random location" and gives no size. Deviation:
    the location is drawn among those that cover the fewest pixels of the digit, mostly none.

    Args:
        root: See `digits`.
        split: See `digits`.
        fraction: Of the twos, and of the eights, that get a mark; in [0, 1].
        size: The circle's diameter and the square's side, in pixels, 3 to 28.
        seed: Chooses the pictures that get a mark, and its location.

    Raises:
        InputError: an option out of its range, or see `digits`.
        MissingExtraError: see `digits`.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"fraction is in [0, 1], got {fraction}")
    if not 3 <= size <= SIDE:
        raise InputError(f"size is 3 to {SIDE} pixels, got {size}")
    pixels, numbers = digits(root, split)
    wanted = (numbers == 2) | (numbers == 8)
    images, labels = pixels[wanted].float() / 255, (numbers[wanted] == 8).long()
    ink = images >= INK
    generator = torch.Generator().manual_seed(seed)
    mark = torch.zeros_like(ink)
    for label, stamp in enumerate((_circle(size), torch.ones(size, size))):
        of_class = (labels == label).nonzero().flatten()
        chosen = torch.randperm(len(of_class), generator=generator)
        chosen = of_class[chosen[: round(fraction * len(of_class))]]
        mark[chosen] = _placed(stamp, ink[chosen], generator)
    images = torch.where(mark, 1.0, images)
    return MarkedDigits(images=images[:, None], labels=labels, digit=ink & ~mark, mark=mark)


def _circle(size: int) -> Float[Tensor, "size size"]:
    """Take the pixels whose centre lies in the disc."""
    offset = torch.arange(size) - (size - 1) / 2
    return (offset[:, None] ** 2 + offset**2 <= (size / 2) ** 2).float()


def _placed(
    stamp: Float[Tensor, "size size"], ink: Bool[Tensor, "m h w"], generator: torch.Generator
) -> Bool[Tensor, "m h w"]:
    """Draw per picture one of the places where the stamp covers the least ink."""
    covered = F.conv2d(ink[:, None].float(), stamp[None, None]).round()
    best = covered == covered.amin((2, 3), keepdim=True)
    score = torch.rand(covered.shape, generator=generator) * best
    corner = (score == score.amax((2, 3), keepdim=True)).float()
    return F.conv_transpose2d(corner, stamp[None, None])[:, 0] > 0.5


def _small(split: Split) -> tuple[UInt8[Tensor, "m 28 28"], Int[Tensor, " m"]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("scikit-learn", "digits") from None
    bunch = load_digits()
    side = SIDE - 2 * MARGIN
    images = torch.from_numpy(bunch.images).float()[:, None] / 16 * 255  # counts of 0 to 16
    images = F.interpolate(images, size=(side, side), mode="bilinear")
    images = F.pad(images[:, 0], [MARGIN] * 4).round().to(torch.uint8)
    testing = torch.arange(len(images)) % HOLD_OUT == HOLD_OUT - 1
    kept = testing if split == "test" else ~testing
    return images[kept], torch.from_numpy(bunch.target)[kept].long()


def _idx(root: Path, name: str, ndim: int) -> NDArray[Any]:
    """Read one of MNIST's files: two zeros, type 8 (bytes), number of axes, their lengths, data."""
    places = [root / folder / name for folder in ("MNIST/raw", "raw")]
    found = [p for place in places for p in (place, place.with_name(f"{name}.gz")) if p.is_file()]
    if not found:
        raise InputError(
            f"no {name} or {name}.gz in {places[0].parent} or {places[1].parent}; root is the "
            "folder that torchvision.datasets.MNIST was given to download to"
        )
    try:
        data = read_gzip(found[0]) if found[0].suffix == ".gz" else found[0].read_bytes()
        shape = np.frombuffer(data[4 : 4 + 4 * ndim], ">i4")
        if data[:4] != bytes((0, 0, 8, ndim)):
            raise ValueError(f"it begins with {data[:4].hex()}")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape).copy()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"cannot read {found[0]} as {name} of MNIST: {error}") from None
