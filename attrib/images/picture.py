"""Whatever holds a picture, as an upright 8-bit RGB `Picture`."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from attrib.errors import ImageError
from attrib.files import Stored
from attrib.transfer import Sent

__all__ = ["MAX_PIXELS", "Picture", "PictureLike", "as_batch", "read_image"]

T = TypeVar("T")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""

MAX_PIXELS = 178_956_970
"""Of a picture, unless its caller says otherwise; Pillow refuses more too."""

_OPENING = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One upright RGB picture.

    Args:
        pixels: In [0, 255], on any device.
        orientation: EXIF orientation (1 to 8) that was undone.
        name: Path or place of the file, or empty.
        sent: The pixels on their way to a GPU, where a `Reader` has sent them ahead.
    """

    pixels: UInt8[Tensor, "3 H W"]
    orientation: int = 1
    name: str = ""
    sent: Sent | None = None

    def __post_init__(self) -> None:
        shape, dtype = tuple(self.pixels.shape), self.pixels.dtype
        if dtype != torch.uint8 or len(shape) != 3 or shape[0] != 3 or min(shape) < 1:
            raise ImageError(
                f"a Picture holds uint8 pixels [3, H, W], got {dtype} {shape}; "
                "read_image converts other layouts"
            )


PictureLike = (
    str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | Tensor | Picture | Stored
)
"""Whatever `read_image` reads."""

_SINGLE = (str, os.PathLike, bytes, Image.Image, Picture, Stored)


def read_image(picture: PictureLike, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read one picture: upright, RGB, 8 bits, opaque.

    EXIF orientation is undone (an unreadable EXIF block counts as upright). Transparency is
    composited over white. 16-bit values are scaled, not cut. Of an animation or a multi-page file
    the first frame is read.

    Args:
        picture: A path, the bytes of an image file, a PIL image, a NumPy array (HW or HWC), a
            tensor (HW or CHW), a file in a shard or at a URL as data sets name it, or a `Picture`,
            which is returned as it is. Arrays and tensors have 1, 3 (RGB) or 4 (RGBA) channels and
            are uint8, uint16, bool or floats in [0, 1].
        max_pixels: A larger image file or PIL image is refused before it is decoded.

    Returns:
        A copy of the pixels, on the tensor's device or the CPU.

    Raises:
        ImageError: the file is missing, damaged, too large or no picture, or the array has an
            unusable shape, type or range.
        InputError: a shard or URL cannot be read.
    """
    return read_by(picture, partial(decoded, max_pixels=max_pixels))


def read_by(picture: object, decode: Callable[[Image.Image, str], T]) -> T | Picture:
    """Read as `read_image` does, but let `decode` make something of image files and PIL images.

    Args:
        picture: As for `read_image`.
        decode: Gets an image, of which no more than the header has been read, and what to call it.
    """
    if isinstance(picture, Picture):
        return picture
    if isinstance(picture, str | os.PathLike):
        return _read_file(os.fspath(picture), decode)
    if isinstance(picture, bytes):
        return decode(*_opened(io.BytesIO(picture), f"a picture of {len(picture)} bytes"))
    if isinstance(picture, Image.Image):
        return decode(picture, f"a PIL image of mode {picture.mode}")
    if isinstance(picture, Stored):
        found = decode(*_opened(io.BytesIO(picture.fetch()), str(picture)))
        return _named(found, picture)
    if isinstance(picture, np.ndarray):
        return Picture(pixels=_from_numpy(picture))
    if isinstance(picture, Tensor):
        return Picture(pixels=_from_tensor(picture.detach().clone(), "CHW"))
    raise ImageError(
        "a picture is a path, bytes, a PIL image, a NumPy array or a tensor, "
        f"got {type(picture).__name__}"
    )


def as_batch(
    pictures: PictureLike | Iterable[PictureLike],
) -> tuple[list[PictureLike], bool]:
    """List the pictures of a batch without reading them.

    Args:
        pictures: Anything `read_image` takes, an iterable of such, an array `[b, H, W, 3]` or a
            tensor `[b, 3, H, W]`. Arrays and tensors of 2 or 3 dimensions are one picture.

    Returns:
        The pictures, and True when a single one was given rather than a batch.
    """
    is_one_array = isinstance(pictures, np.ndarray | Tensor) and pictures.ndim != 4
    if is_one_array or isinstance(pictures, _SINGLE) or not isinstance(pictures, Iterable):
        return [cast(PictureLike, pictures)], True
    return list(cast(Iterable[PictureLike], pictures)), False


def _read_file(path: str, decode: Callable[[Image.Image, str], T]) -> T:
    if path.startswith(("http://", "https://")):
        raise ImageError(f"{path} is a URL; URLs are not fetched: download it and pass the file")
    try:
        with open(path, "rb") as stream:
            found = decode(*_opened(stream, repr(path)))
    except FileNotFoundError as error:
        raise ImageError(f"{path!r} does not exist") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path!r} is a folder; pass the pictures in it") from error
    except OSError as error:
        raise ImageError(f"{path!r} cannot be opened: {error}") from error
    return _named(found, path)


def _named(found: T, place: object) -> T:
    return replace(found, name=str(place))  # type: ignore[type-var]


def _opened(stream: io.BufferedReader | io.BytesIO, what: str) -> tuple[Image.Image, str]:
    try:
        # Pillow would warn from half of max_pixels on; changing warning filters needs the lock.
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(stream), what
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{what} was not decoded: {error} Shrink it, or raise both max_pixels and "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from error
    except UnidentifiedImageError as error:
        empty = stream.seek(0, io.SEEK_END) == 0
        why = "is empty" if empty else "is in no picture format that Pillow reads"
        raise ImageError(f"{what} {why}; pass e.g. a JPEG or PNG") from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged header leads to
        raise ImageError(damaged(what, error)) from error


def refuse_large(image: Image.Image, what: str, max_pixels: int) -> None:
    """Raise `ImageError` for an image of more pixels, told from its header."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{what} has {width} x {height} pixels, more than max_pixels={max_pixels}, and was "
            "not decoded; shrink it, or raise the limit if you trust it"
        )


