"""Which of the AIB paper's networks is trained from scratch, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from attrib.bottleneck.aib_classifier import NetworkPlan
from attrib.bottleneck.aib_recipe import RECIPES, AIBRecipe, compressed
from attrib.bottleneck.aib_variants import NetworkName, Variant
from attrib.registry import AtLeast, check_fields

__all__ = ["NetworkConfig"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Which of the paper's networks is trained, and for how long.

    What is not an option follows the network's recipe in `attrib.bottleneck.aib_recipe`: optimiser,
    rates, weight decay. With fewer epochs than its 200, its milestones move forward in proportion.

    Args:
        network: `"vgg32"`, `"wrn28_10"` or `"cub_vgg16"`.
        variant: `"plain"` (neither attention nor noise), `"dvib"` (no attention), `"aib"` or
            `"aib-qt"` (attention rounded to anchors).
        width: Factor on the channels; 1 is the published network.
        latent: Length of the latent vector; None for the published one.
        anchors: Of the quantiser; None for the published number.
        epochs: Passes over the pictures.
        batch_size: Pictures per step.
        lr: Learning rate after the warm-up; None for the recipe's.
        beta: Price of information.
        objective: `"paper"`, or `"official"` for that of the authors' code.
        pad: Pictures are shifted by at most so many pixels, their border mirrored.
        flip: Mirror every other picture.
        test_samples: Attention maps per picture, and latent vectors per map, in the last test; the
            authors' code has 4 and 4, for CUB 12 and 12.
        bfloat16: Compute the loss under autocast; None does where the recipe has half precision
            and the device is a GPU.
        seed: Of weights, order, shifts and noise.
        readers: Threads that read ahead; changes no result.
    """

    name: ClassVar[str] = "fit aib-network"
    network: NetworkName = "vgg32"
    variant: Variant = "aib"
    width: Annotated[float, AtLeast(0)] = 1.0
    latent: int | None = None
    anchors: int | None = None
    epochs: Annotated[int, AtLeast(1)] = 200
    batch_size: Annotated[int, AtLeast(1)] = 128
    lr: float | None = None
    beta: Annotated[float, AtLeast(0)] = 0.01
    objective: Literal["paper", "official"] = "paper"
    pad: Annotated[int, AtLeast(0)] = 4
    flip: bool = True
    test_samples: tuple[int, int] = (4, 12)
    bfloat16: bool | None = None
    seed: Annotated[int, AtLeast(0)] = 0
    readers: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def plan(self) -> NetworkPlan:
        """What the network is made by."""
        return NetworkPlan(
            network=self.network,
            variant=self.variant,
            width=self.width,
            latent=self.latent,
            anchors=self.anchors,
        )

    @property
    def recipe(self) -> AIBRecipe:
        """The published recipe, in as many epochs, from the wanted rate."""
        quantised = "-qt" if self.variant == "aib-qt" else ""
        recipe = compressed(RECIPES[self.network + quantised], self.epochs)
        lr = recipe.lr if self.lr is None else self.lr
        return replace(recipe, lr=lr, batch_size=self.batch_size)
