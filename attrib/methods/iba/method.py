"""IBA as a method: a network cut in two, and pairs in chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.methods.base import METHODS, Method
from attrib.methods.iba.cut import Cut, Rest, cut, default_layer, rest_of
from attrib.methods.iba.loop import Loss, iba
from attrib.methods.iba.statistics import Statistics, own_statistics
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast
from attrib.types import Attribution, TargetRule, Targets

__all__ = ["IBA"]

CHUNK_VALUES = 1 << 24
"""At most so many noisy feature values enter the network at once; one pair's always do."""


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class IBA(Method):
    r"""Information that each cell must let pass for the class to be told.

    $$\min_\alpha\; -\log p(y \mid z) + \beta\, \overline{C}, \quad
    z = \lambda r + (1 - \lambda)(s\,\epsilon + \mu), \quad
    C = -\tfrac{1}{2}\big(1 + \log(1 - \lambda)^2 - (\lambda \tilde r)^2 - (1 - \lambda)^2\big)$$

    with r a layer's features, mu and s their mean and deviation, r~ = (r - mu) / s, epsilon normal
    noise, and lambda the sigmoid of alpha, smoothed. A cell's value is C summed over channels.
    Schulz et al., *Restricting the Flow: Information Bottlenecks for Attribution*, the per-sample
    bottleneck. As in the authors' code, s is at least 0.01, z and C are 0 for inactive features,
    those that are zero in all but 1 % of cases, and the map is that of the last forward pass.

    Deviations: with `statistics=None` mu, s and activity are the picture's own, per channel over
    its cells, where the paper takes them per channel and cell over many pictures; the spec that
    the result carries then names no statistics. Every picture gets the same noise, whatever its
    batch. Bits are per cell of the grid, not per pixel. On a multi-label model p(y|z) is the
    sigmoid of the logit.

    Args:
        layer: Module path of the features r. By default the last whose cells are at most 16 pixels
            wide and that all that follows reads, near the authors' choice in the middle of a
            network; where there is none, the last usable one.
        statistics: Of that layer: `Statistics`, or the path of the file they were saved to; None
            for the picture's own.
        beta: Weight of the information: the larger, the less passes.
        lr: Learning rate of Adam.
        steps: Forward passes; the map is that of the last.
        samples: Draws of noise per step.
        sigma: Deviation in cells of the Gaussian that smooths lambda; 0 for none.
        seed: Of the noise.
    """

    name = "iba"
    summary = "bits that each cell must let pass for the class to be told; any model, any layer"
    family = "bottlenecks"
    unit = "bits"
    needs_class_maps = False
    layer: str = ""
    statistics: str | Statistics | None = None
    beta: Annotated[float, AtLeast(0)] = 10.0
    lr: Annotated[float, AtLeast(0)] = 1.0
    steps: Annotated[int, AtLeast(1)] = 10
    samples: Annotated[int, AtLeast(1)] = 10
    sigma: Annotated[float, AtLeast(0)] = 1.0
    seed: int = 0

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; what follows the layer runs at every step.

        Raises:
            InputError: statistics of another layer or grid, or a grid too small to smooth.
        """
        layer = self.layer or default_layer(classifier)
        with surgery.inference(classifier.model):
            start = cut(classifier, images, layer)
            statistics = self._known_statistics(start)
            pairs = targets(start.logits)
            maps = self._maps(classifier, start, pairs, statistics)
        return self._result(classifier, images, maps, pairs, start.logits)

    def _known_statistics(self, start: Cut) -> Statistics | None:
        known = self.statistics
        if isinstance(known, str):
            known = Statistics.load(known)
        if known is not None:
            known.check(start)
        return known

    def _maps(
        self, classifier: SpatialClassifier, start: Cut, pairs: Targets, known: Statistics | None
    ) -> Float[Tensor, "n u v"]:
        if not len(pairs):
            return start.grid.new_zeros(0, *start.grid.shape[2:])
        rest = rest_of(classifier, start)
        size = max(1, CHUNK_VALUES // (self.samples * start.grid[0].numel()))
        out = []
        for image, label in zip(pairs.image.split(size), pairs.label.split(size), strict=True):
            features = start.grid[image]
            statistics = known or own_statistics(features, start.layer)
            noise = _noise(self.seed, (self.samples, *features.shape[1:]))
            loss = _loss(rest, image, label, classifier.spec.multi_label)
            options = {"beta": self.beta, "lr": self.lr, "sigma": self.sigma}
            steps = iba(loss, features, statistics, noise, **options)
            last = next(islice(steps, self.steps - 1, None))
            out.append(last.capacity.sum(1) / math.log(2))
        return torch.cat(out)


def _loss(
    rest: Rest, image: Int[Tensor, " n"], label: Int[Tensor, " n"], multi_label: bool
) -> Loss:
    """Ask what follows the cut for the class of each pair."""

    def loss(z: Float[Tensor, "s n k u v"]) -> Float[Tensor, " n"]:
        logits = rest(z.flatten(0, 1), image.repeat(len(z))).to(z.dtype)
        labels = label.repeat(len(z))
        if multi_label:
            lost = F.softplus(-logits.gather(1, labels[:, None])[:, 0])
        else:
            lost = F.cross_entropy(logits, labels, reduction="none")
        means: Tensor = lost.view(z.shape[:2]).mean(0)
        return means

    return loss


def _noise(seed: int, shape: tuple[int, ...]) -> Iterator[Float[Tensor, "s k u v"]]:
    """Draw on the CPU in float32, so that every device and precision sees the same."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(shape, generator=generator)
