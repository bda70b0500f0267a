"""PxAP and PIoU: maps against masks, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int, Integer, Shaped
from torch import Tensor

from attrib.errors import InputError
from attrib.localize.heatmap import Resize
from attrib.metrics.thresholds import counts_like, grid, grid_index, per_cent
from attrib.metrics.wsol_batch import WsolBatch, score_maps, square_masks

__all__ = ["PxAP", "average_precision", "pixel_counts", "pixel_precision_recall"]

IGNORED = 255


def pixel_counts(
    scores: Float[Tensor, "n H W"], masks: Integer[Tensor, "n H W"], thresholds: Float[Tensor, " t"]
) -> Int[Tensor, "2 bins"]:
    """Count the values of background (row 0) and object pixels (row 1) between thresholds.

    The edges of the bins are the thresholds, then 1, 2 and 3, so that a value of 1 has a bin too.

    Args:
        scores: In [0, 1]. Counted in their own precision.
        masks: 0 background, 1 object; other pixels do not count.
        thresholds: Ascending, from 0.
    """
    last = torch.tensor([1.0, 2.0, 3.0], dtype=thresholds.dtype)
    edges = torch.cat([thresholds.cpu(), last]).to(scores.device, scores.dtype)
    bins = torch.bucketize(scores, edges, right=True) - 1
    size = len(edges) - 1
    counted = [torch.bincount(bins[masks == value], minlength=size) for value in (0, 1)]
    return torch.stack(counted)


def pixel_precision_recall(
    counts: Shaped[Tensor, "*m 2 bins"],
) -> tuple[Float[Tensor, "*m bins"], Float[Tensor, "*m bins"], Float[Tensor, "*m bins"]]:
    """Return precision, recall and IoU of "at or above the edge", from the highest edge down.

    Precision is NaN where nothing is predicted, recall where there is no object.
    """
    wrong, right = counts.double().flip(-1).cumsum(-1).unbind(-2)
    objects = right[..., -1:]
    return right / (right + wrong), right / objects, right / (objects + wrong)


def average_precision(counts: Shaped[Tensor, "*m 2 bins"]) -> Float[Tensor, "*m"]:
    """Sum precision times the gain in recall over the edges with any pixel at or above them."""
    precision, recall, _ = pixel_precision_recall(counts)
    found = counts.double().sum(-2).flip(-1).cumsum(-1)[..., 1:] > 0
    gain = precision[..., 1:] * recall.diff()
    return gain.where(found, torch.zeros_like(gain)).sum(-1)


@dataclass(kw_only=True)
class PxAP:
    """Area under the curve of precision over recall of pixels, over all pictures at once.

    Choe et al., *Evaluating Weakly Supervised Object Localization Methods Right*: the sum of
    precision times the gain in recall, from the highest threshold down. PIoU is the highest IoU of
    all pixels together at any one threshold.

    Args:
        interval: Between thresholds, which start at 0 and end below 1.
        threshold: Of the IoU that does not choose; one of the thresholds.
        resize: How maps are brought to the square.
        size: Side of the square.
    """

    interval: float = 0.001
    threshold: float = 0.2
    resize: Resize = "bicubic"
    size: int = 224
    _counts: Tensor = field(init=False, repr=False)
    _images: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.thresholds = grid(self.interval)
        self._fixed = grid_index(self.threshold, self.thresholds)
        self._counts = torch.zeros(2, len(self.thresholds) + 2, dtype=torch.int64)

    @property
    def name(self) -> str:
        """As on the command line."""
        return "pxap"

    def update(self, batch: WsolBatch) -> Int[Tensor, "n 2 bins"]:
        """Score one batch of pictures that have masks; return each one's counts of pixels."""
        masks = [mask for mask in batch.masks if mask is not None]
        if len(masks) < len(batch.masks):
            name = batch.ids[batch.masks.index(None)]
            raise InputError(f"pxap scores pixels, and picture {name} has no mask")
        scores = score_maps(batch, self.size, self.resize)
        truth = square_masks(masks, self.size, scores.device)
        pairs = zip(scores.split(1), truth.split(1), strict=True)
        counts = torch.stack([pixel_counts(*pair, self.thresholds) for pair in pairs]).cpu()
        self._counts += counts.sum(0)
        self._images += len(scores)
        return counts

    def add(self, other: PxAP) -> None:
        """Add what the same protocol counted on other pictures."""
        self._counts += other._counts
        self._images += other._images

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of pixels and of pictures, as JSON values."""
        return {"counts": self._counts.tolist(), "images": self._images}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count what `state_dict` returned, and nothing else."""
        self._counts = counts_like(state["counts"], self._counts)
        self._images = int(state["images"])

    def result(self, validation: PxAP | None = None) -> dict[str, Any]:
        """Return `pxap` and IoUs at the fixed, the oracle and the validated threshold, per cent."""
        places = {"fixed": self._fixed, "oracle": self._oracle()}
        if validation is not None:
            places["validated"] = validation._oracle()
        return {
            "protocol": self.name,
            "images": self._images,
            "interval": self.interval,
            "size": self.size,
            "resize": self.resize,
            "pxap": per_cent(float(average_precision(self._counts)), min(1, self._images)),
            "piou": {kind: self._at(i) for kind, i in places.items()},
        }

    def _ious(self) -> Float[Tensor, " t"]:
        return pixel_precision_recall(self._counts)[2].flip(0)[: len(self.thresholds)]

    def _oracle(self) -> int:
        return int(self._ious().nan_to_num(-1).argmax())

    def _at(self, index: int) -> dict[str, float]:
        threshold = round(float(self.thresholds[index]), 6)
        return {"threshold": threshold, "iou": 100 * float(self._ious()[index])}