def decoded(image: Image.Image, what: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Let Pillow decode an image; see `read_image`."""
    refuse_large(image, what, max_pixels)
    try:
        orientation = orientation_of(image)  # asked twice: a TIFF undoes its own while it loads
        image.load()
        undo = _UPRIGHT.get(orientation_of(image))
        array = _pil_array(image if undo is None else image.transpose(undo))
        return Picture(pixels=_from_numpy(array), orientation=orientation)
    except ImageError as error:
        raise ImageError(f"{what} cannot be used: {error}") from error
    except Exception as error:  # Pillow's decoders raise whatever damaged data leads to
        raise ImageError(damaged(what, error)) from error


def damaged(what: str, error: Exception) -> str:
    """Say that a file cannot be decoded."""
    return f"{what} is damaged or incomplete: {type(error).__name__}: {error}"


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError):
        return 1
    return int(value) if value in _UPRIGHT else 1


def _pil_array(image: Image.Image) -> NDArray[Any]:
    if image.mode == "I":  # 32 bits, but files only ever put 16 in them
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError(f"mode I has values in [0, 65535], got {wide.min()} to {wide.max()}")
        return wide.astype(np.uint16)
    if image.mode == "F" or image.mode.startswith("I;16"):
        return np.asarray(image)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _from_numpy(array: NDArray[Any]) -> UInt8[Tensor, "3 H W"]:
    native = array.astype(array.dtype.newbyteorder("="), order="C")
    try:
        tensor = torch.from_numpy(native)
    except TypeError as error:
        raise ImageError(_wrong_dtype(array.dtype)) from error
    return _from_tensor(tensor, "HWC")


def _from_tensor(tensor: Tensor, layout: Literal["HWC", "CHW"]) -> UInt8[Tensor, "3 H W"]:
    """Convert a tensor that is ours: the answer may share its memory."""
    shape = tuple(tensor.shape)
    if tensor.ndim not in (2, 3) or 0 in shape:
        raise ImageError(f"a picture has a shape HW or {layout} without zeros, got {shape}")
    channels = tensor[None] if tensor.ndim == 2 else tensor.movedim(layout.index("C"), 0)
    if len(channels) not in (1, 3, 4):
        raise ImageError(
            f"a picture of layout {layout} has 1, 3 or 4 channels, got {len(channels)} in shape "
            f"{shape}; NumPy arrays are HWC, torch tensors are CHW"
        )
    pixels = _eight_bit(channels)
    if len(pixels) == 4:
        color, alpha = pixels[:3].int(), pixels[3:].int()
        return ((color * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)
    return pixels if len(pixels) == 3 else pixels.repeat(3, 1, 1)


def _eight_bit(values: Tensor) -> Tensor:
    if values.dtype == torch.uint8:
        return values
    if values.dtype == torch.bool:
        return values.to(torch.uint8) * 255
    if values.dtype == torch.uint16:
        return ((values.int() + 128) // 257).to(torch.uint8)
    if not values.is_floating_point():
        raise ImageError(_wrong_dtype(values.dtype))
    if not values.isfinite().all():
        raise ImageError("a picture has finite values, got NaN or infinity; replace them first")
    low, high = values.min().item(), values.max().item()
    if low < -1e-4 or high > 1 + 1e-4:  # less is noise of the caller's arithmetic; rounds away
        raise ImageError(
            f"a floating point picture has values in [0, 1], got {low:.4g} to {high:.4g}; "
            "scale it, or pass uint8 in [0, 255]"
        )
    return values.float().mul(255).round().to(torch.uint8)


def _wrong_dtype(dtype: object) -> str:
    return f"a picture is uint8, uint16, bool or floating point in [0, 1], got {dtype}; pass uint8"
