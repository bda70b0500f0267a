"""Random training crops, as IRN and its successors cut them, and shifts of small pictures."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from attrib.errors import InputError
from attrib.images import Picture
from attrib.types import ModelSpec

__all__ = ["random_crop", "random_shift"]


def random_crop(
    picture: Picture,
    spec: ModelSpec,
    size: int,
    long_side: tuple[int, int],
    generator: torch.Generator,
    flip: bool = True,
) -> Float[Tensor, "3 s s"]:
    """Resize a picture at random, mirror it or not, and cut a square out of it.

    Its long side becomes any whole number in `long_side`, by Pillow's bicubic filter on 8 bits at
    the picture's own aspect ratio. Along each axis the square lies anywhere within the picture or,
    where that is the shorter, the picture anywhere within the square; what is left is zero.
    Ahn et al., *Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations*,
    as in the authors' code.

    Args:
        picture: Upright.
        spec: Mean and standard deviation of the model.
        size: Side of the square, in pixels.
        long_side: Least and greatest, in pixels, both included.
        generator: On the CPU; four numbers are drawn, whatever the options.
        flip: Mirror every other picture.

    Returns:
        Normalised, zero outside the picture, on the CPU.

    Raises:
        InputError: a size that is none, or a model that does not take RGB.
    """
    low, high = long_side
    if size < 1 or not 1 <= low <= high:
        raise InputError(
            f"a crop has a positive size and a long_side from least to greatest, "
            f"got {size} and {long_side}"
        )
    if len(spec.mean) != 3:
        raise InputError(f"crops are RGB, the model takes {len(spec.mean)} channels")
    pixels = _resized(picture, _draw(low, high, generator))
    mirrored = _draw(0, 1, generator) == 1
    if flip and mirrored:
        pixels = pixels[:, ::-1]
    rows, source_rows = _window(pixels.shape[0], size, generator)
    columns, source_columns = _window(pixels.shape[1], size, generator)
    mean, std = (np.array(values, np.float32) for values in (spec.mean, spec.std))
    crop = np.zeros((size, size, 3), np.float32)
    seen = pixels[source_rows, source_columns].astype(np.float32) / 255
    crop[rows, columns] = (seen - mean) / std
    return torch.from_numpy(crop).permute(2, 0, 1).contiguous()


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _resized(picture: Picture, long_side: int) -> NDArray[np.uint8]:
    image = Image.fromarray(picture.pixels.permute(1, 2, 0).cpu().numpy())
    scale = long_side / max(image.size)
    w, h = (max(1, round(side * scale)) for side in image.size)
    return np.asarray(image.resize((w, h), Image.Resampling.BICUBIC))


def _window(side: int, size: int, generator: torch.Generator) -> tuple[slice, slice]:
    """Where along an axis the square is filled, and from where in the picture."""
    start, seen = _draw(0, abs(side - size), generator), min(side, size)
    there, whole = slice(start, start + seen), slice(0, seen)
    return (there, whole) if side < size else (whole, there)


def random_shift(
    pixels: UInt8[Tensor, "b 3 h w"], pad: int, generator: torch.Generator, flip: bool = True
) -> UInt8[Tensor, "b 3 h w"]:
    """Continue each picture on all sides by its mirror image, cut its size out, and mirror or not.

    Args:
        pixels: On any device.
        pad: By how many pixels it is continued; 4 for CIFAR.
        generator: On the CPU; three numbers are drawn per picture, whatever the options.
        flip: Mirror every other picture.

    Raises:
        InputError: a margin that is negative or not smaller than the pictures.
    """
    b, _, height, width = pixels.shape
    if not 0 <= pad < min(height, width):
        raise InputError(f"pad is 0 or more and less than {min(height, width)} pixels, got {pad}")
    top, left = torch.randint(-pad, pad + 1, (2, b, 1), generator=generator)
    mirrored = torch.randint(0, 2, (b, 1), generator=generator) == 1
    rows, columns = (
        _reflected(start + torch.arange(side), side).to(pixels.device)
        for start, side in ((top, height), (left, width))
    )
    if flip:
        columns = torch.where(mirrored.to(pixels.device), columns.flip(1), columns)
    picture = torch.arange(b, device=pixels.device)[:, None, None, None]
    channel = torch.arange(3, device=pixels.device)[:, None, None]
    return pixels[picture, channel, rows[:, None, :, None], columns[:, None, None]]


def _reflected(index: Int[Tensor, "b s"], side: int) -> Int[Tensor, "b s"]:
    """Bring indices into the picture as if its border were a mirror."""
    index = index.abs()
    return torch.where(index < side, index, 2 * (side - 1) - index)
