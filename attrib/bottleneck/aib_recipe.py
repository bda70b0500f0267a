"""How the AIB paper's networks are trained: constants, learning rates, parameter groups."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from attrib.bottleneck.aib_quantiser import Quantiser
from attrib.errors import InputError

__all__ = ["CUB_VGG16", "RECIPES", "VGG32", "WRN28_10", "AIBRecipe", "compressed", "lr_at",
           "parameter_groups"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AIBRecipe:
    """One network's training, as the authors' code and its instructions have it.

    Args:
        optimiser: `"sgd"`, or `"adam"` with `betas`.
        lr: Learning rate after the warm-up.
        warmup: Learning rates of the first epochs.
        milestones: Epochs, counted from 0 with the warm-up, at whose start the rate is multiplied.
        factor: By which it is.
        momentum: Of SGD.
        betas: Of Adam.
        weight_decay: For all parameters, anchors included.
        anchor_ratio: Learning rate of a quantiser's anchors, relative to the others.
        batch_size: Images per step.
        epochs: With the warm-up.
        mixed_precision: Train in half precision.
        averaged: Test with a moving average of the weights.
        test_samples: Attention maps per image and latent vectors per map, in testing.
    """

    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    warmup: tuple[float, ...] = ()
    milestones: tuple[int, ...]
    factor: float
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    anchor_ratio: float = 1e-4
    batch_size: int = 128
    epochs: int = 200
    mixed_precision: bool = False
    averaged: bool = False
    test_samples: tuple[int, int] = (4, 4)


VGG32 = AIBRecipe(warmup=(0.01,), milestones=tuple(range(25, 200, 25)), factor=0.5)
WRN28_10 = AIBRecipe(milestones=(60, 120, 160), factor=0.2, mixed_precision=True)
"""The paper says a factor of 0.3 at 60, 120 and 180."""
CUB_VGG16 = AIBRecipe(
    optimiser="adam",
    lr=1e-4,
    milestones=tuple(range(1, 200)),
    factor=0.97,
    betas=(0.5, 0.999),
    averaged=True,
    test_samples=(12, 12),
)
"""The paper says SGD for all networks; batch size, epochs and weight decay are its text's."""
RECIPES = {
    "vgg32": VGG32,
    "vgg32-qt": replace(VGG32, warmup=(0.001, 0.01)),
    "wrn28_10": WRN28_10,
    "wrn28_10-qt": WRN28_10,
    "cub_vgg16": CUB_VGG16,
    "cub_vgg16-qt": CUB_VGG16,
}
"""By network, with `-qt` where attention is quantised."""


def compressed(recipe: AIBRecipe, epochs: int) -> AIBRecipe:
    """Fit a recipe into another number of epochs: milestones move in proportion, the warm-up stays.

    Args:
        recipe: The constants.
        epochs: With the warm-up, 1 or more. A milestone falls on the nearest epoch after the first.

    Raises:
        InputError: less than one epoch.
    """
    if epochs < 1:
        raise InputError(f"epochs are 1 or more, got {epochs}")
    moved = (max(1, round(milestone * epochs / recipe.epochs)) for milestone in recipe.milestones)
    warmup = recipe.warmup[: epochs - 1]
    return replace(recipe, epochs=epochs, milestones=tuple(moved), warmup=warmup)


def lr_at(recipe: AIBRecipe, epoch: int) -> float:
    """Give the learning rate of an epoch.

    Args:
        recipe: The constants.
        epoch: Counted from 0.

    Raises:
        InputError: the recipe has no such epoch.
    """
    if not 0 <= epoch < recipe.epochs:
        raise InputError(f"epochs are 0 to {recipe.epochs - 1}, got {epoch}")
    if epoch < len(recipe.warmup):
        return recipe.warmup[epoch]
    passed = sum(milestone <= epoch for milestone in recipe.milestones)
    return recipe.lr * math.pow(recipe.factor, passed)


def parameter_groups(model: nn.Module, recipe: AIBRecipe) -> list[dict[str, Any]]:
    """Group the parameters that want gradients for a torch optimiser: anchors, and all others.

    Each group carries its `lr_ratio`; its rate in an epoch is `lr_at(recipe, epoch) * lr_ratio`.
    Anchors are found by the module that holds them, so wrappers that rename parameters do no harm.

    Args:
        model: An `AIBNetwork`, an `AIB`, or anything that holds one.
        recipe: The constants.
    """
    quantisers = [m for m in model.modules() if isinstance(m, Quantiser)]
    anchors = {id(q.anchors) for q in quantisers}
    wanted = [p for p in model.parameters() if p.requires_grad]
    parts = (
        (1.0, [p for p in wanted if id(p) not in anchors]),
        (recipe.anchor_ratio, [p for p in wanted if id(p) in anchors]),
    )
    return [
        {
            "params": parameters,
            "lr": lr_at(recipe, 0) * ratio,
            "lr_ratio": ratio,
            "weight_decay": recipe.weight_decay,
        }
        for ratio, parameters in parts
        if parameters
    ]
