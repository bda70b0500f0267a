"""RIB: fine-tune on the picture itself, without the final activation, and add up the maps.

The loop works on a private copy of the model. Its frozen part is run once for the picture and once
for the pool of other pictures; where no gradient flows, none is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.errors import InputError
from attrib.methods.base import METHODS, Method
from attrib.models import SpatialClassifier
from attrib.models.learner import Learner, Prepared
from attrib.registry import AtLeast
from attrib.types import Attribution, TargetRule

__all__ = ["RIB", "Others", "Pool", "RIBTrace", "gndrp", "multi_scale_cam", "rib"]

Preset = Literal["official", "paper"]
Loss = Literal["rib", "sigmoid", "tanh", "softsign"]
Others = tuple[Float[Tensor, "m _ h w"], Bool[Tensor, "m c"]]
"""Other pictures, normalised, and their labels."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pool:
    """Pictures to draw others from: those that share no class with the picture explained.

    Args:
        images: Normalised as the model's spec says, all of one size.
        labels: Multi-hot.
    """

    images: Float[Tensor, "m _ h w"]
    labels: Bool[Tensor, "m c"]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise InputError(f"{len(self.images)} images, {len(self.labels)} rows of labels")

    def __repr__(self) -> str:
        return f"<Pool of {len(self.images)} pictures>"


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class RIB(Method):
    r"""Maps of a model that is fine-tuned on the picture with nothing to saturate.

    $$\theta_k = \theta_{k-1} - \lambda_k \nabla_\theta \mathcal{L}, \quad
    \mathcal{L} = -\sum_c t_c\, \mathrm{GNDRP}(M_c), \quad
    \mathrm{GNDRP}(M) = \tfrac{1}{|U|}\sum_{u:\, M(u) / \max M < \tau} M(u)$$

    and the answer is the sum of the class maps' positive part over steps, scales and mirror images.
    Lee et al., *Reducing Information Bottleneck for Weakly Supervised Semantic Segmentation*,
    eqs. 3 to 6. `preset="official"` is the authors' code: the loop stops early at the margin or
    when the map explodes, the learning rate decays, raw maps are added before each update, and the
    mean of GNDRP is over the whole grid. `preset="paper"` is the text: the margin clamps each
    logit, the rate is constant, maps are divided by their maximum and also added after the last
    update, and the mean is over the selected cells. Weight decay and momentum are options in both;
    the default momentum of 1e-4 is a slip of the authors' code, where the weight decay lands in
    the momentum's place. Deviation: every class is pooled by GNDRP, where the authors' code pools
    those beyond the twentieth by their plain mean.

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
        others: Other pictures in each step's batch; None for the picture alone.
        num_others: How many of them.
        seed: Of the order in which others are drawn.
        preset: `"official"` or `"paper"`.
    """

    name = "rib"
    per_target = False
    summary = "maps summed while the model is fine-tuned on the picture, without its saturation"
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
    others: Pool | None = None
    num_others: Annotated[int, AtLeast(0)] = 20
    seed: int = 0
    preset: Preset = "official"

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; maps are sums over scales, on the largest scale's grid."""
        with surgery.inference(classifier.model):
            logits = classifier.forward(images).logits
            pairs = targets(logits)
            learner = Learner(classifier, self.train_from)
            pool = None if self.others is None else _Prepared(learner, self.others)
            out = []
            for index in range(len(images)):
                label = pairs.label[pairs.image == index]
                if len(label):
                    out.append(self._image(learner, pool, images[index], label, logits.shape[1]))
        largest = max(self.scales)
        if not out:
            u, v = learner.class_maps(learner.prepare(_resized(images[:1], largest))).shape[2:]
            out = [images.new_zeros(0, u, v)]
        return self._result(classifier, images, torch.cat(out), pairs, logits)

    def _image(
        self,
        learner: Learner,
        pool: _Prepared | None,
        image: Float[Tensor, "_ h w"],
        label: Tensor,
        classes: int,
    ) -> Float[Tensor, "n u v"]:
        views = [_view(_resized(image[None], scale), self.flip) for scale in self.scales]
        labels = torch.zeros(classes, dtype=torch.bool, device=image.device)
        labels[label] = True
        drawn = pool.draw(labels, self) if pool is not None else []
        sums = _loop(learner, [learner.prepare(v) for v in views], labels, drawn, self).sums
        size = max((s.shape[1:] for s in sums), key=lambda s: s[0] * s[1])
        resized = [F.interpolate(s[None, label], size=size, mode="bilinear")[0] for s in sums]
        return torch.stack(resized).sum(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class RIBTrace:
    """What one picture's loop leaves.

    Args:
        sums: Per scale, the summed positive class maps of all classes, `[c, u, v]`.
        logits: Per step, the pooled logits of all rows: views in order, then others.
        losses: Per step.
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
    reason: Literal["", "margin", "explode"]
    parameters: dict[str, Tensor]
    step_maps: tuple[Float[Tensor, "c _u _v"], ...] = ()


def rib(
    classifier: SpatialClassifier | Learner,
    views: Sequence[Float[Tensor, "_r _ _h _w"]],
    labels: Bool[Tensor, " c"],
    others: Sequence[Others] = (),
    options: RIB | None = None,
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
        options: The method's options; `options.others` is not looked at.
        keep_maps: Keep the first scale's map of every step.

    Raises:
        InputError: a wrong number of views or of steps' others.
    """
    options = options or RIB()
    if len(views) != len(options.scales):
        raise InputError(f"{len(views)} views for {len(options.scales)} scales")
    if others and len(others) != options.steps:
        raise InputError(f"others for {len(others)} steps, {options.steps} are run")
    if isinstance(classifier, Learner):
        learner = classifier
    else:
        learner = Learner(classifier, options.train_from)
    with surgery.inference(learner.classifier.model):
        prepared = [learner.prepare(view) for view in views]
        drawn = [(learner.prepare(images), rows) for images, rows in others]
        return _loop(learner, prepared, labels, drawn, options, keep_maps=keep_maps)


def multi_scale_cam(
    classifier: SpatialClassifier, views: Sequence[Float[Tensor, "_r _ _h _w"]]
) -> list[Float[Tensor, "c _u _v"]]:
    """Add each scale's positive class maps of the picture and, flipped back, its mirror image.

    Args:
        classifier: The model, split.
        views: Per scale, the normalised picture, and its mirror image if there is a second row.
    """
    return [_positive(classifier.class_maps(classifier.forward(view).grid)) for view in views]


def gndrp(
    maps: Float[Tensor, "n c u v"],
    labels: Bool[Tensor, "n c"],
    tau: float,
    *,
    preset: Preset = "official",
) -> Float[Tensor, "n c"]:
    """Pool class maps over their global non-discriminative region.

    For a class that a row is labelled with, cells from `tau` of its maximum on are left out; other
    classes are pooled over all cells. A class whose maximum is negative is left out entirely, and
    gives 0 without a gradient.

    Args:
        maps: Raw class maps.
        labels: Each row's classes.
        tau: See `RIB`.
        preset: `"official"` selects below `tau` and divides by all cells; `"paper"` selects up to
            and including `tau` and divides by the selected cells.
    """
    ratio = (maps / maps.amax((2, 3), keepdim=True)).detach()
    ratio = torch.where(labels[:, :, None, None], ratio, -1)
    if preset == "official":
        return (maps * (ratio < tau)).mean((2, 3))
    selected = ratio <= tau
    return (maps * selected).sum((2, 3)) / selected.sum((2, 3)).clamp(min=1)


class _Prepared:
    """A pool that has been through the frozen part once."""

    def __init__(self, learner: Learner, pool: Pool) -> None:
        self._pool = pool
        self._features = [learner.prepare(part) for part in pool.images.split(16)]

    def draw(self, labels: Bool[Tensor, " c"], options: RIB) -> list[tuple[Prepared, Tensor]]:
        """Draw each step's others without replacement among those that share no class."""
        pool = self._pool
        disjoint = (pool.labels.float() @ labels.to(pool.labels.device).float() == 0).nonzero()
        rows, count = disjoint.flatten().cpu(), options.num_others
        if len(rows) < max(count, 1):
            raise InputError(
                f"the pool has {len(rows)} pictures that share no class with this one, "
                f"num_others={count} are wanted"
            )
        generator = torch.Generator().manual_seed(options.seed)
        drawn = []
        for _ in range(options.steps):
            pick = rows[torch.randperm(len(rows), generator=generator)[:count]]
            features = torch.cat([self._features[i // 16].features[i % 16][None] for i in pick])
            prepared = Prepared(features=features, size=self._features[0].size)
            drawn.append((prepared, pool.labels[pick.to(pool.labels.device)]))
        return drawn


def _resized(images: Float[Tensor, "b _ h w"], scale: float) -> Float[Tensor, "b _ _h _w"]:
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    resized = F.interpolate(images.float(), size=size, mode="bicubic", antialias=True)
    return resized.to(images.dtype)


def _view(image: Float[Tensor, "1 _ h w"], flip: bool) -> Float[Tensor, "_r _ h w"]:
    return torch.cat([image, image.flip(3)]) if flip else image


def _positive(maps: Float[Tensor, "_r c u v"]) -> Float[Tensor, "c u v"]:
    maps = maps.detach().relu()
    return maps[0] + maps[1].flip(2) if len(maps) == 2 else maps[0]


@torch.enable_grad()
def _loop(
    learner: Learner,
    views: Sequence[Prepared],
    labels: Bool[Tensor, " c"],
    others: Sequence[tuple[Prepared, Tensor]],
    options: RIB,
    *,
    keep_maps: bool = False,
) -> RIBTrace:
    learner.reset()
    run = _Run(learner, views, labels, options, keep_maps)
    reason: Literal["", "margin", "explode"] = ""
    for step in range(options.steps):
        reason = run.step(step, others[step] if others else None)
        if reason:
            break
    if options.preset == "paper" and not reason:
        run.see(step=None)
    return RIBTrace(
        sums=tuple(s for s in run.sums if s is not None),
        logits=tuple(run.logits),
        losses=tuple(run.losses),
        target_logits=tuple(run.target_logits),
        learning_rates=tuple(run.learning_rates),
        stopped_at=step if reason else None,
        reason=reason,
        parameters={name: p.detach().clone() for name, p in learner.trained()},
        step_maps=tuple(run.step_maps),
    )


class _Run:
    """The state of one picture's loop."""

    def __init__(
        self,
        learner: Learner,
        views: Sequence[Prepared],
        labels: Bool[Tensor, " c"],
        options: RIB,
        keep_maps: bool,
    ) -> None:
        self.learner, self.views, self.labels, self.options = learner, views, labels, options
        self.keep_maps = keep_maps
        self.sums: list[Tensor | None] = [None] * len(views)
        self.logits: list[Tensor] = []
        self.losses: list[float] = []
        self.target_logits: list[float] = []
        self.learning_rates: list[tuple[float, float]] = []
        self.step_maps: list[Tensor] = []
        trunk, head = learner.groups()
        self.optimizer = torch.optim.SGD(
            [{"params": params, "lr": 0.0} for params in (trunk, head)],
            lr=0.0,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )

    def step(
        self, step: int, others: tuple[Prepared, Tensor] | None
    ) -> Literal["", "margin", "explode"]:
        """See all scales, update once; return why the loop should end, or nothing."""
        options = self.options
        rows = self.see(step)
        if rows is None:
            return "explode"
        labels = self.labels.expand(len(rows), -1)
        if others is not None and len(others[1]):
            prepared, other_labels = others
            other_labels = other_labels.to(rows.device)
            pooled = self._pool(self.learner.class_maps(prepared), other_labels)
            rows, labels = torch.cat([rows, pooled]), torch.cat([labels, other_labels])
        own = len(labels) - (0 if others is None else len(others[1]))
        loss = LOSSES[options.loss](self._clamped(rows), labels)
        target = float((rows[:own].detach() * labels[:own]).sum())
        self._update(step, loss)
        self.logits.append(rows.detach())
        self.losses.append(float(loss.detach()))
        self.target_logits.append(target)
        return "margin" if options.preset == "official" and abs(target) > options.margin else ""

    def see(self, step: int | None) -> Tensor | None:
        """Add every scale's map to the sums; return the pooled rows of the loss.

        Returns None when the first scale's map has exploded: then the others are not seen. After
        the last update (`step` None) nothing is pooled.
        """
        rows = []
        for i, (view, scale) in enumerate(zip(self.views, self.options.scales, strict=True)):
            learns = step is not None and scale in self.options.loss_scales
            with torch.set_grad_enabled(learns):
                maps = self.learner.class_maps(view)
            positive = _positive(maps)
            self._add(i, positive)
            if i == 0 and step is not None and self.keep_maps:
                self.step_maps.append(positive)
            if i == 0 and step and self._exploded(positive):
                return None
            if learns:
                rows.append(self._pool(maps, self.labels.expand(len(maps), -1)))
        if step is not None and not rows:
            raise InputError("loss_scales names none of the scales")
        return torch.cat(rows) if rows else None

    def _add(self, index: int, positive: Float[Tensor, "c u v"]) -> None:
        if self.options.preset == "paper":
            positive = positive / positive.amax((1, 2), keepdim=True).clamp(min=1e-5)
        seen = self.sums[index]
        self.sums[index] = positive if seen is None else seen + positive

    def _exploded(self, positive: Float[Tensor, "c u v"]) -> bool:
        if self.options.preset == "paper":
            return False
        own = positive[self.labels]
        lit = own / (own.amax((1, 2), keepdim=True) + 1e-5) > self.options.explode
        return float(lit.any(0).float().mean()) > self.options.explode_ratio

    def _pool(self, maps: Float[Tensor, "n c u v"], labels: Tensor) -> Float[Tensor, "n c"]:
        if self.options.pooling == "gap":
            return maps.mean((2, 3))
        return gndrp(maps, labels, self.options.tau, preset=self.options.preset)

    def _clamped(self, rows: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        return rows.clamp(max=self.options.margin) if self.options.preset == "paper" else rows

    def _update(self, step: int, loss: Tensor) -> None:
        options = self.options
        decay = (1 - step / options.steps) ** options.power if options.preset == "official" else 1.0
        rates = (options.lr * decay, options.lr * options.head_factor * decay)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = torch.autograd.grad(loss, params, allow_unused=True)
        for parameter, gradient in zip(params, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.learning_rates.append(rates)


def _rib_loss(rows: Float[Tensor, "n c"], labels: Bool[Tensor, "n c"]) -> Tensor:
    return -(rows * labels).sum()


def _cross_entropy(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(rows: Tensor, labels: Tensor) -> Tensor:
        probability = activation(rows).clamp(1e-7, 1 - 1e-7)
        return F.binary_cross_entropy(probability, labels.to(rows.dtype), reduction="sum")

    return loss


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rib": _rib_loss,
    "sigmoid": _cross_entropy(torch.sigmoid),
    "tanh": _cross_entropy(lambda y: (torch.tanh(y) + 1) / 2),
    "softsign": _cross_entropy(lambda y: (F.softsign(y) + 1) / 2),
}
"""By the name of the final activation; `rib` has none."""
