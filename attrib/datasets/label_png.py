"""Label images and masks: a palette or grey PNG with one index per pixel."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from attrib.datasets.labelled import IGNORE
from attrib.errors import InputError
from attrib.files import Stored, contents_of, reading

__all__ = ["label_image", "read_label_png", "read_mask"]


def label_image(label: UInt8[Tensor, "H W"]) -> Image.Image:
    """Put PASCAL VOC's colours to the indices of a label image, on the CPU."""
    image = Image.fromarray(label.numpy())
    image.putpalette(_palette())
    return image


def read_label_png(path: str | Path | Stored) -> UInt8[Tensor, "H W"]:
    """Read the indices of a label image: 0 background, the class + 1, 255 ignored or uncertain.

    Args:
        path: The file, as it is or in a shard or at a URL.

    Raises:
        InputError: the file is missing, damaged, or holds colours.
    """
    with (
        reading(str(path)),
        Image.open(io.BytesIO(contents_of(path)), formats=["PNG"]) as image,
    ):
        if image.mode not in ("P", "L"):
            raise InputError(
                f"a label image or mask has one 8-bit index per pixel (mode P or L), this has mode "
                f"{image.mode}; save it without converting it to colours"
            )
        return torch.from_numpy(np.array(image))


def read_mask(path: str | Path | Stored, classes: int) -> UInt8[Tensor, "H W"]:
    """Read a true mask: a label image of so many classes.

    Raises:
        InputError: as of `read_label_png`, and for values that are neither 0 to `classes` nor 255.
    """
    if isinstance(path, str | Path) and not Path(path).is_file():
        raise InputError(f"there is no mask {path}")
    values = read_label_png(path)
    found = values.flatten().bincount().nonzero().flatten().tolist()
    wrong = [value for value in found if value > classes and value != IGNORE]
    if wrong:
        raise InputError(f"{path} has the values {wrong}; a mask has 0 to {classes} and {IGNORE}")
    return values


def _palette() -> bytes:
    """PASCAL VOC: bits 3j, 3j + 1, 3j + 2 of the index are bit 7 - j of red, green and blue."""
    return bytes(
        sum((index >> 3 * j + channel & 1) << 7 - j for j in range(3))
        for index in range(256)
        for channel in range(3)
    )
