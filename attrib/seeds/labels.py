"""From maps to label images: which class each pixel belongs to."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from attrib.datasets.labelled import IGNORE
from attrib.errors import InputError

__all__ = ["affinity_label", "label_map", "with_saliency"]


def label_map(
    maps: Float[Tensor, "n H W"],
    keys: Int[Tensor, " _n"],
    *,
    threshold: float = 0.25,
    alpha: float | None = None,
) -> UInt8[Tensor, "H W"]:
    r"""Give each pixel the class of its highest map where that exceeds the background.

    The background is the constant `threshold`, or, with `alpha`, the power
    $(1 - \max_c M_c)^{\alpha}$ of Ahn & Kwak, AffinityNet. Ties with the background go to the
    background, ties between maps to the first.

    Args:
        maps: One per class of the picture, each divided by its maximum; may be none.
        keys: Their classes, numbered from 0 without background; on the CPU they are checked there.
        threshold: The constant background.
        alpha: Positive; takes the place of `threshold`.

    Returns:
        0 background, else the class + 1; on the maps' device.

    Raises:
        InputError: `alpha` is not positive, a map holds NaN, or maps and keys do not fit together.
    """
    if alpha is not None and alpha <= 0:
        raise InputError(f"alpha is positive, got {alpha}; leave it out for a constant threshold")
    best, label = _strongest(maps, keys)
    plane = best.new_full((), threshold) if alpha is None else (1 - best).clamp(min=0) ** alpha
    return label.masked_fill(best <= plane, 0)


def affinity_label(
    maps: Float[Tensor, "n H W"],
    keys: Int[Tensor, " _n"],
    *,
    foreground: float = 0.30,
    background: float = 0.05,
) -> UInt8[Tensor, "H W"]:
    """Label only the pixels whose class is certain, as pixel affinities are learnt from.

    Ahn et al., IRN, without its CRF. The RIB authors take 0.35 and 0.17.

    Args:
        maps: As in `label_map`.
        keys: As in `label_map`.
        foreground: The highest map must exceed it for its class.
        background: The highest map must not exceed it for background.

    Returns:
        0 background, the class + 1, or 255 for uncertain; on the maps' device.

    Raises:
        InputError: `foreground` is below `background`, a map holds NaN, or maps and keys do not
            fit together.
    """
    if foreground < background:
        raise InputError(
            f"foreground {foreground} is below background {background}; a pixel could be both"
        )
    best, label = _strongest(maps, keys)
    label = label.masked_fill(best <= best.new_full((), foreground), IGNORE)
    return label.masked_fill(best <= best.new_full((), background), 0)


def with_saliency(
    label: UInt8[Tensor, "H W"], salient: Bool[Tensor, "_H _W"]
) -> UInt8[Tensor, "H W"]:
    """Mark as uncertain, 255, the pixels where classes and saliency disagree.

    Args:
        label: 0 background, else a class or 255.
        salient: True where the picture's objects are.

    Raises:
        InputError: they differ in size.
    """
    if label.shape != salient.shape:
        raise InputError(
            f"the label image is {tuple(label.shape)}, the mask {tuple(salient.shape)}; "
            "bring both to the picture's size"
        )
    return label.masked_fill((label != 0) != salient, IGNORE)


def _strongest(
    maps: Float[Tensor, "n H W"], keys: Int[Tensor, " _n"]
) -> tuple[Float[Tensor, "H W"], UInt8[Tensor, "H W"]]:
    """Return each pixel's highest value and its class + 1."""
    if len(maps) != len(keys):
        raise InputError(f"each map has one key, got {len(maps)} maps and {len(keys)} keys")
    if not len(maps):
        empty = maps.new_full(maps.shape[1:], -torch.inf)
        return empty, torch.zeros_like(empty, dtype=torch.uint8)
    if int(keys.min()) < 0 or int(keys.max()) + 1 >= IGNORE:
        raise InputError(
            f"keys are class indices from 0 to {IGNORE - 2}, got {keys.tolist()}; a label image "
            f"of 8 bits holds {IGNORE - 1} classes, background and {IGNORE}"
        )
    best, index = maps.max(0)
    if best.isnan().any():
        raise InputError(f"the maps of classes {keys.tolist()} hold NaN; nothing exceeds NaN")
    numbers = (keys + 1).to(torch.uint8).to(maps.device, non_blocking=True)
    return best, numbers[index]
