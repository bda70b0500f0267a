"""AIB's quantiser: attention scores rounded to the nearest of a few learnable anchors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError

__all__ = ["Quantised", "Quantiser"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantised:
    """Rounded scores, and the two terms that bring anchors and scores together.

    Args:
        values: The nearest anchors; their gradient is handed to the scores unaltered.
        index: Which anchor each score was rounded to.
        vq: Mean squared distance, with a gradient for the anchors alone.
        commit: The same number, with a gradient for the scores alone.
    """

    values: Float[Tensor, "*shape"]
    index: Int[Tensor, "*shape"]
    vq: Float[Tensor, ""]
    commit: Float[Tensor, ""]


@final
class Quantiser(nn.Module):
    r"""Round each score to its nearest anchor, of two equally near to the one listed first.

    $$a_q = v_k, \quad k = \arg\min_j (a - v_j)^2$$

    Lai et al., eq. 9 and 10. Deviation: both terms are means over all scores, as in the authors'
    code, not sums; `AIBObjective(distance="sum")` takes sums.

    Args:
        anchors: How many, 2 or more; at first they divide [0, 1] evenly.

    Raises:
        InputError: fewer than 2 anchors.
    """

    def __init__(self, anchors: int = 20) -> None:
        super().__init__()
        if anchors < 2:
            raise InputError(f"a quantiser rounds to 2 anchors or more, got {anchors}")
        self.anchors = nn.Parameter(torch.linspace(0, 1, anchors))

    def forward(self, scores: Float[Tensor, "*shape"]) -> Quantised:
        """Round scores of any shape."""
        index = (scores.detach()[..., None] - self.anchors.detach()).square().argmin(-1)
        nearest = self.anchors[index]
        return Quantised(
            values=scores + (nearest - scores).detach(),
            index=index,
            vq=F.mse_loss(nearest, scores.detach()),
            commit=F.mse_loss(scores, nearest.detach()),
        )
