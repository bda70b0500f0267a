"""MaxBoxAcc and MaxBoxAccV2, box by box as the field's standard evaluator counts them.

Choe et al., *Evaluating Weakly Supervised Object Localization Methods Right*. Boxes here follow
that evaluator and not the rest of the library: corners `x0 y0 x1 y1` of a 224 x 224 square, where
`x1 = min(x + w, 223)`, and an overlap that counts the pixels of both ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attrib.errors import InputError
from attrib.localize.heatmap import Resize
from attrib.localize.level_sets import LevelBoxes, all_contours, largest_contours
from attrib.metrics.thresholds import counts_like, grid, grid_index, per_cent
from attrib.metrics.wsol_batch import WsolBatch, need_boxes, score_maps, square_boxes

__all__ = ["Contours", "MaxBoxAcc", "ThresholdBoxes", "best_ious", "closed_iou", "threshold_boxes"]

Contours = Literal["largest", "all"]
"""`largest`: the contour of largest area gives the one box. `all`: each gives one, also holes'."""


TOPS = (None, 1, 5)
"""Whether the true class is among so many most likely; None does not ask."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ThresholdBoxes:
    """Boxes of score maps at thresholds, in the evaluator's convention.

    Args:
        image: Which map.
        threshold: Which threshold.
        boxes: `x0 y0 x1 y1` with `x1 = min(x + w, W - 1)`, `y1 = min(y + h, H - 1)`; zeros for a
            map that does not rise above the threshold.
    """

    image: Int[Tensor, " m"]
    threshold: Int[Tensor, " m"]
    boxes: Int[Tensor, "m 4"]


def threshold_boxes(
    scores: Float[Tensor, "n H W"],
    thresholds: Float[Tensor, " t"],
    contours: Contours = "largest",
) -> ThresholdBoxes:
    """List the boxes of each map at each threshold.

    A map is cut to 8 bits, and what is greater than `int(threshold * maximum)` of it is kept.

    Args:
        scores: In [0, 1], double precision where exact agreement matters.
        thresholds: In [0, 1), in double precision.
        contours: See `Contours`.

    Raises:
        InputError: scores or thresholds out of range, or scores that are not finite.
    """
    found, cut_of, cuts = _contours(scores, thresholds, contours)
    if not len(scores):
        return ThresholdBoxes(image=found.image, threshold=found.cut, boxes=found.boxes)
    key = found.image * cuts + found.cut
    counts = torch.bincount(key, minlength=len(scores) * cuts)
    rows = torch.arange(len(scores), device=key.device)[:, None] * cuts + cut_of
    wanted = rows.flatten()
    each = counts[wanted].clamp(min=1)
    which = torch.arange(len(wanted), device=key.device).repeat_interleave(each)
    place = torch.arange(len(which), device=key.device) - (each.cumsum(0) - each)[which]
    first = (counts.cumsum(0) - counts)[wanted][which]
    there = counts[wanted][which] > 0
    padded = torch.cat([found.boxes[key.argsort(stable=True)], found.boxes.new_zeros(1, 4)])
    boxes = padded[torch.where(there, first + place, len(key))]
    t = len(thresholds)
    return ThresholdBoxes(image=which // t, threshold=which % t, boxes=boxes)


def best_ious(
    scores: Float[Tensor, "n H W"],
    thresholds: Float[Tensor, " t"],
    truth: Sequence[Float[Tensor, "_m 4"]],
    contours: Contours = "largest",
) -> Float[Tensor, "n t"]:
    """Return the highest overlap of any box of a map, at each threshold, with any true box.

    Args:
        scores: As for `threshold_boxes`.
        thresholds: As for `threshold_boxes`.
        truth: Per map one true box or more, `x0 y0 x1 y1` on the map.
        contours: See `Contours`.
    """
    found, cut_of, cuts = _contours(scores, thresholds, contours)
    boxes, there = _padded(truth, scores.device)
    best = torch.full((len(scores) * cuts,), -1.0, dtype=torch.float64, device=scores.device)
    overlap = _best(found.boxes, boxes[found.image], there[found.image])
    best.scatter_reduce_(0, found.image * cuts + found.cut, overlap, "amax")
    nothing = _best(torch.zeros_like(boxes[:, 0]), boxes, there)  # its box is 0 0 0 0
    best = best.view(-1, cuts)
    return torch.where(best < 0, nothing[:, None], best).gather(1, cut_of)


def closed_iou(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*_n"]:
    """Intersection over union of boxes whose corners are the first and the last pixel."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low + 1).clamp(min=0).prod(-1)
    area_a, area_b = ((x[..., 2:] - x[..., :2] + 1).prod(-1) for x in (a, b))
    union = area_a + area_b - intersection
    return torch.where(union > 0, intersection / union.where(union > 0, 1), 0)


