"""SOAP: Adam in the axes along which a weight matrix's gradients vary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError

__all__ = ["SOAP"]


class SOAP(torch.optim.Optimizer):
    r"""Adam in the eigenvectors of Shampoo's two factors, for small networks of convolutions.

    $$L \leftarrow \beta_2 L + (1 - \beta_2) G G^\top, \quad R \leftarrow \beta_2 R + (1 - \beta_2)
    G^\top G, \quad \Delta W = -\eta\, Q_L\, \mathrm{Adam}(Q_L^\top G Q_R)\, Q_R^\top$$

    Vyas et al., *SOAP: Improving and Stabilizing Shampoo using Adam*, algorithm 3. G is a gradient
    as a matrix of one row per output channel. The eigenvectors Q are renewed by one step of
    the power method and a QR decomposition. The momentum is kept in the matrix's own axes, and the
    first step only fills the factors. Deviations: no weight decay; a vector is a matrix of one
    column; no move along an axis is longer than the rate, since just after a renewal the squares
    can belong to a direction that had no gradient.

    Meant for matrices of a few hundred rows and columns; each step costs a few products of them.

    Args:
        params: To be trained, as any optimiser takes them.
        lr: Step size, that of Adam.
        betas: Of the momentum; of the squares and of the factors.
        eps: Added to the root of the squares.
        every: Steps between two renewals of the eigenvectors.

    Raises:
        InputError: an option out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        every: int = 10,
    ) -> None:
        if lr < 0 or eps <= 0 or every < 1 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(
                "lr is 0 or more, eps positive, every 1 or more, betas in [0, 1); "
                f"got {lr}, {eps}, {every} and {betas}"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "every": every})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step along the gradients; there is no closure.

        Raises:
            InputError: a closure is given.
        """
        if closure is not None:
            raise InputError("SOAP takes no closure; compute the gradients before the step")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    _descend(weight, weight.grad, group, self.state[weight])


def _descend(
    weight: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]
) -> None:
    matrix = gradient.reshape(len(gradient) if gradient.ndim else 1, -1)
    if not state:
        state.update(_begin(matrix))
        return
    state["step"] += 1
    weight.add_(_update(matrix, group, state).view(weight.shape), alpha=-group["lr"])
    _learn_axes(matrix, group, state)


def _begin(gradient: Float[Tensor, "k j"]) -> dict[str, Any]:
    rows, columns = gradient @ gradient.T, gradient.T @ gradient
    return {
        "step": 0,
        "momentum": torch.zeros_like(gradient),
        "squares": torch.zeros_like(gradient),
        "rows": rows,
        "columns": columns,
        "row_axes": torch.linalg.eigh(rows)[1],
        "column_axes": torch.linalg.eigh(columns)[1],
    }


def _update(
    gradient: Float[Tensor, "k j"], group: dict[str, Any], state: dict[str, Any]
) -> Float[Tensor, "k j"]:
    """Return Adam's direction, computed along the axes."""
    (slow, fast), step = group["betas"], state["step"]
    left, right = state["row_axes"], state["column_axes"]
    turned = left.T @ gradient @ right
    state["momentum"].lerp_(gradient, 1 - slow)
    state["squares"].lerp_(turned.square(), 1 - fast)
    momentum = left.T @ state["momentum"] @ right / (1 - slow**step)
    scale = (state["squares"] / (1 - fast**step)).sqrt() + group["eps"]
    direction: Tensor = left @ (momentum / scale).clamp(-1, 1) @ right.T
    return direction


def _learn_axes(
    gradient: Float[Tensor, "k j"], group: dict[str, Any], state: dict[str, Any]
) -> None:
    for dim, (product, factor, axes) in enumerate(
        (
            (gradient @ gradient.T, "rows", "row_axes"),
            (gradient.T @ gradient, "columns", "column_axes"),
        )
    ):
        state[factor].lerp_(product, 1 - group["betas"][1])
        if state["step"] % group["every"] == 0:
            grown = state[factor] @ state[axes]
            order = (state[axes] * grown).sum(0).argsort(descending=True)  # as QR will leave them
            state["squares"] = state["squares"].index_select(dim, order)
            state[axes] = torch.linalg.qr(grown[:, order])[0]
