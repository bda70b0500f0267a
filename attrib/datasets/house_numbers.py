"""Rows of one to four photographed digits, whose number is the class."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from attrib.datasets.synthetic import RegionPictures
from attrib.errors import InputError

__all__ = ["house_numbers"]

MOST = 4
"""Digits in a row."""
WIDTH = 20
"""Columns of a digit's picture, from its middle; its neighbours begin beyond."""


def house_numbers(
    digits: UInt8[Tensor, "m 3 s s"], *, length: int, side: int = 128, seed: int = 0
) -> RegionPictures:
    """Put one to four of SVHN's digits side by side on a plain ground; their number is the class.

    Deviation: Zhmoginov et al., section 4.4, crop whole photographs of house numbers. torchvision
    reads SVHN's single digits only, so that the rows are put together here; the ground has the mean
    colour of the row's first digit, and a row lies anywhere in the picture.

    Args:
        digits: Of `picture_set("svhn", ...)`, at least 20 pixels wide.
        length: Number of pictures.
        side: Of a picture, in pixels; 80 or more for digits of 32.
        seed: Chooses digits, their number and the row's place.

    Returns:
        Pictures in [0, 1] of the classes 0 to 3 for 1 to 4 digits; the region is the row.

    Raises:
        InputError: no digits, a wrong length, or rows that do not fit into a picture.
    """
    size = digits.shape[2]
    if not len(digits) or length < 1 or size < WIDTH or side < max(size, MOST * WIDTH):
        raise InputError(
            f"rows of {MOST} digits, {WIDTH} columns each, have to fit into a picture: got "
            f"{len(digits)} digits of {size} pixels for {length} pictures of {side}"
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(digits), (length, MOST), generator=generator)
    labels = torch.randint(MOST, (length,), generator=generator)
    start = (size - WIDTH) // 2
    strips = digits[..., start : start + WIDTH][chosen].float() / 255
    rows = strips.permute(0, 2, 3, 1, 4).flatten(3)
    ground = rows[..., :WIDTH].mean((2, 3), keepdim=True)
    place = torch.rand(2, length, generator=generator)
    top = (place[0] * (side - size + 1)).long()
    left = (place[1] * (side - (labels + 1) * WIDTH + 1)).long()
    y, inside_y = _within(top, torch.full_like(top, size), side)
    x, inside_x = _within(left, (labels + 1) * WIDTH, side)
    picture = torch.arange(length)[:, None, None]
    laid = rows.permute(0, 2, 3, 1)[picture, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
    regions = inside_y[:, :, None] & inside_x[:, None, :]
    images = torch.where(regions[:, None], laid, ground)
    return RegionPictures(images=images, labels=labels, regions=regions, classes=MOST)


def _within(
    start: Int[Tensor, " m"], extent: Int[Tensor, " m"], side: int
) -> tuple[Int[Tensor, "m n"], Bool[Tensor, "m n"]]:
    """Say of each pixel of a side how far into the row it lies, and whether it lies in it."""
    at = torch.arange(side) - start[:, None]
    inside = (at >= 0) & (at < extent[:, None])
    return torch.where(inside, at, 0), inside
