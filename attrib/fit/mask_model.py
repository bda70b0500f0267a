"""Training a mask model: its classifier alone at first, then everything at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.bottleneck.mask_control import Beta
from attrib.bottleneck.mask_layers import settle
from attrib.bottleneck.mask_model import MaskModel
from attrib.bottleneck.mask_terms import masked
from attrib.errors import InputError
from attrib.fit import checkpoint
from attrib.fit.loading import batches, generator_of
from attrib.fit.loop import train as train_loop
from attrib.fit.mask_model_config import MaskModelConfig
from attrib.fit.soap import SOAP
from attrib.models import fingerprint

__all__ = ["WARM_UP", "fit_mask_model"]

WARM_UP = "warm-up"
"""Folder of the warm-up, within that of the run."""
MEMORY = 0.95
"""Of the running means that β follows."""
CLIP = 5.0
"""Longest gradient of a step; a mask that closes at once makes some that are far longer."""
SAMPLE = 512
"""Pictures that networks are settled on."""
DECISIVE = ("warm_up", "whole", "batch_size", "optimiser", "warm_up_lr", "seed")
"""Constants that decide the outcome of a warm-up."""
RISE, FALL, LOW = 200, 0.3, 0.02
"""The rate rises over so many steps, a tenth of all at most, and falls over so large a share of
them at the end, to so large a share of itself."""
Terms = dict[str, Float[Tensor, ""]]


def fit_mask_model(
    model: MaskModel,
    images: Float[Tensor, "m c h w"],
    labels: Int[Tensor, " m"],
    *,
    out: str | Path,
    config: MaskModelConfig | None = None,
    tensorboard: bool = False,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Train mask network, classifier and autoencoders, after a warm-up of the classifier alone.

    Goes on where an earlier run stopped, to the same weights, on the CPU bit by bit.

    Deviation: the paper trains everything at once. Its classifiers are slow to learn, and a mask
    that has a price closes before they do. In the warm-up the classifier's units first get a mean
    of a half and a variance of one on the pictures (narrow rectified networks starve otherwise).
    It learns from whole pictures, and later from pictures under random masks, most of them nearly
    whole, so that it can tell the class in spite of a mask's noise and from what it will leave. In
    the end the first half of the mask network, where it has the classifier's layers, takes their
    weights: what tells the class is what should stay visible. All at a fraction of a joint step's
    cost.

    Args:
        model: Is changed.
        images: In [0, 1], on any device; batches go to the model's.
        labels: Classes.
        out: Folder of this run; its folder `warm-up` is that of the warm-up.
        config: The constants.
        tensorboard: Write the log for TensorBoard too.
        progress: Show a bar; None for one on terminals only.

    Returns:
        The settings and, as `history`, the mean of every term per epoch in nats, and of β.

    Raises:
        InputError: no pictures, as many labels, a folder of another run, or a loss that is not
            finite.
    """
    out, config = Path(out), config or MaskModelConfig()
    if not len(images) or len(images) != len(labels):
        raise InputError(f"got {len(images)} pictures and {len(labels)} labels")
    settings = {
        "schema": "attrib.fit-mask-model/1",
        "weights": fingerprint(model),
        "digest": _digest(images, labels),
        "options": asdict(model.options),
        "config": asdict(config),
    }
    pictures = _Pictures(images=images, labels=labels, config=config)
    run = partial(train_loop, tensorboard=tensorboard, progress=progress)
    if config.warm_up:
        _warm_up(model, pictures, out / WARM_UP, settings, run)
    control = config.control_of(model.architecture.target, model.options.objective)
    beta = Beta(control, MEMORY).to(surgery.device_of(model))
    task = _Task(
        model=nn.ModuleDict({"model": model, "beta": beta}),
        optimizer=_optimizer(model, config, config.lr),
        pictures=pictures,
        epochs=config.epochs,
        lr=config.lr,
        learn=lambda x, y, _: _joint_terms(model, beta, x, y),
    )
    report = run(task, out, settings)
    checkpoint.finish(out, report, task.model, {})
    return report


