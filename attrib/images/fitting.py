"""Pictures to a model's size and scale, and boxes both ways.

`preprocess` does exactly what timm's and torchvision's evaluation transforms do, and says in a
`Frame` where each model input lies in its picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from attrib.errors import ImageError, InputError
from attrib.images.picture import Picture
from attrib.transfer import to_device
from attrib.types import Fit, Frame, ModelSpec

__all__ = [
    "boxes_to_source",
    "boxes_to_tensor",
    "pixels_on",
    "preprocess",
    "resample",
    "tensor_picture",
]

_LONGEST_SIDE = 2**24
"""Longest side a picture may have once resized; only very thin ones, cropped, ever come near."""


def preprocess(
    pictures: Sequence[Picture],
    spec: ModelSpec,
    *,
    fit: Fit | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "b k h w"], tuple[Frame, ...]]:
    """Bring pictures to the size and scale that a model wants.

    Sizes and offsets are those of timm's evaluation transform (`crop` is its crop mode "center",
    `pad` its "border") and torchvision's `ImageClassification`; pixels differ from Pillow's by
    rounding. A model with one channel gets the luminance.

    Args:
        pictures: Of any sizes, also mixed.
        spec: Size, crop, interpolation, mean and std.
        fit: Overrides `spec.fit`.
        device: Where the pictures are resized and the answer lies.
        dtype: Floating point type of the answer.

    Returns:
        Normalised images with `k` = 3 or 1 channels, and one Frame per image.

    Raises:
        InputError: an unknown `fit`, or a model with neither 1 nor 3 channels.
        ImageError: a picture too thin to be cropped.
    """
    k, (h, w) = len(spec.mean), spec.input_size
    if k not in (1, 3):
        raise InputError(f"pictures have 3 channels or 1 (grey), the model wants {k}")
    frames = tuple(_frame(picture, spec, fit or spec.fit) for picture in pictures)
    fill = [min(max(round(255 * mean), 0), 255) for mean in spec.mean]
    colour = to_device(fill, device, torch.uint8)[:, None, None]
    windows = colour.repeat(len(frames), 1, h, w)
    for window, picture, frame in zip(windows, pictures, frames, strict=True):
        _render(pixels_on(picture, torch.device(device)), frame, spec, window)
    images = windows.to(torch.promote_types(dtype, torch.float32)).div_(255)
    mean, std = _statistics(images, spec)
    return images.sub_(mean).div_(std).to(dtype), frames


def tensor_picture(images: Float[Tensor, "b k h w"], spec: ModelSpec) -> UInt8[Tensor, "b 3 h w"]:
    """Undo the normalisation, for display.

    Args:
        images: Normalised as `spec` says, with 3 channels or 1.
        spec: Of the model the images are for.

    Returns:
        RGB in [0, 255]; values that no picture has are clamped.

    Raises:
        InputError: the images have not the channels that `spec` has.
    """
    if images.ndim != 4 or images.shape[1] != len(spec.mean):
        raise InputError(
            f"images for this model are [b, {len(spec.mean)}, h, w], got {tuple(images.shape)}"
        )
    mean, std = _statistics(images, spec)
    pixels = (images * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


def boxes_to_tensor(boxes: Float[Tensor, "*n 4"], frame: Frame) -> Float[Tensor, "*n 4"]:
    """Carry boxes from the source picture to the model input.

    Args:
        boxes: Half-open `x0 y0 x1 y1`, source pixels, continuous.
        frame: Of the model input.

    Returns:
        Boxes in tensor pixels, not clipped: what the model does not see lies outside `[0, w]`.

    Raises:
        InputError: the boxes are not floating point or not in rows of 4.
    """
    scale, shift = _scale_and_shift(boxes, frame)
    return _mirror(boxes * scale - shift, frame)


def boxes_to_source(boxes: Float[Tensor, "*n 4"], frame: Frame) -> Float[Tensor, "*n 4"]:
    """Carry boxes from the model input back to the source picture.

    Args:
        boxes: Half-open `x0 y0 x1 y1`, tensor pixels, continuous.
        frame: Of the model input.

    Returns:
        Boxes in source pixels, clipped to the source.

    Raises:
        InputError: the boxes are not floating point or not in rows of 4.
    """
    scale, shift = _scale_and_shift(boxes, frame)
    height, width = frame.source
    corner = boxes.new_tensor([width, height, width, height])
    return ((_mirror(boxes, frame) + shift) / scale).clamp(min=0).minimum(corner)


def pixels_on(picture: Picture, device: torch.device) -> UInt8[Tensor, "3 H W"]:
    """Bring a picture to a device, or take what was sent there; the host does not wait."""
    pixels = picture.pixels if picture.sent is None else picture.sent.here()
    return pixels.to(device, non_blocking=device.type == "cuda")  # queued, not awaited


def _frame(picture: Picture, spec: ModelSpec, fit: Fit) -> Frame:
    source = (picture.pixels.shape[1], picture.pixels.shape[2])
    resized = _resized(source, spec, fit)
    if max(resized) > _LONGEST_SIDE:
        raise ImageError(
            f"a picture of {source[1]} x {source[0]} pixels is too thin to be cropped; "
            "pass fit='pad' or fit='squash'"
        )
    (h, w), (th, tw) = resized, spec.input_size
    return Frame(
        source=source,
        resized=resized,
        offset=(_centre(h, th), _centre(w, tw)),
        tensor=spec.input_size,
        orientation=picture.orientation,
    )


def _resized(source: tuple[int, int], spec: ModelSpec, fit: Fit) -> tuple[int, int]:
    """Size after resizing, with the roundings of timm and torchvision."""
    (height, width), (h, w) = source, spec.input_size
    h, w = math.floor(h / spec.crop), math.floor(w / spec.crop)
    if fit == "squash":
        return h, w
    if fit == "crop" and h == w:
        short = min(source)
        return int(h * height / short), int(h * width / short)
    if fit == "crop":
        ratio = min(height / h, width / w)
    elif fit == "pad":
        ratio = max(height / h, width / w)
    else:
        raise InputError(f"fit is 'crop', 'squash' or 'pad', got {fit!r}")
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _centre(resized: int, tensor: int) -> int:
    """Where a centred window starts; negative where it is larger than the picture."""
    return -((tensor - resized) // 2) if resized < tensor else round((resized - tensor) / 2)


def _render(
    pixels: UInt8[Tensor, "3 H W"], frame: Frame, spec: ModelSpec, out: UInt8[Tensor, "k h w"]
) -> None:
    """Write what the model sees of a picture into its window; padding is left as it is."""
    if len(out) == 1:
        pixels = _luminance(pixels)
    for axis in (0, 1) if _height_first(frame) else (1, 0):
        pixels = resample(pixels, axis, frame.resized[axis], spec.interpolation)
        seen = min(frame.resized[axis], frame.tensor[axis])
        pixels = pixels.narrow(1 + axis, max(frame.offset[axis], 0), seen)
    top, left = (max(-start, 0) for start in frame.offset)
    out[:, top : top + pixels.shape[1], left : left + pixels.shape[2]] = pixels


def _height_first(frame: Frame) -> bool:
    """Pillow 13's order of the two passes: it shows, as values are rounded and clipped in between.

    Also true of towers that are too high to be brought to full width before they are cut.
    """
    (height, width), (h, w) = frame.source, frame.resized
    shrinks_most = height > h and height - h > 2 * (width - w)
    return shrinks_most or h > 100 * frame.tensor[0]


def resample(
    pixels: UInt8[Tensor, "k H W"], axis: int, length: int, interpolation: str
) -> UInt8[Tensor, "k _H _W"]:
    """Bring one axis, 0 for the height and 1 for the width, to a length."""
    if pixels.shape[1 + axis] == length:
        return pixels
    size = [length if i == axis else side for i, side in enumerate(pixels.shape[1:])]
    if interpolation == "nearest":
        return interpolate(pixels[None], size, mode="nearest-exact")[0]
    # The CPU resizes uint8 as Pillow does. Other devices only know floats, and CUDA's kernel needs
    # more shared memory than there is when it shrinks a picture very much.
    if pixels.device.type != "cpu" and pixels.shape[1 + axis] > 32 * length:
        return resample(pixels.cpu(), axis, length, interpolation).to(pixels.device)
    values = pixels[None] if pixels.device.type == "cpu" else pixels[None].float()
    values = interpolate(values, size, mode=interpolation, antialias=True)
    return values.round_().clamp_(0, 255).to(torch.uint8)[0]


def _luminance(pixels: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "1 H W"]:
    """ITU-R 601 luma in Pillow's fixed point."""
    red, green, blue = pixels.int()
    luma: Tensor = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return luma.to(torch.uint8)[None]


def _statistics(like: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    mean, std = (to_device(values, like.device, like.dtype) for values in (spec.mean, spec.std))
    return mean[:, None, None], std[:, None, None]


# Boxes


def _scale_and_shift(boxes: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    if not boxes.is_floating_point() or boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise InputError(
            "boxes are floating point rows x0 y0 x1 y1, "
            f"got {boxes.dtype} of shape {tuple(boxes.shape)}"
        )
    (height, width), (h, w), (top, left) = frame.source, frame.resized, frame.offset
    x, y = w / width, h / height
    return boxes.new_tensor([x, y, x, y]), boxes.new_tensor([left, top, left, top])


def _mirror(boxes: Tensor, frame: Frame) -> Tensor:
    if not frame.flip:
        return boxes
    x0, y0, x1, y1 = boxes.unbind(-1)
    width = frame.tensor[1]
    return torch.stack([width - x1, y0, width - x0, y1], dim=-1)
