"""The loop of RIB on one picture, on a private copy of the model.

The frozen part runs once for the picture; where no gradient flows, none is recorded; the loss is a
sum, so its gradient is added up scale by scale and only one scale's activations are held at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib import surgery
from attrib.errors import InputError
from attrib.methods.rib.options import RIBOptions
from attrib.methods.rib.others import Drawn, Expectation
from attrib.methods.rib.pooling import loss_of, pool, positive
from attrib.models import SpatialClassifier
from attrib.models.learner import Learner, Prepared

__all__ = ["Others", "RIBTrace", "learner_for", "rib", "run"]

Others = tuple[Float[Tensor, "m _ h w"], Bool[Tensor, "m c"]]
"""Other pictures, normalised, and their labels."""
Reason = Literal["", "margin", "explode"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RIBTrace:
    """What one picture's loop leaves.

    Args:
        sums: Per scale, the summed positive class maps of all classes, `[c, u, v]`.
        logits: Per step, the pooled logits of all rows: views in order, then others.
        losses: Per step; of the rows there are, without what expected others would add.
        target_logits: Per step, the sum of the picture's logits over its rows in the loss.
        learning_rates: Per update, of trunk and head.
        stopped_at: The step at which the loop ended early; None if it did not.
        reason: `"margin"` or `"explode"`; empty if it did not.
        parameters: The trained weights at the end, by name.
        step_maps: Per step, the map of the first scale, if asked for.
    """

    sums: tuple[Float[Tensor, "c _u _v"], ...]
    logits: tuple[Float[Tensor, "_r c"], ...]
    losses: tuple[float, ...]
    target_logits: tuple[float, ...]
    learning_rates: tuple[tuple[float, float], ...]
    stopped_at: int | None
    reason: Reason
    parameters: dict[str, Tensor]
    step_maps: tuple[Float[Tensor, "c _u _v"], ...] = ()


def rib(
    classifier: SpatialClassifier | Learner,
    views: Sequence[Float[Tensor, "_r _ _h _w"]],
    labels: Bool[Tensor, " c"],
    others: Sequence[Others] = (),
    options: RIBOptions | None = None,
    *,
    keep_maps: bool = False,
) -> RIBTrace:
    """Run RIB's loop on one picture with everything given: what a replay or an extension needs.

    Args:
        classifier: The model, split; not changed. Or a `Learner`, to be used for many pictures.
        views: Per scale of `options.scales`, the normalised picture, and its mirror image if
            `options.flip`.
        labels: The picture's classes, multi-hot.
        others: Per step, other pictures and their labels; empty for none.
        options: RIB's options; `options.others` is not looked at.
        keep_maps: Keep the first scale's map of every step.

    Raises:
        InputError: a wrong number of views or of steps' others.
    """
    options = options or RIBOptions()
    if len(views) != len(options.scales):
        raise InputError(f"{len(views)} views for {len(options.scales)} scales")
    if others and len(others) != options.steps:
        raise InputError(f"others for {len(others)} steps, {options.steps} are run")
    learner = classifier if isinstance(classifier, Learner) else learner_for(classifier, options)
    with surgery.inference(learner.classifier.model):
        prepared = [learner.prepare(view) for view in views]
        drawn = [(learner.prepare(images), rows) for images, rows in others]
        given = drawn.__getitem__ if drawn else None
        return run(learner, prepared, labels, given, options, keep_maps=keep_maps)


def learner_for(classifier: SpatialClassifier, options: RIBOptions) -> Learner:
    """Copy a model for the loop."""
    return Learner(
        classifier,
        options.train_from,
        bfloat16=options.precision == "bfloat16",
        channels_last=options.channels_last,
    )


@torch.enable_grad()
def run(
    learner: Learner,
    views: Sequence[Prepared],
    labels: Bool[Tensor, " c"],
    others: Drawn | Expectation | None,
    options: RIBOptions,
    *,
    keep_maps: bool = False,
    only_sums: bool = False,
) -> RIBTrace:
    """Run the loop on views that have been through the frozen part.

    With `only_sums` what the maps do not depend on is left out of the trace and of the work: the
    weights at the end, and in the authors' loop all that is learned in the last step.
    """
    if not set(options.scales) & set(options.loss_scales):
        raise InputError("loss_scales names none of the scales")
    learner.reset()
    state = _Run(learner, views, labels, others, options, keep_maps)
    reason: Reason = ""
    unlearned = 1 if only_sums and options.preset == "official" else 0
    for step in range(options.steps - unlearned):
        reason = state.step(step)
        if reason:
            break
    if not reason and (unlearned or options.preset == "paper"):
        state.last_look(options.steps - unlearned)
    kept = () if only_sums else learner.trained()
    return RIBTrace(
        sums=tuple(s for s in state.sums if s is not None),
        logits=tuple(state.logits),
        losses=tuple(float(loss) for loss in state.losses),
        target_logits=tuple(state.target_logits),
        learning_rates=tuple(state.learning_rates),
        stopped_at=step if reason else None,
        reason=reason,
        parameters={name: p.detach().clone() for name, p in kept},
        step_maps=tuple(state.step_maps),
    )


class _Run:
    """The state of one picture's loop."""

    def __init__(
        self,
        learner: Learner,
        views: Sequence[Prepared],
        labels: Bool[Tensor, " c"],
        others: Drawn | Expectation | None,
        options: RIBOptions,
        keep_maps: bool,
    ) -> None:
        self.learner, self.views, self.labels, self.options = learner, views, labels, options
        self.others, self.keep_maps = others, keep_maps
        self.sums: list[Tensor | None] = [None] * len(views)
        self.logits: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.target_logits: list[float] = []
        self.learning_rates: list[tuple[float, float]] = []
        self.step_maps: list[Tensor] = []
        self.gradient: list[Tensor | None] = []
        self.names, self.parameters = zip(*learner.trained(), strict=True)
        trunk, head = learner.groups()
        self.optimizer = torch.optim.SGD(
            [{"params": params, "lr": 0.0} for params in (trunk, head)],
            lr=0.0,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )

    def step(self, step: int) -> Reason:
        """See all scales, update once; return why the loop should end, or nothing."""
        options = self.options
        self.gradient = [None] * len(self.parameters)
        rows, losses = [], []
        for i, scale in enumerate(options.scales):
            learns = scale in options.loss_scales
            with torch.set_grad_enabled(learns):
                maps = self.learner.class_maps(self.views[i])
            seen = self._see(i, maps)
            if i == 0 and self.keep_maps:
                self.step_maps.append(seen)
            if i == 0 and step and self._exploded(seen):
                return "explode"
            if learns:
                logits, loss = self._learn(maps, self.labels.expand(len(maps), -1))
                rows.append(logits)
                losses.append(loss)
        target = float(sum((logits * self.labels).sum() for logits in rows))
        if callable(self.others):
            prepared, labels = self.others(step)
            if len(labels):
                logits, loss = self._learn(self.learner.class_maps(prepared), labels)
                rows.append(logits)
                losses.append(loss)
        self._update(step)
        self.logits.append(torch.cat(rows))
        self.losses.append(torch.stack(losses).sum())
        self.target_logits.append(target)
        return "margin" if options.preset == "official" and abs(target) > options.margin else ""

    def last_look(self, step: int) -> None:
        """Add the maps after the last update to the sums, until one has exploded."""
        with torch.no_grad():
            for i, view in enumerate(self.views):
                seen = self._see(i, self.learner.class_maps(view))
                if i == 0 and step and self._exploded(seen):
                    return

    def _see(self, index: int, maps: Float[Tensor, "_r c u v"]) -> Float[Tensor, "c u v"]:
        seen = positive(maps)
        added = seen
        if self.options.preset == "paper":
            added = seen / seen.amax((1, 2), keepdim=True).clamp(min=1e-5)
        total = self.sums[index]
        self.sums[index] = added if total is None else total + added
        return seen

    def _exploded(self, seen: Float[Tensor, "c u v"]) -> bool:
        if self.options.preset == "paper":
            return False
        own = seen[self.labels]
        lit = own / (own.amax((1, 2), keepdim=True) + 1e-5) > self.options.explode
        return float(lit.any(0).float().mean()) > self.options.explode_ratio

    def _learn(
        self, maps: Float[Tensor, "n c u v"], labels: Bool[Tensor, "n c"]
    ) -> tuple[Float[Tensor, "n c"], Float[Tensor, ""]]:
        """Add the gradient of one part of the loss; return its logits and what it amounts to."""
        logits = pool(maps, labels, self.options)
        loss = loss_of(logits, labels, self.options)
        self._gather(torch.autograd.grad(loss, self.parameters, allow_unused=True))
        return logits.detach(), loss.detach()

    def _gather(self, gradients: Iterable[Tensor | None]) -> None:
        for i, gradient in enumerate(gradients):
            if gradient is not None:
                total = self.gradient[i]
                self.gradient[i] = gradient if total is None else total + gradient

    def _update(self, step: int) -> None:
        options = self.options
        if isinstance(self.others, Expectation):
            self._gather(self.others.gradient.get(name) for name in self.names)
        decay = (1 - step / options.steps) ** options.power if options.preset == "official" else 1.0
        rates = (options.lr * decay, options.lr * options.head_factor * decay)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for parameter, gradient in zip(self.parameters, self.gradient, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.learning_rates.append(rates)
