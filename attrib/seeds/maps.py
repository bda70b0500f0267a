"""From a picture to the maps that segmentation pipelines read, and back from scales to one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.images import Picture, resample
from attrib.types import ModelSpec

__all__ = ["SeedMaps", "aggregate", "seed_views"]

STRIDED, PADDED = 4, 16
"""The low-resolution map has a cell per 4 pixels; the other is made on a multiple of 16."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedMaps:
    """One picture's maps, as IRN and its successors read them.

    Args:
        keys: The picture's classes, numbered from 0 without background.
        cam: Per class, at a quarter of the size, each divided by its maximum.
        high_res: Per class, at the picture's own size, likewise.
    """

    keys: Int[Tensor, " n"]
    cam: Float[Tensor, "n _u _v"]
    high_res: Float[Tensor, "n H W"]


def seed_views(
    picture: Picture,
    spec: ModelSpec,
    scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
    *,
    flip: bool = True,
    size: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
) -> list[Float[Tensor, "_r 3 _h _w"]]:
    """Make the views of a picture at several sizes, at its own aspect ratio.

    Each is resized by Pillow's bicubic filter on 8 bits, as the published pipelines do, then
    normalised; sides are rounded to the nearest pixel, halves to the even one. A picture that is on
    a GPU is resized there by the same filter, whose results may differ by rounding.

    Args:
        picture: Upright.
        spec: Mean and standard deviation of the model.
        scales: Fractions of the picture's size.
        flip: Add the mirror image as a second row.
        size: `(h, w)` to take for the picture's own; changes its aspect ratio.
        device: Where the views are wanted; None for where they are made.
    """
    h, w = (picture.pixels.shape[1], picture.pixels.shape[2]) if size is None else size
    sizes = [(max(1, round(h * scale)), max(1, round(w * scale))) for scale in scales]
    views = _by_torch if picture.pixels.is_cuda else _by_pillow
    images = [image.to(device) for image in views(picture.pixels, sizes, _table(spec))]
    return [torch.stack([image, image.flip(2)] if flip else [image]) for image in images]


def _by_pillow(
    pixels: UInt8[Tensor, "3 H W"], sizes: Sequence[tuple[int, int]], table: NDArray[np.float32]
) -> Iterator[Float[Tensor, "3 _h _w"]]:
    picture = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
    for h, w in sizes:
        resized = picture
        if picture.size != (w, h):
            resized = picture.resize((w, h), Image.Resampling.BICUBIC)
        planes = np.moveaxis(np.asarray(resized), 2, 0)
        rows = [row[plane] for row, plane in zip(table, planes, strict=True)]
        yield torch.from_numpy(np.stack(rows))


def _by_torch(
    pixels: UInt8[Tensor, "3 H W"], sizes: Sequence[tuple[int, int]], table: NDArray[np.float32]
) -> Iterator[Float[Tensor, "3 _h _w"]]:
    rows = torch.from_numpy(table).to(pixels.device, non_blocking=True)
    for h, w in sizes:
        resized = resample(resample(pixels, 1, w, "bicubic"), 0, h, "bicubic")
        yield torch.stack([row[plane.int()] for row, plane in zip(rows, resized, strict=True)])


def _table(spec: ModelSpec) -> NDArray[np.float32]:
    """Per channel, what each of the 256 values becomes when it is normalised."""
    mean, std = (np.array(values)[:, None] for values in (spec.mean, spec.std))
    table: NDArray[np.float32] = ((np.arange(256) / 255 - mean) / std).astype(np.float32)
    return table


def aggregate(
    sums: Sequence[Float[Tensor, "c _u _v"]], labels: Bool[Tensor, " c"], size: tuple[int, int]
) -> SeedMaps:
    """Bring each scale's sum to common sizes, add them, and divide each class by its maximum.

    Args:
        sums: Per scale, summed positive class maps, as `multi_scale_cam` and `rib` give them.
        labels: The picture's classes, multi-hot.
        size: `(H, W)` of the picture.
    """
    keys = labels.nonzero().flatten().to(sums[0].device, non_blocking=True)
    strided = tuple((side - 1) // STRIDED + 1 for side in size)
    padded = tuple(PADDED * ((side - 1) // PADDED + 1) for side in size)
    cam, high_res = (_total(sums, keys, s) for s in (strided, padded))
    high_res = high_res[:, : size[0], : size[1]]
    return SeedMaps(keys=keys, cam=_scaled(cam), high_res=_scaled(high_res))


def _total(
    sums: Sequence[Tensor], keys: Int[Tensor, " n"], size: tuple[int, ...]
) -> Float[Tensor, "n _u _v"]:
    if not len(keys):
        return sums[0].new_zeros(0, *size)
    resized = [F.interpolate(s[None, keys], size=size, mode="bilinear")[0] for s in sums]
    return torch.stack(resized).sum(0)


def _scaled(maps: Float[Tensor, "n _u _v"]) -> Float[Tensor, "n _u _v"]:
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-5) if len(maps) else maps