def _warm_up(
    model: MaskModel,
    pictures: _Pictures,
    out: Path,
    settings: dict[str, Any],
    run: Callable[..., dict[str, Any]],
) -> None:
    config, first = pictures.config, pictures.images[:SAMPLE].to(surgery.device_of(model))
    settle(model.classifier, masked(first, torch.ones_like(first[:, :1]), shift=1))
    settle(model.mask, first, last=False)
    task = _Task(
        model=model,
        optimizer=_optimizer(model.classifier, config, config.warm_up_lr),
        pictures=pictures,
        epochs=config.warm_up,
        lr=config.warm_up_lr,
        learn=lambda x, y, progress: _warm_up_terms(model, x, y, progress < config.whole),
    )
    own = {key: settings[key] for key in ("weights", "digest")}
    own |= {key: settings["config"][key] for key in DECISIVE}
    report = run(task, out, {"schema": "attrib.fit-mask-warm-up/1", **own})
    checkpoint.finish(out, report, model, {})
    model.begin_mask()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pictures:
    images: Float[Tensor, "m c h w"]
    labels: Int[Tensor, " m"]
    config: MaskModelConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """See `attrib.fit.loop.Task`; `learn` is given a batch and the share of steps taken before."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    pictures: _Pictures
    epochs: int
    lr: float
    learn: Callable[[Tensor, Tensor, float], Terms]

    @property
    def steps(self) -> int:
        return max(1, len(self.pictures.images) // self.pictures.config.batch_size)

    @property
    def seed(self) -> int:
        return self.pictures.config.seed

    def batches(self, epoch: int) -> Generator[tuple[Tensor, Tensor, float], None, None]:
        pictures, device = self.pictures, surgery.device_of(self.model)
        order = batches(
            len(pictures.images), pictures.config.batch_size, generator_of(self.seed, epoch)
        )
        for step, index in enumerate(order, epoch * self.steps):
            progress = step / (self.epochs * self.steps)
            yield pictures.images[index].to(device), pictures.labels[index].to(device), progress

    def terms(self, batch: tuple[Tensor, Tensor, float]) -> Terms:
        return self.learn(*batch)

    def schedule(self, step: int) -> None:
        rate = self.lr * _height(step, self.epochs * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def scores(self) -> dict[str, Any]:
        return {}


def _height(step: int, steps: int) -> float:
    """Fraction of the highest learning rate."""
    rise = min(RISE, max(1, steps // 10))
    return min(1.0, (step + 1) / rise, max(LOW, (steps - step) / (FALL * steps)))


def _joint_terms(
    model: MaskModel, beta: Beta, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"]
) -> Terms:
    control, noise = beta.control, model.noise(images, torch.default_generator)
    terms = model.terms(images, labels, noise, gated=control.gated)
    beta.follow(**terms.means())
    codes = {f"vae_{field.name}": getattr(terms.seen, field.name) for field in fields(terms.seen)}
    others = {name: getattr(terms, name) for name in ("shape", "whole")}
    parts = {
        "loss": terms.loss(model.options.objective, control.beta),
        "cross_entropy": terms.cross_entropy,
        "entropy": terms.entropy,
        "vae": terms.seen.total,
        **codes,
        **{f"vae_{name}": code.total for name, code in others.items() if code is not None},
    }
    beta_now = torch.tensor(control.beta)
    return {**{name: part.mean() for name, part in parts.items()}, "beta": beta_now}


def _warm_up_terms(
    model: MaskModel, images: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"], whole: bool
) -> Terms:
    b, _, h, w = images.shape
    mask = torch.ones(b, 1, h, w)
    if not whole:
        density = 1 - 0.9 * torch.rand(b, 1, 1, 1) ** 3  # half hide less than a ninth
        mask = (torch.rand(b, 1, h, w) < density).float()
    logits = model.classify(images, mask.to(images))
    return {
        "loss": F.cross_entropy(logits, labels),
        "accuracy": (logits.argmax(1) == labels).float().mean(),
    }


def _optimizer(model: nn.Module, config: MaskModelConfig, lr: float) -> torch.optim.Optimizer:
    """Make the optimiser, which cuts long gradients before each step."""
    weights = list(model.parameters())
    kind = SOAP if config.optimiser == "soap" else torch.optim.Adam
    optimizer: torch.optim.Optimizer = kind(weights, lr=lr)

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(weights, CLIP)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def _digest(images: Tensor, labels: Tensor) -> str:
    """Return 16 hex digits that change when the pictures or classes do."""
    found = hashlib.sha256(labels.cpu().numpy().tobytes())
    found.update(images.cpu().contiguous().numpy().data)
    return found.hexdigest()[:16]
