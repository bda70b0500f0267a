"""How β, the weight of what is seen, follows how much is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from attrib.errors import InputError

__all__ = ["Beta", "BetaControl"]

BAND, SLACK = 0.05, 1.3
"""Adaptive β rests within this fraction of its target, and up to this multiple of `most`."""
HASTE = 10
"""β shrinks so many times as fast where the class is being lost: a mask that has closed does not
open again."""
LOWEST, HIGHEST = 1e-6, 1e3


@dataclass(frozen=True, kw_only=True)
class BetaControl:
    """The weight β of the autoencoder's terms, and how it follows their size V.

    With too small a β the mask becomes transparent, with too large a one opaque.

    | kind | what happens |
    |---|---|
    | `fixed` | nothing |
    | `gate` | while V is below the target, β's terms do not train the mask network |
    | `adaptive` | β grows while V is 5 % above the target, shrinks while 5 % below |

    Deviation: the gate follows the batches before, since V is known only after the step is taken;
    it also stops the entropy's gradient, without which the mask's probabilities drift to a half.
    The paper does not give the rate of the adaptive β, and holds V itself: most of that is the
    mask's own noise, which its entropy gives back, so that `net` says better how much is seen.

    Args:
        kind: See above.
        beta: Weight to begin with.
        target: For V, in nats; `fixed` ignores it.
        net: Hold V minus the mask's entropy at the target, instead of V.
        rate: Factor that an adaptive β moves by in a step.
        most: Nats that the class may cost: an adaptive β does not grow beyond, and shrinks ten
            times as fast where it is 1.3 times that, so that the classifier does not lose what it
            needs.
        gated: Whether the gate is closed.
        highest: β does not grow beyond.
    """

    kind: Literal["fixed", "gate", "adaptive"] = "adaptive"
    beta: float = 0.01
    target: float = 12.0
    net: bool = False
    rate: float = 1.01
    most: float = math.inf
    gated: bool = False
    highest: float = HIGHEST

    def __post_init__(self) -> None:
        if self.kind not in ("fixed", "gate", "adaptive"):
            raise InputError(f"beta is 'fixed', 'gate' or 'adaptive', got {self.kind!r}")
        if self.beta < 0 or self.target <= 0:
            raise InputError(
                f"beta is 0 or more and the target positive, got {self.beta} and {self.target}"
            )
        if self.rate < 1 or self.most <= 0:
            raise InputError(
                f"rate is 1 or more and most positive, got {self.rate} and {self.most}"
            )

    def after(self, vae: float, *, entropy: float = 0.0, cross_entropy: float = 0.0) -> BetaControl:
        """Return the control for the batch after those whose mean terms are given, in nats."""
        size = vae - entropy if self.net else vae
        if self.kind == "gate":
            return replace(self, gated=size < self.target)
        if self.kind == "fixed":
            return self
        if cross_entropy > SLACK * self.most:
            return replace(self, beta=max(self.beta / self.rate**HASTE, LOWEST))
        if size > (1 + BAND) * self.target and cross_entropy <= self.most:
            return replace(self, beta=min(self.beta * self.rate, self.highest))
        if size < (1 - BAND) * self.target:
            return replace(self, beta=max(self.beta / self.rate, LOWEST))
        return self


class Beta(nn.Module):
    """How β stands in a training: a buffer, so that it is saved with the weights.

    Args:
        control: How it begins and is controlled.
        memory: Of the running means that it follows, in [0, 1); 0 follows each batch by itself.
    """

    def __init__(self, control: BetaControl, memory: float = 0.0) -> None:
        super().__init__()
        self._rule, self._memory = control, memory
        state = [control.beta, control.gated, math.nan, math.nan, math.nan]
        self.register_buffer("state", torch.tensor(state, dtype=torch.float64))

    @property
    def control(self) -> BetaControl:
        """For the next batch."""
        beta, gated, *_ = self.state.tolist()  # type: ignore[operator]
        return replace(self._rule, beta=beta, gated=bool(gated))

    def follow(self, vae: float, entropy: float, cross_entropy: float) -> None:
        """Take a batch's mean terms into account, in nats."""
        _, _, *means = self.state.tolist()  # type: ignore[operator]
        means = [
            now if math.isnan(mean) else self._memory * mean + (1 - self._memory) * now
            for mean, now in zip(means, (vae, entropy, cross_entropy), strict=True)
        ]
        after = self.control.after(means[0], entropy=means[1], cross_entropy=means[2])
        state = torch.tensor([after.beta, after.gated, *means], dtype=torch.float64)
        self.state.copy_(state)  # type: ignore[operator]
