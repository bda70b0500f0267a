"""JPEG files that torchvision decodes, many at once, where the model is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from attrib.errors import ImageError
from attrib.images.picture import (
    MAX_PIXELS,
    Picture,
    damaged,
    decoded,
    orientation_of,
    refuse_large,
)

__all__ = ["Jpeg", "decode_jpegs", "jpeg_or_picture"]

_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""What begins a segment, or ends the file: no restart, and no stuffing of coded data."""
_END = 0xD9
_FLIPS = {2: (2,), 3: (1, 2), 4: (1,), 5: (), 6: (2,), 7: (1, 2), 8: (1,)}
"""Axes of `[3, H, W]` to be turned round for each EXIF orientation; from 5 on, once transposed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Jpeg:
    """A JPEG file, whole and not decoded.

    Args:
        data: All of it, on the CPU.
        grey: It has one channel; else three, as luma and chroma.
        orientation: EXIF orientation, to be undone.
        what: What errors call it.
        name: Path or place of the file, or empty.
    """

    data: UInt8[Tensor, " n"]
    grey: bool
    orientation: int
    what: str
    name: str = ""


def jpeg_or_picture(image: Image.Image, what: str) -> Jpeg | Picture:
    """Take a JPEG file as it is; let Pillow decode everything else, CMYK and stored RGB among it.

    Raises:
        ImageError: as `read_image`.
    """
    stored = image.info.get("adobe_transform") == 0  # RGB or CMYK, without luma and chroma
    stream = getattr(image, "fp", None)
    if image.format != "JPEG" or image.mode not in ("L", "RGB") or stored or stream is None:
        return decoded(image, what)
    refuse_large(image, what, MAX_PIXELS)
    stream.seek(0)
    data = stream.read()
    if not _is_whole(data):  # a decoder may fill up what is missing and not say so
        raise ImageError(f"{what} is damaged or incomplete: its data end before their end marker")
    return Jpeg(
        data=torch.frombuffer(bytearray(data), dtype=torch.uint8),
        grey=image.mode == "L",
        orientation=orientation_of(image),
        what=what,
    )


def _is_whole(data: bytes) -> bool:
    """Go from segment to segment, over coded data in between, to the end marker."""
    at = 2
    while found := _MARKER.search(data, at):
        at = found.end()
        if data[at - 1] == _END:
            return True
        at += int.from_bytes(data[at : at + 2], "big")
    return False


def decode_jpegs(jpegs: Sequence[Jpeg], device: torch.device) -> list[Picture | ImageError]:
    """Decode files by torchvision: by nvJPEG on a GPU, for which the host waits, else on the CPU.

    Returns:
        For each an upright RGB picture on the device, or why there is none.
    """
    try:
        return _together(jpegs, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # of one of them
        if len(jpegs) > 1:
            return [found for jpeg in jpegs for found in decode_jpegs([jpeg], device)]
        return [ImageError(f"{damaged(jpegs[0].what, error)}; decode='pillow' may read it")]


def _together(jpegs: Sequence[Jpeg], device: torch.device) -> list[Picture | ImageError]:
    from torchvision.io import ImageReadMode, decode_jpeg

    if device.type == "cuda":
        # nvJPEG's stream writes into memory of this one, and does not wait until that is free.
        torch.cuda.current_stream(device).synchronize()
    pixels: dict[int, Tensor] = {}
    for mode in (ImageReadMode.GRAY, ImageReadMode.RGB):
        rows = [i for i, jpeg in enumerate(jpegs) if jpeg.grey == (mode == ImageReadMode.GRAY)]
        if rows:
            found = decode_jpeg([jpegs[i].data for i in rows], mode, device)
            pixels |= zip(rows, found, strict=True)
    return [_picture(jpeg, pixels[i]) for i, jpeg in enumerate(jpegs)]


def _picture(jpeg: Jpeg, pixels: UInt8[Tensor, "_k H W"]) -> Picture:
    if jpeg.orientation >= 5:
        pixels = pixels.transpose(1, 2)
    upright = pixels.expand(3, -1, -1).flip(_FLIPS.get(jpeg.orientation, ()))
    return Picture(pixels=upright.contiguous(), orientation=jpeg.orientation, name=jpeg.name)
