"""Every constant of RIB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from attrib.errors import InputError
from attrib.registry import AtLeast

__all__ = ["Loss", "Pool", "Preset", "RIBOptions"]

Preset = Literal["official", "paper"]
Loss = Literal["rib", "sigmoid", "tanh", "softsign"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pool:
    """Pictures to draw others from: those that share no class with the picture explained.

    Args:
        images: Normalised as the model's spec says, all of one size.
        labels: Multi-hot.
        expected: Instead of drawing, add the mean gradient of all of them, taken once at the
            user's weights: see `RIBOptions.others`.
    """

    images: Float[Tensor, "m _ h w"]
    labels: Bool[Tensor, "m c"]
    expected: bool = False

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise InputError(f"{len(self.images)} images, {len(self.labels)} rows of labels")

    def __repr__(self) -> str:
        return f"<Pool of {len(self.images)} pictures>"


@dataclass(frozen=True, kw_only=True)
class RIBOptions:
    """What can be chosen about RIB's loop; the defaults are the authors' for PASCAL VOC.

    Args:
        steps: K, the number of updates.
        lr: Learning rate of the trunk.
        head_factor: That of the head, as a multiple.
        weight_decay: On all weights that get a gradient.
        momentum: Of stochastic gradient descent.
        power: Exponent of the polynomial decay.
        pooling: `"gndrp"`, or `"gap"` for the plain mean.
        tau: Cells from this fraction of the maximum on are left out by GNDRP.
        loss: `"rib"`, or binary cross-entropy under an activation brought to [0, 1].
        margin: Where the sum of the picture's logits is enough.
        explode: Fraction of the maximum from which a cell counts as lit.
        explode_ratio: Fraction of lit cells from which the map has exploded.
        scales: Sizes at which the picture is seen, as fractions.
        loss_scales: Those that enter the loss.
        flip: See the mirror image too.
        train_from: Stages with cells wider than so many pixels are trained.
        others: Other pictures in each step's batch: a `Pool`; None for the picture alone (the
            paper's B = 1); or, in a job over a data set, whose pictures then make the pool,
            `"sampled"` (a fresh draw per step, as published) or `"expected"` (their mean gradient
            at the user's weights, computed once per job: by first order it hardly changes over a
            few small steps).
        num_others: How many of them: what the expectation is multiplied by.
        pool_pictures: How many pictures of the data set make the pool, at most.
        pool_size: Side of their crops in pixels.
        pool_long_side: Range of their longest side before they are cropped.
        seed: Of the pool's pictures and crops and of the order in which others are drawn.
        preset: `"official"` or `"paper"`.
        precision: `"bfloat16"` runs the network under autocast; maps, losses and weights stay as
            they are.
        channels_last: Lay the copy's weights and pictures out as the GPU's convolutions like it.
    """

    steps: Annotated[int, AtLeast(1)] = 10
    lr: Annotated[float, AtLeast(0)] = 8e-6
    head_factor: float = 10.0
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    power: float = 0.9
    pooling: Literal["gndrp", "gap"] = "gndrp"
    tau: float = 0.4
    loss: Loss = "rib"
    margin: float = 600.0
    explode: float = 0.3
    explode_ratio: float = 0.7
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    loss_scales: tuple[float, ...] = (1.0, 1.5, 2.0)
    flip: bool = True
    train_from: Annotated[int, AtLeast(0)] = 8
    others: Pool | Literal["sampled", "expected"] | None = None
    num_others: Annotated[int, AtLeast(0)] = 20
    pool_pictures: Annotated[int, AtLeast(1)] = 128
    pool_size: Annotated[int, AtLeast(1)] = 512
    pool_long_side: tuple[int, ...] = (320, 640)
    seed: int = 0
    preset: Preset = "official"
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
