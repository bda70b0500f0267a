"""Seeds against segmentation masks: every threshold in one sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from attrib.errors import InputError

__all__ = ["SWEEP", "Ignored", "SeedScores", "SeedSweep", "confusion", "scores_of"]

SWEEP = tuple(round(0.01 * i, 2) for i in range(5, 71))
"""Background values from 0.05 to 0.70."""
IGNORE = 255

Ignored = Literal["dropped", "scored"]
"""What a 255 in a prediction is: a pixel that does not count, or one that is wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedScores:
    """Scores of label images, or of maps at one background value.

    Args:
        threshold: The constant background plane; None for label images.
        iou: Per class, background first; NaN for a class that neither occurs nor is predicted.
        precision: Likewise.
        recall: Likewise.
    """

    threshold: float | None
    iou: Float[Tensor, " c"]
    precision: Float[Tensor, " c"]
    recall: Float[Tensor, " c"]

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that have one, in per cent."""
        return 100 * float(self.iou.nanmean())

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return means and a table by class, in per cent; None where there is no score.

        Args:
            names: Of the classes, without background.
        """
        columns = {"iou": self.iou, "precision": self.precision, "recall": self.recall}
        lists = {key: [_or_none(x) for x in (100 * c).tolist()] for key, c in columns.items()}
        return {
            "threshold": self.threshold,
            "miou": self.miou,
            "precision": 100 * float(self.precision.nanmean()),
            "recall": 100 * float(self.recall.nanmean()),
            "classes": {
                name: {key: values[i] for key, values in lists.items()}
                for i, name in enumerate(("background", *names))
            },
        }


def _or_none(x: float) -> float | None:
    return None if math.isnan(x) else x


def scores_of(counts: Int[Tensor, "c _d"], threshold: float | None = None) -> SeedScores:
    """Score a confusion matrix: rows are true classes, columns predicted ones, then none of them.

    Args:
        counts: As `confusion` makes them, added up over pictures.
        threshold: To be kept with the scores.
    """
    square = counts[:, : len(counts)]
    right, said, there = (x.double() for x in (square.diag(), square.sum(0), counts.sum(1)))
    return SeedScores(
        threshold=threshold,
        iou=right / (said + there - right),
        precision=right / said,
        recall=right / there,
    )


def confusion(
    label: Integer[Tensor, "H W"],
    truth: Integer[Tensor, "_H _W"],
    num_classes: int,
    ignored: Ignored = "dropped",
) -> Int[Tensor, "c _d"]:
    """Count the pixels of each true class that are predicted as each class.

    Args:
        label: 0 background, 1 to C classes, 255 ignored.
        truth: Likewise.
        num_classes: C, without background.
        ignored: What 255 in `label` means.

    Returns:
        `[C + 1, C + 2]`; the last column counts what is predicted as nothing.

    Raises:
        InputError: they differ in size, or hold another value.
    """
    if label.shape != truth.shape:
        raise InputError(f"the label image is {tuple(label.shape)}, the mask {tuple(truth.shape)}")
    c = num_classes + 1
    kept = truth != IGNORE
    if ignored == "dropped":
        kept &= label != IGNORE
    rows, columns = truth[kept].long(), label[kept].long()
    columns = columns.masked_fill(columns == IGNORE, c)
    for what, values, most in (("mask", rows, c), ("label image", columns, c + 1)):
        if len(values) and int(values.max()) >= most:
            raise InputError(
                f"the {what} holds {int(values.max())}; there are {num_classes} classes"
            )
    return torch.bincount(rows * (c + 1) + columns, minlength=c * (c + 1)).view(c, c + 1)


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
        truth: Integer[Tensor, "_H _W"],
    ) -> None:
        """Add one picture.

        Args:
            maps: One map per class of the picture, each divided by its maximum.
            classes: Their classes, numbered from 0 without background.
            truth: 0 background, 1 to C classes, 255 ignored.

        Raises:
            InputError: maps and mask differ in size, or name a class that there is not.
        """
        if maps.shape[1:] != truth.shape:
            raise InputError(f"maps are {tuple(maps.shape[1:])}, the mask {tuple(truth.shape)}")
        c, bins = self.num_classes + 1, len(self.thresholds) + 1
        kept = truth != IGNORE
        there = truth[kept].long()
        highest = max([*classes.tolist(), int(there.max()) - 1 if len(there) else 0], default=0)
        if highest >= self.num_classes:
            raise InputError(f"class {highest} is none of the {self.num_classes}")
        if len(maps):
            best, index = maps.max(0)
            label = classes.to(maps.device)[index][kept] + 1
            thresholds = self.thresholds.to(maps.device, maps.dtype)
            level = torch.bucketize(best[kept].contiguous(), thresholds)
        else:
            label = level = torch.zeros_like(there)
        code = (there * c + label) * bins + level
        self.add(torch.bincount(code, minlength=c * c * bins).view(c, c, bins))

    @property
    def counts(self) -> Int[Tensor, "c c _bins"]:
        """Pixels by true class, class of the highest map, and its value's place in the sweep."""
        return self._counts.clone()

    def add(self, counts: Int[Tensor, "c c _bins"], pictures: int = 1) -> None:
        """Add what another sweep over the same background values counted.

        Raises:
            InputError: the other sweep has more or fewer classes or background values.
        """
        if counts.shape != self._counts.shape:
            raise InputError(f"counts are {tuple(counts.shape)}, not {tuple(self._counts.shape)}")
        self._counts += counts.to(self._counts)
        self.pictures += pictures

    def at(self, index: int) -> SeedScores:
        """Score the background value of that index."""
        over = self._counts[..., index + 1 :].sum(-1)
        counts = over.clone()
        counts[:, 0] += self._counts.sum((1, 2)) - over.sum(1)
        return scores_of(counts, float(self.thresholds[index]))

    def best(self) -> SeedScores:
        """Score the background value with the highest mIoU: an oracle's choice."""
        scores = [self.at(i) for i in range(len(self.thresholds))]
        return max(scores, key=lambda s: s.miou)

    def curve(self) -> dict[str, float]:
        """Return the mIoU at every background value, in per cent."""
        return {f"{t:g}": self.at(i).miou for i, t in enumerate(self.thresholds.tolist())}
