"""A mask network for a classifier that is finished: fully convolutional, on a grid of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib.bottleneck.mask_layers import LineNet, receptive_field
from attrib.bottleneck.mask_model import FIRST_LOGIT
from attrib.models import Features
from attrib.registry import AtLeast, check_fields
from attrib.types import Targets

__all__ = ["MaskNetwork", "MaskNetworkOptions", "Reads"]

Reads = Literal["pixels", "features"]


@dataclass(frozen=True, kw_only=True)
class MaskNetworkOptions:
    """How a mask network is built.

    Args:
        reads: `"pixels"`, or the classifier's own feature map (`"features"`), which is not trained.
        stride: Pixels per cell of the mask, which is enlarged bilinearly; 1 for a mask per pixel.
        width: Channels of the first layer; the deepest have four times as many.
        halvings: How often the grid of `reads="pixels"` is halved, which decides how far a cell
            sees; see `MaskNetwork.field`.
        conditional: The mask is that of a class; else it is the same for every class.

    Raises:
        SpecError: an option of a wrong type or out of its range.
    """

    name: ClassVar[str] = "mask network"
    reads: Reads = "features"
    stride: Annotated[int, AtLeast(1)] = 8
    width: Annotated[int, AtLeast(1)] = 16
    halvings: Annotated[int, AtLeast(1)] = 4
    conditional: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return how many cells, down and across, the mask of a picture has."""
        return math.ceil(size[0] / self.stride), math.ceil(size[1] / self.stride)


class MaskNetwork(nn.Module):
    """Reads pixels or features and answers with one logit per cell of the mask.

    Reading pixels it is an encoder of strided convolutions and, after a bilinear resize to the
    mask's grid, a decoder. Reading features the encoder is one 1 x 1 convolution; each cell's
    features come divided by their root mean square, or the price of seeing, which pulls on all
    cells alike, would close first the cells whose features are large. In between, a conditional
    network multiplies channels by one plus a learnt vector of the class.

    Args:
        options: See `MaskNetworkOptions`.
        channels: Of what it reads.
        classes: Of the classifier.
    """

    def __init__(self, options: MaskNetworkOptions, channels: int, classes: int) -> None:
        super().__init__()
        self.options = options
        depth = 4 * options.width
        if options.reads == "pixels":
            widths = [options.width * min(2**i, 4) for i in range(options.halvings)]
            widths[-1] = depth
            line = " ".join(f"Cs32{k} Cs31{k}" for k in widths)
        else:
            line = f"C11{depth}"
        anything = (1 << options.halvings, 1 << options.halvings)
        self.encoder = LineNet(line, (channels, *anything), rectify_last=True)
        self.decoder = LineNet(f"Cs31{2 * options.width} C111", (depth, *anything))
        nn.init.constant_(list(self.decoder.parameters())[-1], FIRST_LOGIT)
        self.condition = nn.Embedding(classes, depth) if options.conditional else None
        if self.condition is not None:
            nn.init.zeros_(self.condition.weight)

    def field(self, side: int) -> int | None:
        """Return how many pixels in a row one cell depends on; None where features are read.

        Args:
            side: Of the pictures.
        """
        if self.options.reads == "features":
            return None
        cells = self.options.grid((side, side))[0]
        return receptive_field(f"{self.encoder.line} R{cells} {self.decoder.line}", side)

    def forward(
        self,
        x: Float[Tensor, "b _k _p _q"],
        grid: tuple[int, int],
        labels: Int[Tensor, " n"] | None = None,
        image: Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "_n 1 _u _v"]:
        """Return the logits of the probability that a cell is seen.

        Args:
            x: Normalised pictures, or features.
            grid: Cells of the mask, down and across.
            labels: Class that each mask is of; only a conditional network asks.
            image: Picture that each mask is of; by default there is one per picture.
        """
        if self.options.reads == "features":
            x = x / x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6)
        hidden = self.encoder(x)
        if self.condition is not None:
            hidden = hidden if image is None else hidden[image]
            hidden = hidden * (1 + self.condition(labels))[:, :, None, None]
        if hidden.shape[2:] != torch.Size(grid):
            hidden = F.interpolate(hidden, size=grid, mode="bilinear")
        logits: Tensor = self.decoder(hidden)
        return logits if image is None or self.condition is not None else logits[image]

    def masks(
        self, features: Features, size: tuple[int, int], targets: Targets
    ) -> Float[Tensor, "n u v"]:
        """Return the probability that a cell is seen, for each (image, class) pair.

        Args:
            features: What the network reads.
            size: `(h, w)` of the pictures.
            targets: The pairs.
        """
        grid = self.options.grid(size)
        return torch.sigmoid(self(features.grid, grid, targets.label, targets.image)[:, 0])
