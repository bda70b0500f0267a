"""Infidelity and sensitivity: does a map say what changes of the picture do, and does it hold?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attrib.errors import InputError
from attrib.metrics.base import (
    METRICS,
    Better,
    Explain,
    Metric,
    Score,
    ask,
    check_maps,
)
from attrib.metrics.reference import Reference, reference_of
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast
from attrib.types import Targets

__all__ = ["Infidelity", "MaxSensitivity", "infidelity", "squares"]

Samples = Annotated[int, AtLeast(1)]


@METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class Infidelity(Metric):
    r"""Squared error of what a map says that removing a square does to the class's score.

    $$\mathbb{E}_Q\Big[\big(\beta \sum_{p\in Q} M(p) - (f_y(x) - f_y(x_{\setminus Q}))\big)^2\Big]$$

    Yeh et al., *On the (In)fidelity and Sensitivity of Explanations*, definition 2.1 with the
    square removal of section 3.1, for maps that are contributions rather than gradients. As maps
    have units of their own, each is scaled by the beta that fits best, as Captum's
    `normalize=True` does.

    Args:
        side: Of a square, as a fraction of the shorter side of the input.
        samples: Squares, uniformly placed; the same for every picture.
        reference: What takes their place.
        score: f.
        seed: Of the places.
    """

    name = "infidelity"
    summary = "squared error of what the map says that removing squares does to the logit"
    side: Annotated[float, AtLeast(0)] = 0.25
    samples: Samples = 32
    reference: Reference = "zero"
    score: Score = "logit"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.side <= 1:
            raise InputError(f"side is a fraction in (0, 1], got {self.side}")

    @property
    def better(self) -> Better:
        """It is an error."""
        return "lower"

    def __call__(
        self,
        classifier: SpatialClassifier,
        images: Float[Tensor, "b _ h w"],
        maps: Float[Tensor, "n h w"],
        targets: Targets,
        explain: Explain | None = None,
    ) -> Float[Tensor, " n"]:
        """See `Metric`."""
        pairs = check_maps(classifier, images, maps, targets)
        size = (images.shape[-2], images.shape[-1])
        side = max(1, round(self.side * min(size)))
        removed = squares(self.samples, side, size, self.seed).to(images.device)
        other = reference_of(images, self.reference)
        nothing = torch.zeros_like(removed[:1])
        every = torch.cat([nothing, removed])[:, None]

        def change(pair: Int[Tensor, " m"], variant: Int[Tensor, " m"]) -> Float[Tensor, "m _ h w"]:
            image = pairs.image[pair]
            return torch.where(every[variant], other[image], images[image])

        found = ask(classifier, images, pairs, change, self.samples + 1, self.score)
        said = maps.float().flatten(1) @ removed.flatten(1).float().T
        return infidelity(said, found[:, :1] - found[:, 1:])


def infidelity(said: Float[Tensor, "n s"], done: Float[Tensor, "n s"]) -> Float[Tensor, " n"]:
    """Compute the mean squared error between what was said and done, after the best scaling."""
    square = said.square().sum(1)
    beta = torch.where(square > 0, (said * done).sum(1) / square, 0)
    error = (beta[:, None] * said - done).square().mean(1)
    return torch.where(said.isfinite().all(1), error, torch.nan)


def squares(count: int, side: int, size: tuple[int, int], seed: int) -> Bool[Tensor, "s h w"]:
    """Place squares uniformly within an input of `size`."""
    generator = torch.Generator().manual_seed(seed)
    axes = []
    for length in size:
        first = torch.randint(0, length - side + 1, (count, 1), generator=generator)
        at = torch.arange(length)
        axes.append((at >= first) & (at < first + side))
    return axes[0][:, :, None] & axes[1][:, None, :]


@METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class MaxSensitivity(Metric):
    r"""The most that a map changes when its picture changes a little.

    $$\max_{\lVert \delta\rVert_\infty \le r}
    \frac{\lVert M(x + \delta) - M(x)\rVert_2}{\lVert M(x)\rVert_2}$$

    Yeh et al., definition 2.2, over uniformly drawn changes, as Captum computes it. A map of zeros
    is divided by 1.

    Args:
        radius: r, on the scale of the normalised picture.
        samples: Changes that are drawn; the same for every picture.
        seed: Of the changes.
    """

    name = "max-sensitivity"
    summary = "most relative change of the map when every pixel changes a little"
    radius: Annotated[float, AtLeast(0)] = 0.02
    samples: Samples = 10
    seed: int = 0

    @property
    def better(self) -> Better:
        """A map should hold."""
        return "lower"

    def __call__(
        self,
        classifier: SpatialClassifier,
        images: Float[Tensor, "b _ h w"],
        maps: Float[Tensor, "n h w"],
        targets: Targets,
        explain: Explain | None = None,
    ) -> Float[Tensor, " n"]:
        """See `Metric`; explains every picture `samples` times."""
        pairs = check_maps(classifier, images, maps, targets)
        if explain is None:
            raise InputError(f"{self.name} explains changed pictures; pass explain=")
        generator = torch.Generator().manual_seed(self.seed)
        before = maps.float().flatten(1)
        length = before.norm(dim=1)
        length = torch.where(length == 0, 1, length)
        most = torch.zeros_like(length)
        for _ in range(self.samples):
            drawn = torch.rand(images[:1].shape, generator=generator).to(images)
            changed = images + self.radius * (2 * drawn - 1)
            after = explain(classifier, changed, pairs).float().flatten(1)
            most = torch.maximum(most, (after - before).norm(dim=1) / length)
        return most
