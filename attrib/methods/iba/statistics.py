"""Mean and deviation of a layer's features, over many pictures or over one picture's cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attrib import surgery
from attrib.errors import InputError
from attrib.files import replacing
from attrib.methods.iba.cut import Cut, cut, default_layer
from attrib.models import SpatialClassifier

__all__ = ["Statistics", "estimate_statistics", "own_statistics"]

ACTIVE_FROM = 0.01
"""A feature is active that is not zero in more than this fraction of cases."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Statistics:
    """How a layer's features are distributed.

    Over pictures for each channel and cell; or, with a row per picture and one value per channel,
    over the picture's own cells.

    Args:
        layer: Module path; empty where the feature map is no module's output.
        mean: Of the features.
        std: Deviation, with n - 1.
        active: Not zero in more than 1 % of cases.
        count: How many pictures.
    """

    layer: str
    mean: Float[Tensor, "*n k _u _v"]
    std: Float[Tensor, "*n k _u _v"]
    active: Bool[Tensor, "*n k _u _v"]
    count: int

    def __repr__(self) -> str:
        return f"<Statistics of layer {self.layer!r} over {self.count} pictures>"

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        from safetensors.torch import save

        tensors = {"mean": self.mean, "std": self.std, "active": self.active}
        about = {"layer": self.layer, "count": str(self.count)}
        with replacing(path) as temporary:
            temporary.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}, about))

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Read what `save` wrote.

        Raises:
            InputError: the file cannot be read or holds something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in ("mean", "std", "active")}
            return cls(layer=about["layer"], count=int(about["count"]), **tensors)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise InputError(
                f"{path} holds no statistics of a layer ({error}); "
                "make them by estimate_statistics(classifier, picture_batches(classifier, FOLDER), "
                "layer).save(path)"
            ) from error

    def check(self, cut: Cut) -> None:
        """Make sure that these are statistics of the features at a cut.

        Raises:
            InputError: they are of another layer or another grid.
        """
        if self.layer != cut.layer:
            raise InputError(
                f"the statistics are of layer {self.layer!r}, the bottleneck is at "
                f"{cut.layer!r}; name the same layer='...' for both"
            )
        if self.mean.shape != cut.grid.shape[1:]:
            raise InputError(
                f"the statistics are of features {tuple(self.mean.shape)}, these images give "
                f"{tuple(cut.grid.shape[1:])}; estimate them on images of this size"
            )


def estimate_statistics(
    classifier: SpatialClassifier,
    batches: Iterable[Float[Tensor, "_b _ _h _w"]],
    layer: str = "",
) -> Statistics:
    """Take the mean and deviation of a layer's features over pictures: one pass, in float64.

    Batches are merged by Chan's form of Welford's update, so that it does not matter how pictures
    are batched.

    Args:
        classifier: The model, split; not changed.
        batches: Images of one size, normalised as `classifier.spec` says; of a folder or data set
            `attrib.datasets.picture_batches` makes them.
        layer: Module path, as for `IBA`.

    Raises:
        InputError: fewer than two images, or images of several sizes.
    """
    layer = layer or default_layer(classifier)
    count, mean, squares, filled = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for images in batches:
        given = images.to(classifier.device, surgery.dtype_of(classifier.model))
        with surgery.inference(classifier.model):
            r = cut(classifier, given, layer).grid.cpu().double()
        if count and r.shape[1:] != mean.shape:
            raise InputError(
                f"statistics are of images of one size; these gave features {tuple(mean.shape)}, "
                f"then {tuple(r.shape[1:])}"
            )
        total = count + len(r)
        change = r.mean(0) - mean
        squares = squares + (r - r.mean(0)).square().sum(0) + change**2 * (count * len(r) / total)
        mean = mean + change * (len(r) / total)
        filled = filled + (r != 0).sum(0)
        count = total
    if count < 2:
        raise InputError(f"a deviation takes at least two images, got {count}")
    std, active = (squares / (count - 1)).sqrt(), filled / count > ACTIVE_FROM
    return Statistics(layer=layer, mean=mean, std=std, active=active, count=count)


def own_statistics(features: Float[Tensor, "n k u v"], layer: str) -> Statistics:
    """Take each picture's mean, deviation and activity per channel over its own cells."""
    r = features.to(torch.promote_types(features.dtype, torch.float32))
    return Statistics(
        layer=layer,
        mean=r.mean((2, 3), keepdim=True),
        std=r.std((2, 3), keepdim=True),
        active=(r != 0).to(r).mean((2, 3), keepdim=True) > ACTIVE_FROM,
        count=1,
    )
