"""Maps from features alone: the direction in which they vary most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.methods.base import METHODS, Method
from attrib.models import Features, SpatialClassifier
from attrib.types import Attribution, TargetRule

__all__ = ["EigenCAM"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class EigenCAM(Method):
    r"""Features along the direction in which they vary most over the picture.

    $$M = \mathrm{ReLU}(F v_1), \quad F - \bar F = U \Sigma V^\top$$

    with a row of F per cell, and the mean over cells taken off only to find the direction.
    Muhammad and Yeasin, *Eigen-CAM*, section 3. Deviations: the paper does not centre, which
    `centre=False` does not either; and the sign, which the paper leaves open, is such that cells
    with longer feature vectors have larger values. The map is the same for every class.

    Args:
        layer: Module path of the features; by default the last that the logits depend on.
        centre: Find the direction of largest variance, not of largest length.
        relu: Cut negative values off.
    """

    name = "eigencam"
    summary = "first principal component of the features; any model, the same for every class"
    family = "features and their gradients"
    unit = "features"
    needs_class_maps = False
    layer: str = ""
    centre: bool = True
    relu: bool = True

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        features = self._features(classifier, images)
        maps = _principal(features.grid, self.centre)
        logits = features.logits
        pairs = targets(logits)
        maps = maps.relu() if self.relu else maps
        return self._result(classifier, images, maps[pairs.image], pairs, logits)

    def _features(self, classifier: SpatialClassifier, images: Tensor) -> Features:
        """Take them from the pass that other methods of the layer use too, if it is remembered."""
        layer = self.layer or classifier.gradient_layer
        if not layer or classifier.recall is None:
            return classifier.features_at(images, layer)
        with classifier.differentiable(images, layer) as (features, _, _):
            return Features(grid=features.grid.detach(), logits=features.logits.detach())


def _principal(grid: Float[Tensor, "b k u v"], centre: bool) -> Float[Tensor, "b u v"]:
    """Project each image's cells on their first right singular vector."""
    cells = grid.flatten(2).mT.to(torch.promote_types(grid.dtype, torch.float32))
    basis = cells - cells.mean(1, keepdim=True) if centre else cells
    maps = (cells @ _direction(basis)[:, :, None])[:, :, 0]
    length = cells.norm(dim=2)
    along = (maps * (length - length.mean(1, keepdim=True))).sum(1, keepdim=True)
    return torch.where(along < 0, -maps, maps).view(len(grid), *grid.shape[2:])


def _direction(basis: Float[Tensor, "b i k"]) -> Float[Tensor, "b k"]:
    """Find the first right singular vectors, from the products along the shorter side."""
    largest = basis.abs().amax((1, 2), keepdim=True)
    basis = basis / torch.where(largest > 0, largest, 1)  # squares of faint features underflow
    tall = basis.shape[1] >= basis.shape[2]
    products = basis.mT @ basis if tall else basis @ basis.mT
    first: Tensor = torch.linalg.eigh(products).eigenvectors[:, None, :, -1]
    direction = (first if tall else first @ basis)[:, 0]
    length: Tensor = direction.norm(dim=1, keepdim=True)
    return direction / length.clamp(min=1e-30)
