"""Maps from features whose channels are tried one by one; no gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.methods.base import METHODS, Method
from attrib.methods.baselines.run import Batch, forward_of
from attrib.methods.baselines.seen import rows_of_images
from attrib.methods.iba.cut import Rest, cut, rest_of
from attrib.methods.memory import in_steps
from attrib.models import SpatialClassifier
from attrib.models.anatomy import Tapped
from attrib.registry import AtLeast
from attrib.types import Attribution, TargetRule

__all__ = ["AblationCAM", "ScoreCAM"]


def _last(classifier: SpatialClassifier) -> str:
    """Name the last layer that the logits depend on; empty where it is no module's output."""
    layer, anatomy = classifier.gradient_layer, classifier.anatomy
    return anatomy.features if not layer and isinstance(anatomy, Tapped) else layer


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class ScoreCAM(Method):
    r"""Features weighted by the class score that their channel, as a mask, leaves of the picture.

    $$M_y = \mathrm{ReLU}\Big(\sum_k \alpha^y_k A_k\Big), \quad
    \alpha^y = \mathrm{softmax}_k\big(n_y(x \odot s(U(A_k)))\big)$$

    with U bilinear enlargement and s scaling to [0, 1]. Wang et al., *Score-CAM*, algorithm 1; the
    score of the empty picture, which it takes off, cancels in the softmax. Black is the data's mean
    colour. A channel that is the same everywhere is no mask: it hides all. Costs a forward pass
    per channel, whatever the number of classes.

    Args:
        layer: Module path of the features A; by default the last that the logits depend on.
        channels: Try only so many channels, those that vary most over the picture; 0 for all, as
            the paper does.
        relu: Cut negative evidence off, as the paper does.
        batch: Pictures per forward pass.
    """

    name = "scorecam"
    summary = "features weighted by the score of the picture seen through them; any model, slow"
    family = "features, tried one by one"
    needs_class_maps = False
    layer: str = ""
    channels: Annotated[int, AtLeast(0)] = 0
    relu: bool = True
    batch: Batch = 32

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        with surgery.inference(classifier.model):
            start = cut(classifier, images, self.layer or _last(classifier))
            pairs = targets(start.logits)
            maps = start.grid.new_zeros(len(pairs), *start.grid.shape[2:])
            for i, rows in rows_of_images(pairs).items():
                tried = self._tried(start.grid[i])
                scores = self._scores(classifier, images[i], start.grid[i, tried])
                weights = scores[:, pairs.label[rows]].softmax(0).to(maps.dtype)
                maps[rows] = torch.einsum("kn,kuv->nuv", weights, start.grid[i, tried])
        maps = maps.relu() if self.relu else maps
        return self._result(classifier, images, maps, pairs, start.logits)

    def _tried(self, grid: Float[Tensor, "k u v"]) -> Int[Tensor, " t"]:
        if not self.channels or self.channels >= len(grid):
            return torch.arange(len(grid), device=grid.device)
        return grid.float().var((1, 2)).topk(self.channels).indices

    def _scores(
        self, classifier: SpatialClassifier, image: Tensor, grid: Float[Tensor, "t u v"]
    ) -> Float[Tensor, "t c"]:
        forward, size = forward_of(classifier, copy=False), image.shape[1:]
        exact = image.to(torch.promote_types(image.dtype, torch.float32))

        def step(rows: slice, _batch: int) -> Tensor:
            masks = F.interpolate(grid[rows, None].to(exact), size=size, mode="bilinear")
            low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
            masks = (masks - low) / torch.where(high > low, high - low, 1)
            return forward(exact * masks)

        return torch.cat(in_steps(len(grid), self.batch, step))


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class AblationCAM(Method):
    r"""Features weighted by what the class score loses without their channel.

    $$M_y = \mathrm{ReLU}\Big(\sum_k w^y_k A_k\Big), \quad
    w^y_k = \frac{n_y - n_y(A_k \leftarrow 0)}{|n_y|}$$

    Desai and Ramaswamy, *Ablation-CAM*, eq. 5. Deviation: divided by the magnitude of the score,
    which for a negative one keeps the sign of the map. Costs a pass per channel through what
    follows the layer, whatever the number of classes.

    Args:
        layer: Module path of the features A; by default the last that the logits depend on.
        relu: Cut negative evidence off, as the paper does.
        batch: Feature maps per pass.
    """

    name = "ablationcam"
    summary = "features weighted by the score lost without their channel; any model"
    family = "features, tried one by one"
    needs_class_maps = False
    layer: str = ""
    relu: bool = True
    batch: Batch = 32

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`.

        Raises:
            SplitError: the logits do not follow from the layer alone.
        """
        with surgery.inference(classifier.model):
            start = cut(classifier, images, self.layer or _last(classifier))
            pairs = targets(start.logits)
            maps = start.grid.new_zeros(len(pairs), *start.grid.shape[2:])
            rest = rest_of(classifier, start) if len(pairs) else None
            for i, rows in rows_of_images(pairs).items():
                whole = start.logits[i, pairs.label[rows]]
                lost = whole - self._without(rest, i)[:, pairs.label[rows]]  # type: ignore[arg-type]
                weights = lost / torch.where(whole == 0, 1, whole.abs())
                maps[rows] = torch.einsum("kn,kuv->nuv", weights.to(maps.dtype), start.grid[i])
        maps = maps.relu() if self.relu else maps
        return self._result(classifier, images, maps, pairs, start.logits)

    def _without(self, rest: Rest, image: int) -> Float[Tensor, "k c"]:
        """Give the logits without each channel of an image's features."""
        grid = rest.cut.grid[image]
        channels = torch.arange(len(grid), device=grid.device)

        def step(rows: slice, _batch: int) -> Tensor:
            gone = channels[rows]
            ablated = grid.repeat(len(gone), 1, 1, 1)
            ablated[torch.arange(len(gone), device=grid.device), gone] = 0
            return rest(ablated, torch.full_like(gone, image))

        return torch.cat(in_steps(len(grid), self.batch, step))
