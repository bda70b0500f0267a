"""The protocols of localisation as metrics: what of their figures each picture contributes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError, UnknownNameError
from attrib.localize.heatmap import Resize
from attrib.metrics.base import METRICS, Better, Metric, resolve_metric
from attrib.metrics.infocam import InfoCAMProtocol
from attrib.metrics.maxboxacc import MaxBoxAcc
from attrib.metrics.pointing import PointingGame
from attrib.metrics.pxap import PxAP, average_precision
from attrib.metrics.wsol_batch import WsolBatch
from attrib.registry import AtLeast, Registry, check_fields, parse_spec

__all__ = [
    "OBJECT_METRICS",
    "BestBox",
    "FixedBox",
    "GTKnown",
    "MaxBox",
    "MaxBoxV2",
    "ObjectMetric",
    "PixelPrecision",
    "Pointing",
    "Pooled",
    "Top1",
    "resolve_score",
]


class Pooled(NamedTuple):
    """Scores of mean rows, and the thresholds that were chosen to have them; none for most."""

    values: Float[Tensor, " m"]
    thresholds: Float[Tensor, "m k"]


class ObjectMetric(ABC):
    """Abstract; every one is final. Scores maps of the labelled classes against their objects.

    Each picture gives a row of whole numbers, and the score over pictures is a function of the mean
    row. For a share at a fixed threshold that is the mean itself; for one at the best threshold a
    row has a number per threshold. All scores lie in [0, 1].
    """

    name: ClassVar[str]
    """As in spec strings and on the command line."""
    summary: ClassVar[str]
    """One line for tables."""
    better: ClassVar[Better] = "higher"

    def __post_init__(self) -> None:
        check_fields(self)
        self.protocol()  # which says what is out of its range

    @abstractmethod
    def protocol(self) -> InfoCAMProtocol | MaxBoxAcc | PointingGame | PxAP:
        """Make the protocol that this is a figure of, fresh."""

    @abstractmethod
    def rows(self, batch: WsolBatch) -> Float[Tensor, "n s"]:
        """Say what each picture contributes, on the CPU.

        Raises:
            InputError: a picture lacks what the metric needs: boxes, a mask, a finite map.
        """

    def pool(self, rows: Float[Tensor, "m s"]) -> Pooled:
        """Score mean rows, each of some pictures; here a share, which is its mean."""
        return Pooled(rows[:, 0], rows[:, 1:])


OBJECT_METRICS: Registry[ObjectMetric] = Registry("metric")
"""Every metric that needs true objects, by name."""


def resolve_score(score: str | Metric | ObjectMetric) -> Metric | ObjectMetric:
    """Return a metric of either kind as it is, or build it from its spec string.

    Raises:
        UnknownNameError: no metric has that name.
    """
    if not isinstance(score, str):
        return score
    name, _ = parse_spec(score)
    if name in OBJECT_METRICS:
        return OBJECT_METRICS.make(score)
    if name in METRICS:
        return resolve_metric(score)
    raise UnknownNameError("metric", name, sorted([*METRICS, *OBJECT_METRICS]))


@dataclass(frozen=True, kw_only=True)
class FixedBox(ObjectMetric):
    """Abstract: a share of right boxes by infoCAM's protocol, see `InfoCAMProtocol`.

    Args:
        threshold: Fraction of each map's range.
        iou: From where on a box is right.
        resize: How maps are brought to the input's size.
    """

    threshold: float = 0.2
    iou: float = 0.5
    resize: Resize = "bilinear"

    def protocol(self) -> InfoCAMProtocol:
        """See `ObjectMetric`."""
        return InfoCAMProtocol(threshold=self.threshold, resize=self.resize, iou=self.iou)

    def rows(self, batch: WsolBatch) -> Float[Tensor, "n s"]:
        """See `ObjectMetric`."""
        return self.protocol().update(batch).double()[:, None]


@OBJECT_METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class GTKnown(FixedBox):
    """Share of pictures with a right box; options are those of `FixedBox`."""

    name = "gt-known"
    summary = "share of right boxes at a fixed threshold"


@OBJECT_METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class Top1(FixedBox):
    """Share of pictures with a right box whose true class is the most likely; as `FixedBox`."""

    name = "top-1"
    summary = "share of right boxes at a fixed threshold, where the class is right too"

    def rows(self, batch: WsolBatch) -> Float[Tensor, "n s"]:
        """See `ObjectMetric`."""
        likeliest = batch.within(1)
        if likeliest is None:
            raise InputError("top-1 needs to know how likely the true class is; give its rank")
        return super().rows(batch) * likeliest.cpu()[:, None]


@dataclass(frozen=True, kw_only=True)
class BestBox(ObjectMetric):
    """Abstract: a share of right boxes at the threshold that is best for them, see `MaxBoxAcc`.

    Args:
        interval: Between thresholds.
        resize: How maps are brought to the square.
    """

    interval: float = 0.01
    resize: Resize = "bicubic"

    @abstractmethod
    def protocol(self) -> MaxBoxAcc:
        """See `ObjectMetric`."""

    def rows(self, batch: WsolBatch) -> Float[Tensor, "n s"]:
        """Say for each IoU and threshold whether a picture's box is right."""
        protocol = self.protocol()
        best = protocol.update(batch).cpu()
        return torch.cat([best >= iou for iou in protocol.ious], 1).double()

    def pool(self, rows: Float[Tensor, "m s"]) -> Pooled:
        """Take each IoU's best threshold; of equals the lowest."""
        protocol = self.protocol()
        shares = rows.unflatten(1, (len(protocol.ious), -1))
        index = torch.from_numpy(shares.numpy().argmax(2))
        values = shares.gather(2, index[:, :, None])[:, :, 0].mean(1)
        return Pooled(values, protocol.thresholds[index])


