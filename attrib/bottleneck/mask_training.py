"""Training a mask model: how β is controlled, one step, and the loop around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.bottleneck.mask_model import MaskModel
from attrib.bottleneck.mask_terms import MaskTerms
from attrib.errors import InputError

__all__ = ["BetaControl", "MaskStep", "mask_step", "train_mask_model", "warm_up_classifier"]

RATE, BAND = 1.01, 0.05
"""Adaptive β moves by this factor when V is further than this fraction from its target."""
LOWEST, HIGHEST = 1e-6, 1e3


@dataclass(frozen=True, kw_only=True)
class BetaControl:
    """The weight β of the autoencoder's terms, and how it follows their size V.

    With too small a β the mask becomes transparent, with too large a one opaque.

    | kind | what happens |
    |---|---|
    | `fixed` | nothing |
    | `gate` | while V is below the target, β's terms do not train the mask network |
    | `adaptive` | β grows by 1 % a step while V is 5 % above the target, shrinks when 5 % below |

    Deviation: the gate follows the batch before, since V is known only after the step is taken; it
    also stops the entropy's gradient, without which the mask's probabilities drift to a half. The
    paper does not give the rate of the adaptive β.

    Args:
        kind: See above.
        beta: Weight to begin with.
        target: For V, in nats; `fixed` ignores it.
        gated: Whether the gate is closed.
        highest: β does not grow beyond.
    """

    kind: Literal["fixed", "gate", "adaptive"] = "adaptive"
    beta: float = 0.01
    target: float = 12.0
    gated: bool = False
    highest: float = HIGHEST

    def __post_init__(self) -> None:
        if self.kind not in ("fixed", "gate", "adaptive"):
            raise InputError(f"beta is 'fixed', 'gate' or 'adaptive', got {self.kind!r}")
        if self.beta < 0 or self.target <= 0:
            raise InputError(
                f"beta is 0 or more and the target positive, got {self.beta} and {self.target}"
            )

    def after(self, vae: float) -> BetaControl:
        """Return the control for the batch after one whose mean V was `vae`."""
        if self.kind == "gate":
            return replace(self, gated=vae < self.target)
        if self.kind == "fixed" or abs(vae / self.target - 1) <= BAND:
            return self
        beta = self.beta * (RATE if vae > self.target else 1 / RATE)
        return replace(self, beta=min(max(beta, LOWEST), self.highest))


@dataclass(frozen=True, kw_only=True)
class MaskStep:
    """One step of the training, as means over its batch.

    Args:
        step: Counted from 1.
        loss: In nats, as all below but β.
        cross_entropy: See `MaskTerms`.
        entropy: See `MaskTerms`.
        vae: V, the whole cost of what is seen.
        beta: Weight that the step was taken with.
    """

    step: int
    loss: float
    cross_entropy: float
    entropy: float
    vae: float
    beta: float


def mask_step(
    model: MaskModel,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    control: BetaControl,
    generator: torch.Generator,
) -> tuple[Float[Tensor, ""], MaskTerms]:
    """Compute a batch's mean loss, which carries the gradients, and its terms."""
    noise = model.noise(images, generator)
    terms = model.terms(images, labels, noise, gated=control.gated)
    return terms.loss(model.options.objective, control.beta).mean(), terms


def train_mask_model(
    model: MaskModel,
    images: Float[Tensor, "m c h w"],
    labels: Int[Tensor, " m"],
    *,
    control: BetaControl | None = None,
    steps: int = 3000,
    batch: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    watch: Callable[[MaskStep], None] | None = None,
) -> list[MaskStep]:
    """Train with Adam on batches drawn without replacement, epoch after epoch.

    Args:
        model: Is changed; it and the pictures are on one device.
        images: In [0, 1].
        labels: Classes.
        control: Of β; None for an adaptive one with the architecture's own target.
        steps: Batches to learn from.
        batch: Pictures in a batch.
        lr: Learning rate; the paper gives none.
        seed: Of batches and noise; the random state of PyTorch is not touched.
        watch: Is called after every step.

    Returns:
        What was seen at each step.

    Raises:
        InputError: no pictures, or the loss is not finite.
    """
    control = control or BetaControl(target=model.architecture.target)
    if model.options.objective == "ceb":
        control = replace(control, highest=min(control.highest, 0.99))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    history = list[MaskStep]()
    for step, (x, y) in enumerate(_batches(images, labels, steps, batch, generator), 1):
        loss, terms = mask_step(model, x, y, control, generator)
        _descend(optimizer, loss, step)
        history.append(_record(step, loss, terms, control))
        if watch is not None:
            watch(history[-1])
        control = control.after(history[-1].vae)
    return history


def warm_up_classifier(
    model: MaskModel,
    images: Float[Tensor, "m c h w"],
    labels: Int[Tensor, " m"],
    *,
    steps: int,
    batch: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
) -> None:
    """Train the classifier alone on whole pictures, at a fraction of a joint step's cost.

    Deviation: the paper trains everything at once. Its classifiers are slow to learn, and a mask
    that has a price closes before they do. What is reached here is also the paper's yardstick:
    under a good mask the accuracy is hardly lower.

    Args:
        model: Its classifier is changed.
        images: In [0, 1].
        labels: Classes.
        steps: Batches to learn from.
        batch: Pictures in a batch.
        lr: Learning rate of Adam.
        seed: Of the batches.

    Raises:
        InputError: no pictures, or the loss is not finite.
    """
    optimizer = torch.optim.Adam(model.classifier.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for step, (x, y) in enumerate(_batches(images, labels, steps, batch, generator), 1):
        logits = model.classify(x, torch.ones_like(x[:, :1]))
        _descend(optimizer, F.cross_entropy(logits, y), step)


def _batches(
    images: Tensor, labels: Tensor, steps: int, batch: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw without replacement, epoch after epoch; an epoch's last batch may be smaller."""
    if not len(images) or len(images) != len(labels) or batch < 1:
        raise InputError(f"got {len(images)} pictures, {len(labels)} labels, batches of {batch}")
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if not len(order):
            order = torch.randperm(len(images), generator=generator)
        chosen, order = order[:batch].to(images.device), order[batch:]
        yield images[chosen], labels[chosen]


def _descend(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""], step: int) -> None:
    if not math.isfinite(loss.item()):
        raise InputError(f"the loss is {loss.item()} at step {step}; take a lower lr")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _record(step: int, loss: Tensor, terms: MaskTerms, control: BetaControl) -> MaskStep:
    return MaskStep(
        step=step,
        loss=loss.item(),
        cross_entropy=terms.cross_entropy.mean().item(),
        entropy=terms.entropy.mean().item(),
        vae=terms.seen.total.mean().item(),
        beta=control.beta,
    )
