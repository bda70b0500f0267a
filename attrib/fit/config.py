"""The constants of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from attrib.errors import InputError
from attrib.registry import AtLeast, check_fields

__all__ = ["FitConfig"]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a classifier is trained: the published recipe for seeds, every constant an option.

    IRN's training of its ResNet-50 (Ahn et al., 2019), whose optimiser puts the weight decay in the
    momentum's place and so runs with next to none: `lr=0.1` goes with that. With `momentum=0.9`
    and for the cross-entropy, whose gradient is larger by the number of classes, take a rate of
    0.01 or less.

    Args:
        epochs: Passes over the pictures.
        batch_size: Pictures per step; an incomplete last batch is left out, unless it is the only
            one.
        lr: Learning rate of the trunk at the first step.
        head_factor: That of the head, as a multiple.
        weight_decay: On every trained weight.
        momentum: Of stochastic gradient descent.
        power: The rate at step t of T is its first value times (1 - t/T) to this power.
        long_side: Least and greatest, in pixels, to which a picture is resized.
        crop: Side of the square cut from it, in pixels.
        flip: Mirror every other picture.
        loss: `"soft-margin"`, the mean binary cross-entropy of independent classes, or
            `"cross-entropy"` where every picture has exactly one class.
        seed: Of order, crops and dropout.
        readers: Threads that read pictures ahead; with 0 they are read between the steps. Changes
            no result.
        bfloat16: Compute the loss under autocast.
        adl: Modules that attention-based dropout follows while training, such as those that
            `attrib.models.adl_places` finds. Nothing of it remains in the trained model.
        adl_p: How often it hides cells, in [0, 1]; else it weights them.
        adl_gamma: From which fraction of the maximum on it hides them, in [0, 1]; Choe and Shim
            have 0.8 in a VGG and 0.9 in a ResNet.
        train_norm: Normalise by each batch and update the running statistics; else these stay as
            they are, and scale and offset are trained alone.

    Raises:
        InputError: an option of a wrong type or out of its range.
    """

    name: ClassVar[str] = "fit"
    epochs: Annotated[int, AtLeast(1)] = 5
    batch_size: Annotated[int, AtLeast(1)] = 16
    lr: Annotated[float, AtLeast(0)] = 0.1
    head_factor: Annotated[float, AtLeast(0)] = 10.0
    weight_decay: Annotated[float, AtLeast(0)] = 1e-4
    momentum: Annotated[float, AtLeast(0)] = 1e-4
    power: Annotated[float, AtLeast(0)] = 0.9
    long_side: tuple[int, int] = (320, 640)
    crop: Annotated[int, AtLeast(1)] = 512
    flip: bool = True
    loss: Literal["soft-margin", "cross-entropy"] = "soft-margin"
    seed: Annotated[int, AtLeast(0)] = 0
    readers: Annotated[int, AtLeast(0)] = 0
    bfloat16: bool = False
    adl: tuple[str, ...] = ()
    adl_p: Annotated[float, AtLeast(0)] = 0.75
    adl_gamma: Annotated[float, AtLeast(0)] = 0.8
    train_norm: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.long_side) != 2 or not 1 <= self.long_side[0] <= self.long_side[1]:
            raise InputError(
                f"fit: long_side is (least, greatest) in pixels, got {self.long_side!r}"
            )
