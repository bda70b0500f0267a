"""Seeds against segmentation masks: every threshold in one sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attrib.errors import InputError

__all__ = ["SWEEP", "SeedSweep"]

SWEEP = tuple(round(0.01 * i, 2) for i in range(5, 71))
"""Background values from 0.05 to 0.70."""
IGNORE = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedScores:
    """Scores at one background value.

    Args:
        threshold: The constant background plane.
        iou: Per class, background first; NaN for a class that neither occurs nor is predicted.
        precision: Likewise.
        recall: Likewise.
    """

    threshold: float
    iou: Float[Tensor, " c"]
    precision: Float[Tensor, " c"]
    recall: Float[Tensor, " c"]

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that have one, in per cent."""
        return 100 * float(self.iou.nanmean())


class SeedSweep:
    """mIoU of seeds over a range of background values, accumulated picture by picture.

    A pixel belongs to the class of its highest map where that exceeds the background value, else to
    the background; ties go to the background. Since only the highest map matters, one histogram of
    its values per picture serves all background values.

    Args:
        num_classes: Without background.
        thresholds: Background values, ascending.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float] = SWEEP) -> None:
        if not thresholds or list(thresholds) != sorted(thresholds):
            raise InputError("thresholds are one or more numbers in ascending order")
        self.thresholds = torch.tensor(list(thresholds), dtype=torch.float64)
        self.num_classes = num_classes
        bins = len(thresholds) + 1
        self._counts = torch.zeros(num_classes + 1, num_classes + 1, bins, dtype=torch.int64)
        self.pictures = 0

    def update(
        self,
        maps: Float[Tensor, "n H W"],
        classes: Int[Tensor, " n"],
        truth: Int[Tensor, "_H _W"],
    ) -> None:
        """Add one picture.

        Args:
            maps: One map per class of the picture, each divided by its maximum.
            classes: Their classes, numbered from 0 without background.
            truth: 0 background, 1 to C classes, 255 ignored.
        """
        if maps.shape[1:] != truth.shape:
            raise InputError(f"maps are {tuple(maps.shape[1:])}, the mask {tuple(truth.shape)}")
        self.pictures += 1
        c, bins = self.num_classes + 1, len(self.thresholds) + 1
        kept = (truth != IGNORE).cpu()
        if len(maps):
            best, index = maps.double().cpu().max(0)
            label = classes.cpu()[index][kept] + 1
            level = torch.bucketize(best[kept].contiguous(), self.thresholds)
        else:
            label = level = torch.zeros(int(kept.sum()), dtype=torch.int64)
        code = (truth.cpu()[kept].long() * c + label) * bins + level
        self._counts += torch.bincount(code, minlength=c * c * bins).view(c, c, bins)

    def at(self, index: int) -> SeedScores:
        """Score the background value of that index."""
        over = self._counts[..., index + 1 :].sum(-1)
        confusion = over.clone()
        confusion[:, 0] += self._counts.sum((1, 2)) - over.sum(1)
        right, said, there = (
            x.double() for x in (confusion.diag(), confusion.sum(0), confusion.sum(1))
        )
        return SeedScores(
            threshold=float(self.thresholds[index]),
            iou=right / (said + there - right),
            precision=right / said,
            recall=right / there,
        )

    def best(self) -> SeedScores:
        """Score the background value with the highest mIoU: an oracle's choice."""
        scores = [self.at(i) for i in range(len(self.thresholds))]
        return max(scores, key=lambda s: s.miou)

    def result(self) -> dict[str, Any]:
        """Return the best scores and the sweep behind them, in per cent."""
        best = self.best()
        return {
            "pictures": self.pictures,
            "oracle_threshold": best.threshold,
            "miou": best.miou,
            "iou": [100 * x for x in best.iou.tolist()],
            "precision": 100 * float(best.precision.nanmean()),
            "recall": 100 * float(best.recall.nanmean()),
            "sweep": {f"{t:g}": self.at(i).miou for i, t in enumerate(self.thresholds.tolist())},
        }