def _best(boxes: Tensor, truth: Tensor, there: Tensor) -> Float[Tensor, " r"]:
    overlap = closed_iou(boxes.double()[:, None], truth)
    return torch.where(there, overlap, -1).amax(1)


def _padded(
    truth: Sequence[Tensor], device: torch.device
) -> tuple[Float[Tensor, "n m 4"], Bool[Tensor, "n m"]]:
    most = max((len(boxes) for boxes in truth), default=1)
    padded = torch.zeros(len(truth), most, 4, dtype=torch.float64, device=device)
    for row, boxes in zip(padded, truth, strict=True):
        row[: len(boxes)] = boxes
    counts = torch.tensor([len(boxes) for boxes in truth], device=device)
    return padded, torch.arange(most, device=device) < counts[:, None]


def _contours(
    scores: Tensor, thresholds: Tensor, contours: Contours
) -> tuple[LevelBoxes, Int[Tensor, "n t"], int]:
    """Find the contours above each distinct cut; return also which cut each threshold is."""
    highest = _check(scores, thresholds, contours)
    highest = (highest * 255).long().double()  # cuts fractions off
    cut = (thresholds.to(scores.device) * highest[:, None]).long()
    asked = torch.zeros(256, dtype=torch.bool, device=scores.device).index_fill_(0, cut.view(-1), 1)
    cuts, cut_of = asked.nonzero().view(-1), (asked.cumsum(0) - 1)[cut]
    find = largest_contours if contours == "largest" else all_contours
    found = find(scores, cuts)
    corner = torch.tensor([scores.shape[2] - 1, scores.shape[1] - 1], device=scores.device)
    boxes = torch.cat([found.boxes[:, :2], found.boxes[:, 2:].minimum(corner)], 1)
    return LevelBoxes(image=found.image, cut=found.cut, boxes=boxes), cut_of, max(len(cuts), 1)


def _check(scores: Tensor, thresholds: Tensor, contours: str) -> Float[Tensor, " n"]:
    """Return the highest score of each map."""
    if contours not in ("largest", "all"):
        raise InputError(f"contours is 'largest' or 'all', got {contours!r}")
    low = high = scores.new_zeros(len(scores))
    if scores.numel():
        low, high = scores.flatten(1).aminmax(dim=1)
    if not bool(((low >= 0) & (high <= 1)).all()):  # NaN is neither
        raise InputError("scores lie in [0, 1]; normalise the maps, and find out where NaN is from")
    if not len(thresholds) or not bool(((thresholds >= 0) & (thresholds < 1)).all()):
        raise InputError(f"thresholds lie in [0, 1), got {thresholds.tolist()[:5]}")
    return high


