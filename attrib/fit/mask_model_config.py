"""The constants of a mask model's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from attrib.bottleneck.mask_control import BetaControl
from attrib.bottleneck.mask_terms import Objective
from attrib.errors import InputError
from attrib.registry import AtLeast, check_fields

__all__ = ["MaskModelConfig"]


@dataclass(frozen=True, kw_only=True)
class MaskModelConfig:
    """How a mask model is trained. The paper leaves open every constant here but `target`.

    Args:
        epochs: Passes over the pictures with everything at once.
        warm_up: Passes with the classifier alone, before; 0 for none.
        whole: Share of the warm-up, from its start, in which nothing is masked.
        batch_size: Pictures per step; an incomplete last batch is left out.
        optimiser: `"soap"`, see `attrib.fit.SOAP`, or `"adam"`.
        lr: Highest learning rate of the joint training.
        warm_up_lr: Of the warm-up.
        control: How β follows V, see `BetaControl`, also for the next five.
        beta: Weight to begin with.
        target: Goal for V in nats, with `net` for V minus the mask's entropy; None for the
            architecture's own.
        net: Hold V minus the mask's entropy.
        rate: Factor that an adaptive β moves by in a step.
        most: Nats that the class may cost.
        seed: Of order, masks and noise.

    Raises:
        SpecError: an option of a wrong type or out of its range.
        InputError: `whole` or an option of β out of its range.
    """

    name: ClassVar[str] = "fit mask model"
    epochs: Annotated[int, AtLeast(1)] = 8
    warm_up: Annotated[int, AtLeast(0)] = 4
    whole: float = 0.5
    batch_size: Annotated[int, AtLeast(1)] = 64
    optimiser: Literal["soap", "adam"] = "soap"
    lr: Annotated[float, AtLeast(0)] = 3e-3
    warm_up_lr: Annotated[float, AtLeast(0)] = 1e-2
    control: Literal["fixed", "gate", "adaptive"] = "adaptive"
    beta: Annotated[float, AtLeast(0)] = 2e-3
    target: float | None = None
    net: bool = False
    rate: float = 1.01
    most: float = BetaControl.most
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.whole <= 1:
            raise InputError(f"whole is a share of the warm-up in [0, 1], got {self.whole}")
        self.control_of(1.0, "ib")

    def control_of(self, target: float, objective: Objective) -> BetaControl:
        """Return how β begins, given the architecture's own target."""
        return BetaControl(
            kind=self.control,
            beta=self.beta,
            target=target if self.target is None else self.target,
            net=self.net,
            rate=self.rate,
            most=self.most,
            highest=0.99 if objective == "ceb" else BetaControl.highest,
        )
