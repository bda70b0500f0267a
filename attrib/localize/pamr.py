"""Pixel-adaptive mask refinement: maps that follow the colour edges of their picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError

__all__ = ["pamr"]

DIRECTIONS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))


@torch.no_grad()
def pamr(
    images: Float[Tensor, "_b _k _H _W"],
    maps: Float[Tensor, "b n H W"],
    *,
    iterations: int = 10,
    dilations: Sequence[int] = (1, 2, 4, 8, 12, 24),
) -> Float[Tensor, "b n H W"]:
    r"""Average each pixel's map values over its neighbours, again and again, like colours first.

    $$\alpha_{ij} = \mathrm{softmax}_j\Bigl(-\operatorname{mean}_k
    \frac{|I_{ik} - I_{jk}|}{10^{-8} + 0.1\,\sigma_{ik}}\Bigr), \qquad
    m_i \leftarrow \sum_j \alpha_{ij} m_j$$

    The neighbours j of pixel i are the 8 around it at every dilation; beyond the border, the edge
    is repeated. $\sigma_{ik}$ is the standard deviation of channel k over i and its neighbours.
    Araslanov & Roth, Single-Stage Semantic Segmentation from Image Labels, section 3.3.

    The answer is linear in the maps and a constant map stays as it is, so that a threshold means
    the same before and after. No gradient is kept.

    Args:
        images: In any unit: scale and offset of the channels do not matter.
        maps: At the size of the images; on the same device.
        iterations: How often to average; 0 returns a copy.
        dilations: Distances of the neighbours in pixels.

    Returns:
        New maps within the range of the old ones.

    Raises:
        InputError: images and maps differ in number or size, or an option is out of range.
    """
    _check(images, maps, iterations, dilations)
    refined = maps.clone()
    if not maps.numel():
        return refined
    for i in range(len(maps)):  # one picture at a time bounds the memory
        affinity = _affinity(images[i].to(maps.dtype), dilations)
        for _ in range(iterations):
            neighbours = _neighbours(refined[i], dilations)
            refined[i].zero_()
            for weight, neighbour in zip(affinity, neighbours, strict=True):
                refined[i].addcmul_(neighbour, weight)
    return refined


def _check(images: Tensor, maps: Tensor, iterations: int, dilations: Sequence[int]) -> None:
    sizes = (tuple(images.shape), tuple(maps.shape))
    fits = images.ndim == maps.ndim == 4 and images.shape[1] > 0
    if not fits or images.shape[::2] != maps.shape[::2] or images.shape[3] != maps.shape[3]:
        raise InputError(
            f"images are [b, k, H, W] and maps [b, n, H, W], got {sizes[0]} and {sizes[1]}; "
            "bring both to one size"
        )
    if iterations < 0 or not dilations or min(dilations) < 1:
        raise InputError(
            "iterations are 0 or more and dilations one or more distances from 1, got "
            f"{iterations} and {tuple(dilations)}"
        )


def _affinity(image: Float[Tensor, "k H W"], dilations: Sequence[int]) -> Float[Tensor, "m H W"]:
    affinity = image.new_zeros(len(DIRECTIONS) * len(dilations), *image.shape[1:])
    for channel in image.split(1):
        neighbours = _neighbours(channel, dilations)
        scale = -1 / (len(image) * (1e-8 + 0.1 * _deviation(channel, neighbours)))
        difference = torch.empty_like(channel)
        for row, neighbour in zip(affinity.split(1), neighbours, strict=True):
            row.addcmul_(torch.sub(neighbour, channel, out=difference).abs_(), scale)
    affinity -= affinity.amax(0)
    affinity.exp_()
    affinity /= affinity.sum(0)
    return affinity


def _deviation(
    channel: Float[Tensor, "1 H W"], neighbours: list[Float[Tensor, "1 H W"]]
) -> Float[Tensor, "1 H W"]:
    """Unbiased standard deviation over each pixel and its neighbours."""
    total, square = torch.zeros_like(channel), torch.zeros_like(channel)
    difference = torch.empty_like(channel)
    for neighbour in neighbours:  # measured from the pixel itself, which keeps rounding small
        torch.sub(neighbour, channel, out=difference)
        total += difference
        square.addcmul_(difference, difference)
    count = len(neighbours)
    return ((square - total.square() / (count + 1)).clamp(min=0) / count).sqrt()


def _neighbours(
    planes: Float[Tensor, "n H W"], dilations: Sequence[int]
) -> list[Float[Tensor, "n H W"]]:
    """List the planes moved by each direction at each dilation: views of one padded copy."""
    (height, width), margin = planes.shape[1:], max(dilations)
    padded = F.pad(planes, [margin] * 4, mode="replicate")
    corners = [(margin + d * y, margin + d * x) for d in dilations for y, x in DIRECTIONS]
    return [padded[:, y : y + height, x : x + width] for y, x in corners]