@OBJECT_METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class MaxBox(BestBox):
    """Share of pictures with a right box at the best threshold; other options are `BestBox`'s.

    Args:
        iou: From where on a box is right.
    """

    name = "maxboxacc"
    summary = "share of right boxes at the oracle's threshold"
    iou: float = 0.5

    def protocol(self) -> MaxBoxAcc:
        """See `ObjectMetric`."""
        return MaxBoxAcc(ious=(self.iou,), interval=self.interval, resize=self.resize, threshold=0)


@OBJECT_METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class MaxBoxV2(BestBox):
    """The same with all contours, and the mean over IoUs of 0.3, 0.5 and 0.7: `MaxBoxAcc.v2`."""

    name = "maxboxaccv2"
    summary = "share of right boxes, mean of three IoUs, each at the oracle's threshold"

    def protocol(self) -> MaxBoxAcc:
        """See `ObjectMetric`."""
        return MaxBoxAcc.v2(interval=self.interval, resize=self.resize, threshold=0)


@OBJECT_METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class Pointing(ObjectMetric):
    """Share of pictures whose map is highest on the object: see `PointingGame`.

    Args:
        tolerance: How close in source pixels.
        resize: How maps are brought to the source picture.
    """

    name = "pointing"
    summary = "share of maps whose highest point lies on the object"
    tolerance: Annotated[float, AtLeast(0)] = 15
    resize: Resize = "bilinear"

    def protocol(self) -> PointingGame:
        """See `ObjectMetric`."""
        return PointingGame(tolerance=self.tolerance, resize=self.resize)

    def rows(self, batch: WsolBatch) -> Float[Tensor, "n s"]:
        """See `ObjectMetric`."""
        return torch.tensor(self.protocol().update(batch), dtype=torch.float64)[:, None]


@OBJECT_METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class PixelPrecision(ObjectMetric):
    """Area under precision over recall of all pixels of all pictures: see `PxAP`.

    Args:
        interval: Between thresholds.
        resize: How maps are brought to the square.
    """

    name = "pxap"
    summary = "average precision of pixels, over all pictures at once"
    interval: float = 0.001
    resize: Resize = "bicubic"

    def protocol(self) -> PxAP:
        """See `ObjectMetric`."""
        return PxAP(interval=self.interval, resize=self.resize, threshold=0)

    def rows(self, batch: WsolBatch) -> Float[Tensor, "n s"]:
        """See `ObjectMetric`."""
        return self.protocol().update(batch).flatten(1).double()

    def pool(self, rows: Float[Tensor, "m s"]) -> Pooled:
        """See `ObjectMetric`."""
        counts = rows.unflatten(1, (2, -1))
        return Pooled(average_precision(counts), rows.new_zeros(len(rows), 0))