@dataclass(kw_only=True)
class MaxBoxAcc:
    """Share of pictures whose box is right, at the threshold where that share is highest.

    A picture is right at a threshold and an IoU when any of its boxes overlaps any true one by that
    much. With the defaults this is MaxBoxAcc; with `contours="all"` and `ious=(0.3, 0.5, 0.7)`, the
    mean of each IoU's own best, it is MaxBoxAccV2 (`MaxBoxAcc.v2()`). Score maps are the raw maps,
    resized to 224 x 224 and brought to [0, 1] as their batch says.

    Args:
        contours: Which contours give boxes.
        ious: From where on a box is right.
        interval: Between thresholds, which start at 0 and end below 1.
        threshold: Of the score that does not choose; one of the thresholds.
        resize: How maps are brought to the square.
        size: Side of the square.
    """

    contours: Contours = "largest"
    ious: tuple[float, ...] = (0.5,)
    interval: float = 0.01
    threshold: float = 0.2
    resize: Resize = "bicubic"
    size: int = 224
    _right: Tensor = field(init=False, repr=False)
    _images: int = field(default=0, init=False, repr=False)
    _ranked: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        self.thresholds = grid(self.interval)
        self._fixed = grid_index(self.threshold, self.thresholds)
        self._right = torch.zeros(
            len(self.ious), len(TOPS), len(self.thresholds), dtype=torch.int64
        )

    @classmethod
    def v2(cls, **options: Any) -> MaxBoxAcc:
        """Return the protocol MaxBoxAccV2; `options` are the fields."""
        return cls(contours="all", ious=(0.3, 0.5, 0.7), **options)

    @property
    def name(self) -> str:
        """`maxboxacc`, or `maxboxaccv2` where all contours count."""
        return "maxboxacc" if self.contours == "largest" else "maxboxaccv2"

    def update(self, batch: WsolBatch) -> Float[Tensor, "n t"]:
        """Score one batch; return each picture's highest IoU at each threshold."""
        need_boxes(batch, self.name)
        key = (self.name, self.interval, self.resize, self.size)
        best = batch.once(key, lambda: self._best(batch))
        right = torch.stack([best >= iou for iou in self.ious])
        for place, top in enumerate(TOPS):
            among = None if top is None else batch.within(top)
            counted = right if among is None else right & among.to(right.device)[:, None]
            self._right[:, place] += counted.sum(1).cpu()
        self._images += len(best)
        self._ranked &= batch.rank is not None
        return best

    def _best(self, batch: WsolBatch) -> Float[Tensor, "n t"]:
        scores = score_maps(batch, self.size, self.resize)
        truth = [
            square_boxes(boxes.to(scores.device), frame.source, self.size)
            for boxes, frame in zip(batch.boxes, batch.frames, strict=True)
        ]
        return best_ious(scores, self.thresholds, truth, self.contours)

    def add(self, other: MaxBoxAcc) -> None:
        """Add what the same protocol counted on other pictures."""
        self._right += other._right
        self._images += other._images
        self._ranked &= other._ranked

    def state_dict(self) -> dict[str, Any]:
        """Return pictures that are right, by IoU, place and threshold, and all, as JSON values."""
        return {"right": self._right.tolist(), "images": self._images, "ranked": self._ranked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count what `state_dict` returned, and nothing else."""
        self._right = counts_like(state["right"], self._right)
        self._images, self._ranked = int(state["images"]), bool(state["ranked"])

    def result(self, validation: MaxBoxAcc | None = None) -> dict[str, Any]:
        """Return the shares in per cent: at the fixed, the oracle and the validated threshold."""
        places = {"fixed": [self._fixed] * len(self.ious), "oracle": self._oracle()}
        if validation is not None:
            places["validated"] = validation._oracle()
        return {
            "protocol": self.name,
            "images": self._images,
            "contours": self.contours,
            "interval": self.interval,
            "size": self.size,
            "resize": self.resize,
        } | {kind: self._at(index) for kind, index in places.items()}

    def _oracle(self) -> list[int]:
        """Find where the share is highest for each IoU; of equals the lowest threshold."""
        known = self._right[:, 0].numpy()
        return [int(i) for i in known.argmax(1)]

    def _at(self, index: list[int]) -> dict[str, Any]:
        rows = []
        for iou, right, i in zip(self.ious, self._right, index, strict=True):
            known, top1, top5 = (per_cent(count, self._images) for count in right[:, i].tolist())
            ranked = {"top1_loc": top1, "top5_loc": top5} if self._ranked else {}
            threshold = round(float(self.thresholds[i]), 6)
            rows.append({"iou": iou, "threshold": threshold, "gt_known_loc": known} | ranked)
        return {self.name: sum(row["gt_known_loc"] for row in rows) / len(rows), "ious": rows}
