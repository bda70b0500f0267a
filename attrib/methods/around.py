"""Methods around a method: averaged over views, over noise, or over layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError, ModelError, SpecError, in_one_line
from attrib.methods.base import METHODS, Method, resolve
from attrib.models import SpatialClassifier
from attrib.registry import AtLeast, format_spec
from attrib.types import Attribution, TargetRule, Targets

__all__ = ["TTA", "Fuse", "Smooth", "check_autocast"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class TTA(Method):
    r"""The mean of a method's maps over views of the picture: test-time augmentation.

    $$M_y = \frac{1}{|V|} \sum_{v \in V} v^{-1}\big(M_y(v(x))\big)$$

    over scales and mirror images; a view's map is mirrored back and resized bilinearly to the grid
    of the picture itself. Maps are averaged raw. Classes and logits are those of the picture
    itself.

    Args:
        method: Spec of what is averaged.
        scales: Factors of the picture's size, 1 among them. A model that takes pictures of one size
            only, as most transformers do, is refused with an error that names `scales=(1.0,)`,
            which leaves the mirror image.
        flip: Mirror every scale left-right as well.
    """

    name = "tta"
    summary = "the mean of any method over scales and mirror images"
    family = "around another method"
    method: str | Method = "cam"
    scales: tuple[float, ...] = (1.0, 0.75, 1.25)
    flip: bool = True

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if 1 not in self.scales or min(self.scales) <= 0:
            raise SpecError(f"tta: scales are positive and 1 is among them, got {self.scales}")
        _wrap(self)

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; as many passes as views.

        Raises:
            ModelError: the model does not take a scale.
        """
        inner = resolve(self.method)
        plain = inner.attribute(classifier, images.clone(), targets)
        total, size = plain.maps.clone(), plain.maps.shape[1:]
        for scale, flip in self._views():
            view = _scaled(images, scale).flip(3) if flip else _scaled(images, scale)
            try:
                maps = inner.attribute(classifier, view, _known(plain.targets)).maps
            except (RuntimeError, AssertionError, ValueError) as error:
                if scale == 1 or isinstance(error, torch.OutOfMemoryError):
                    raise
                mirrors = dataclasses.replace(self, scales=(1.0,))
                raise ModelError(
                    f"tta: {classifier.spec.name} does not take pictures at {scale:g} times its "
                    f"size, {tuple(view.shape[-2:])} ({in_one_line(error)}); leave scales out with "
                    f"method={format_spec(mirrors)!r}, and without tta=True"
                ) from error
            total += _resized(maps.flip(2) if flip else maps, size)
        return _told_by(self, plain, total / (1 + len(self._views())))

    def _views(self) -> list[tuple[float, bool]]:
        """List all views but the picture itself."""
        flips = (False, True) if self.flip else (False,)
        views = [(scale, flip) for scale in dict.fromkeys(self.scales) for flip in flips]
        return [view for view in views if view != (1, False)]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class Smooth(Method):
    r"""The mean of a method's maps over noisy copies of the picture.

    $$M_y = \frac{1}{N} \sum_{i} M_y(x + \epsilon_i), \quad
    \epsilon_i \sim N\big(0, (\text{noise} \cdot (\max x - \min x))^2\big)$$

    Smilkov et al., *SmoothGrad: removing noise by adding noise*, section 3, around any method.
    Every picture gets the same draws, scaled to its own range, whatever its batch or device.
    Classes and logits are those of the picture itself.

    Args:
        method: Spec of what is averaged.
        samples: Noisy copies.
        noise: Deviation of the noise, as a fraction of the picture's range.
        seed: Of the noise.
    """

    name = "smooth"
    summary = "the mean of any method over noisy copies of the picture"
    family = "around another method"
    method: str | Method = "gradcam"
    samples: Annotated[int, AtLeast(1)] = 10
    noise: Annotated[float, AtLeast(0)] = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        _wrap(self)

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; as many passes as samples, and one for the logits."""
        inner = resolve(self.method)
        logits = classifier.predict(images)
        pairs = targets(logits)
        known = _known(pairs)
        span = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
        found = [
            inner.attribute(classifier, images + self.noise * span * draw, known)
            for draw in self._draws(images)
        ]
        maps = torch.stack([one.maps for one in found]).mean(0)
        return dataclasses.replace(_told_by(self, found[0], maps), logits=logits)

    def _draws(self, images: Tensor) -> Iterator[Tensor]:
        """Draw on the CPU in float32, so that every device and precision sees the same."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.samples):
            draw = torch.randn(images.shape[1:], generator=generator)
            yield draw.to(images, non_blocking=True)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class Fuse(Method):
    r"""A method's maps at several layers, each brought to [0, 1], as one.

    $$M_y = \frac{1}{|L|} \sum_{l \in L} U\Big(\frac{\mathrm{ReLU}(M^l_y)}{\max
    \mathrm{ReLU}(M^l_y)}\Big)$$

    or the largest of them cell by cell, with U bilinear enlargement to the finest grid. Jiang et
    al., *LayerCAM*, section III-C, fuse by the largest. A layer without positive evidence counts
    as 0.

    Args:
        method: Spec of a method with an option `layer`.
        layers: Module paths; by default the method's own layer and the end of each earlier stage of
            the trunk whose cells are 8 pixels wide or more, where the model names its stages.
        by: How maps become one.
    """

    name = "fuse"
    summary = "a layer method at several layers, each normalised, as one map"
    family = "around another method"
    unit = "fraction"
    needs_class_maps = False
    method: str | Method = "layercam"
    layers: tuple[str, ...] = ()
    by: Literal["mean", "max"] = "mean"

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        _wrap(self)
        object.__setattr__(self, "unit", "fraction")
        if "layer" not in {f.name for f in dataclasses.fields(resolve(self.method))}:  # type: ignore[arg-type]
            raise SpecError(
                f"fuse: {format_spec(self.method)} has no option 'layer'; use a method that has, "
                "such as 'layercam'"
            )

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; a pass per layer."""
        inner: Any = resolve(self.method)
        found: list[Attribution] = []
        for layer in self.layers or _stage_ends(classifier, inner.layer):
            rule = _known(found[0].targets) if found else targets
            at_layer = dataclasses.replace(inner, layer=layer)
            found.append(at_layer.attribute(classifier, images.clone(), rule))
        size = max((one.maps.shape[1:] for one in found), key=lambda s: s.numel())
        stack = torch.stack([_resized(_to_one(one.maps), size) for one in found])
        maps = stack.mean(0) if self.by == "mean" else stack.amax(0)
        return _told_by(self, found[0], maps)


def _known(pairs: Targets) -> TargetRule:
    """Take pairs as they are: they were checked, and to check them again is to wait for a GPU."""
    return lambda _logits: pairs


def _wrap(method: TTA | Smooth | Fuse) -> None:
    """Hold what is wrapped as a method, and need what it needs."""
    inner = resolve(method.method)
    object.__setattr__(method, "method", inner)
    for what in (
        "unit",
        "normalize",
        "needs_class_maps",
        "needs_weights",
        "needs_attention",
        "per_target",
    ):
        object.__setattr__(method, what, getattr(inner, what))


def _told_by(method: Method, found: Attribution, maps: Tensor) -> Attribution:
    return dataclasses.replace(found, maps=maps, method=format_spec(method), unit=method.unit)


def _scaled(images: Float[Tensor, "b _ h w"], scale: float) -> Float[Tensor, "b _ _h _w"]:
    size = [round(side * scale) for side in images.shape[2:]]
    if size == list(images.shape[2:]):
        return images.clone()
    exact = images.to(torch.promote_types(images.dtype, torch.float32))  # as antialiasing needs
    return F.interpolate(exact, size=size, mode="bilinear", antialias=True).to(images.dtype)


def _resized(maps: Float[Tensor, "n _u _v"], size: torch.Size) -> Float[Tensor, "n u v"]:
    if maps.shape[1:] == size or not len(maps):
        return maps.new_zeros(0, *size) if not len(maps) else maps
    return F.interpolate(maps[:, None], size=size, mode="bilinear")[:, 0]


def _to_one(maps: Float[Tensor, "n u v"]) -> Float[Tensor, "n u v"]:
    """Cut negative values off and divide by each map's largest."""
    positive = maps.relu()
    high = positive.amax((1, 2), keepdim=True) if len(maps) else positive
    return positive / torch.where(high > 0, high, 1)


def _stage_ends(classifier: SpatialClassifier, own: str) -> tuple[str, ...]:
    """Name the last stage of each stride from 8 on, but for the last the method's own layer."""
    last = {stage.stride: stage.name for stage in classifier.stages if stage.stride >= 8}
    return (*list(last.values())[:-1], own)


def check_autocast(method: Method) -> None:
    """Raise `InputError` if a method asks more of a network than autocast gives: class maps."""
    inner = resolve(method.method) if isinstance(method, TTA) else method
    if inner.family != "class maps":
        raise InputError(
            f"autocast is for methods that read class maps, which {format_spec(method)!r} does "
            "not alone; leave it out, or see the method's own options"
        )
