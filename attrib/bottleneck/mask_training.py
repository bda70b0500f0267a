"""Training a mask model: how β is controlled, one step, and the loop around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from attrib.bottleneck.mask_layers import settle
from attrib.bottleneck.mask_model import MaskModel
from attrib.bottleneck.mask_terms import MaskTerms, masked
from attrib.errors import InputError

__all__ = ["BetaControl", "MaskStep", "mask_step", "train_mask_model", "warm_up_classifier"]

BAND, SLACK = 0.05, 1.3
"""Adaptive β rests within this fraction of its target, and up to this multiple of `most`."""
MEMORY = 0.95
"""Of the running means that β follows."""
CLIP = 5.0
"""Longest gradient of a joint step; a mask that closes at once makes some that are far longer."""
LOWEST, HIGHEST = 1e-6, 1e3
SAMPLE = 512
"""Pictures that networks are settled on."""


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
        most: Nats that the class may cost: an adaptive β does not grow beyond, and shrinks where
            it is 1.3 times that, so that the classifier does not lose what it needs.
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
        if size > (1 + BAND) * self.target and cross_entropy <= self.most:
            return replace(self, beta=min(self.beta * self.rate, self.highest))
        if size < (1 - BAND) * self.target or cross_entropy > SLACK * self.most:
            return replace(self, beta=max(self.beta / self.rate, LOWEST))
        return self


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

    The rate rises over the first tenth of the steps, 200 at most, and falls to nothing over the
    last three tenths; long gradients are cut. The paper says nothing of that.

    Args:
        model: Is changed; it and the pictures are on one device.
        images: In [0, 1].
        labels: Classes.
        control: Of β, which follows running means; None for an adaptive one with the
            architecture's own target.
        steps: Batches to learn from.
        batch: Pictures in a batch.
        lr: Highest learning rate; the paper gives none.
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
    rates = LambdaLR(optimizer, lambda step: _height(step, steps))
    generator = torch.Generator().manual_seed(seed)
    history, means = list[MaskStep](), dict[str, float]()
    for step, (x, y) in enumerate(_batches(images, labels, steps, batch, generator), 1):
        loss, terms = mask_step(model, x, y, control, generator)
        _descend(optimizer, loss, step, rates, model.parameters())
        history.append(_record(step, loss, terms, control))
        if watch is not None:
            watch(history[-1])
        for name in ("vae", "entropy", "cross_entropy"):
            now = getattr(history[-1], name)
            means[name] = MEMORY * means.get(name, now) + (1 - MEMORY) * now
        control = control.after(**means)
    return history


def _height(step: int, steps: int) -> float:
    """Fraction of the highest learning rate."""
    rise = min(200, max(1, steps // 10))
    return min(1.0, (step + 1) / rise, max(0.02, (steps - step) / (0.3 * steps)))


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
    """Train the classifier alone, at a fraction of a joint step's cost, and begin the mask with it.

    Deviation: the paper trains everything at once. Its classifiers are slow to learn, and a mask
    that has a price closes before they do. Here the classifier's units first get a mean of a half
    and a variance of one on the pictures (narrow rectified networks starve otherwise). Then it
    learns from pictures under random masks, of densities from a tenth to the whole, so that it can
    tell the class from what a mask will leave, at a rate that rises and falls again. In the end
    the first half of the mask network, where it has the classifier's layers, takes their weights:
    what tells the class is what should stay visible.

    Args:
        model: Its classifier is changed, and the mask network's first half.
        images: In [0, 1].
        labels: Classes.
        steps: Batches to learn from.
        batch: Pictures in a batch.
        lr: Highest learning rate of Adam.
        seed: Of batches and masks.

    Raises:
        InputError: no pictures, or the loss is not finite.
    """
    first = images[:SAMPLE]
    settle(model.classifier, masked(first, torch.ones_like(first[:, :1])))
    settle(model.mask, first, last=False)
    optimizer = torch.optim.Adam(model.classifier.parameters(), lr=lr)
    rates = OneCycleLR(optimizer, lr, total_steps=max(2, steps))
    generator = torch.Generator().manual_seed(seed)
    for step, (x, y) in enumerate(_batches(images, labels, steps, batch, generator), 1):
        density = 0.1 + 1.6 * torch.rand(len(x), 1, 1, 1, generator=generator)  # half are whole
        mask = torch.rand(len(x), 1, *x.shape[2:], generator=generator) < density
        loss = F.cross_entropy(model.classify(x, mask.to(x)), y)
        _descend(optimizer, loss, step, rates)
    model.begin_mask()


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


def _descend(
    optimizer: torch.optim.Optimizer,
    loss: Float[Tensor, ""],
    step: int,
    rates: LRScheduler,
    clipped: Iterable[nn.Parameter] = (),
) -> None:
    if not math.isfinite(loss.item()):
        raise InputError(f"the loss is {loss.item()} at step {step}; take a lower lr")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(clipped, CLIP)
    optimizer.step()
    rates.step()


def _record(step: int, loss: Tensor, terms: MaskTerms, control: BetaControl) -> MaskStep:
    return MaskStep(
        step=step,
        loss=loss.item(),
        cross_entropy=terms.cross_entropy.mean().item(),
        entropy=terms.entropy.mean().item(),
        vae=terms.seen.total.mean().item(),
        beta=control.beta,
    )
