"""Parameter randomisation: a map that stays when the model's weights go says nothing about it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib import surgery
from attrib.errors import InputError
from attrib.localize import normalize
from attrib.metrics.base import METRICS, Better, Explain, Metric, check_maps, ordered
from attrib.metrics.similarity import spearman, ssim
from attrib.models import SpatialClassifier
from attrib.types import Targets

__all__ = ["LayerSimilarity", "Order", "Randomisation", "Weights", "layers_of",
           "parameter_randomisation", "randomise"]  # fmt: skip

Order = Literal["cascading", "independent"]
"""From the top layer down, each on top of those before; or one layer at a time."""
Weights = Literal["own", "permuted", "gaussian"]
"""What becomes of a layer: its own initialisation anew (`reset_parameters`), each of its tensors
shuffled, or each drawn from a normal distribution of the tensor's mean and deviation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerSimilarity:
    """How much of each map is left as layers are randomised.

    Args:
        layers: What was randomised at each step, from the top down.
        ssim: Structural similarity of the maps, each brought to [0, 1] by its range.
        spearman: Rank correlation of their pixels. NaN in both where a map has no order.
    """

    layers: tuple[str, ...]
    ssim: Float[Tensor, "s n"]
    spearman: Float[Tensor, "s n"]


@METRICS.register
@final
@dataclass(frozen=True, kw_only=True)
class Randomisation(Metric):
    """Mean similarity of the map to those of the same model with randomised layers.

    Adebayo et al., *Sanity Checks for Saliency Maps*. `parameter_randomisation` gives the score
    of each layer.

    Args:
        order: See `Order`.
        weights: See `Weights`.
        similarity: What is averaged over layers.
        layers: Module paths, from the top down; none for every module with weights of its own.
        absolute: Compare magnitudes.
        seed: Of the weights.
    """

    name = "randomisation"
    summary = "similarity to the maps of the same model with randomised weights"
    order: Order = "cascading"
    weights: Weights = "own"
    similarity: Literal["spearman", "ssim"] = "spearman"
    layers: tuple[str, ...] = ()
    absolute: bool = False
    seed: int = 0

    @property
    def better(self) -> Better:
        """A map of the model should go with its weights."""
        return "lower"

    def __call__(
        self,
        classifier: SpatialClassifier,
        images: Float[Tensor, "b _ h w"],
        maps: Float[Tensor, "n h w"],
        targets: Targets,
        explain: Explain | None = None,
    ) -> Float[Tensor, " n"]:
        """See `Metric`; explains every picture once per layer."""
        if explain is None:
            raise InputError(f"{self.name} explains randomised models; pass explain=")
        found = parameter_randomisation(
            classifier, images, maps, targets, explain, order=self.order, weights=self.weights,
            layers=self.layers, absolute=self.absolute, seed=self.seed,
        )  # fmt: skip
        each = found.ssim if self.similarity == "ssim" else found.spearman
        return each.nanmean(0)


def parameter_randomisation(
    classifier: SpatialClassifier,
    images: Float[Tensor, "b _ h w"],
    maps: Float[Tensor, "n h w"],
    targets: Targets,
    explain: Explain,
    *,
    order: Order = "cascading",
    weights: Weights = "own",
    layers: tuple[str, ...] = (),
    absolute: bool = False,
    seed: int = 0,
) -> LayerSimilarity:
    """Compare maps with those of private copies of the model whose layers are randomised.

    Args:
        classifier: The model, split; not changed.
        images: Normalised, on the model's device.
        maps: Raw maps at the input's size.
        targets: The pairs; the same classes are explained at every step.
        explain: What made the maps.
        order: See `Order`.
        weights: See `Weights`.
        layers: Module paths, from the top down; none for every module with weights of its own, in
            the reverse of the order in which the model registers them.
        absolute: Compare magnitudes.
        seed: Of the weights.

    Raises:
        InputError: `weights="own"` and a layer that has no initialisation of its own.
        SplitError: no such layer.
    """
    pairs = check_maps(classifier, images, maps, targets)
    paths = layers or layers_of(classifier.model)
    before = _comparable(maps, absolute)
    rows = []
    for twin in _copies(classifier, paths, order, weights, seed):
        after = _comparable(explain(twin, images.clone(), pairs), absolute)
        good = ordered(before) & ordered(after)
        each = (_ssim(before, after), spearman(before, after))
        rows.append([torch.where(good, values, torch.nan) for values in each])
    first, second = (torch.stack(column) for column in zip(*rows, strict=True))
    return LayerSimilarity(layers=tuple(paths), ssim=first, spearman=second)


def _comparable(maps: Float[Tensor, "n h w"], absolute: bool) -> Float[Tensor, "n h w"]:
    return maps.float().abs() if absolute else maps.float()


def _ssim(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    return ssim(*(normalize(maps.nan_to_num())[0] for maps in (a, b)))


def _copies(
    classifier: SpatialClassifier, paths: tuple[str, ...], order: Order, weights: Weights, seed: int
) -> Iterator[SpatialClassifier]:
    """Yield the model after each step; the user's own is never written."""
    model = surgery.frozen_copy(classifier.model)
    for step, path in enumerate(paths):
        if order == "independent" and step:
            model = surgery.frozen_copy(classifier.model)
        randomise(surgery.submodule(model, path), weights, seed + step, path)
        yield classifier.of(model)


def layers_of(model: nn.Module) -> tuple[str, ...]:
    """List the modules that hold weights of their own, the last registered first."""
    return tuple(reversed([path for path, module in model.named_modules() if _weights(module)]))


def _weights(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def randomise(module: nn.Module, weights: Weights, seed: int, name: str = "module") -> None:
    """Give all weights within a module new values, in place; drawn on the CPU.

    Raises:
        InputError: `weights="own"`, and a module with weights has no `reset_parameters`.
    """
    generator = torch.Generator().manual_seed(seed)
    for path, part in module.named_modules(prefix=name):
        if _weights(part) and weights == "own":
            _reset(part, int(torch.randint(2**31, (), generator=generator)), path)
            continue
        for values in _weights(part):
            values.data.copy_(_drawn(values.detach().cpu(), weights, generator))


def _reset(module: nn.Module, seed: int, path: str) -> None:
    if not hasattr(module, "reset_parameters"):
        raise InputError(
            f"{path or 'the whole'} ({type(module).__name__}) has no initialisation of its own; "
            "take weights='permuted' or 'gaussian'"
        )
    twin = copy.deepcopy(module).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin.reset_parameters()  # type: ignore[operator]
    module.load_state_dict(twin.state_dict())


def _drawn(values: Tensor, weights: Weights, generator: torch.Generator) -> Tensor:
    if weights == "permuted":
        order = torch.randperm(values.numel(), generator=generator)
        return values.flatten()[order].view(values.shape)
    spread = values.float().std(correction=0)
    return values.float().mean() + spread * torch.randn(values.shape, generator=generator)
