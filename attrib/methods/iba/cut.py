"""A network cut behind a layer: run once up to there, and as often as wanted from there on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attrib import surgery
from attrib.errors import SplitError
from attrib.models import SpatialClassifier
from attrib.models.anatomy import Tapped
from attrib.models.layout import Layout, detect
from attrib.models.learner import boundary
from attrib.models.probe import noise

__all__ = ["Cut", "Rest", "cut", "default_layer", "rest_of"]

CELL = 16
"""Widest cell of the default layer, in input pixels."""

STUB = 8
"""Side of the picture that stands in for the real one where nothing looks at it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """What a batch is behind a layer.

    Args:
        layer: Module path; empty where the feature map is no module's output.
        layout: How the layer's output lies in memory.
        raw: The layer's output.
        grid: The same as `[b, k, u, v]`, without prefix tokens.
        images: The batch.
        logits: Of the batch.
    """

    layer: str
    layout: Layout
    raw: Tensor
    grid: Float[Tensor, "b k u v"]
    images: Float[Tensor, "b _ h w"]
    logits: Float[Tensor, "b c"]


def default_layer(classifier: SpatialClassifier) -> str:
    """Name the last layer whose cells the logits depend on and are at most 16 pixels wide.

    A layer inside a block gives way to the block before it, whose output is all that follows
    reads: the rest of the network can then be run alone. If no layer with finer cells is to be
    told for certain, the cells are wider. Runs the model on noise, once per classifier.
    """
    if classifier not in _DEFAULTS:
        _DEFAULTS[classifier] = _default_layer(classifier)
    return _DEFAULTS[classifier]


_DEFAULTS: WeakKeyDictionary[SpatialClassifier, str] = WeakKeyDictionary()


def _default_layer(classifier: SpatialClassifier) -> str:
    model, anatomy, last = classifier.model, classifier.anatomy, classifier.gradient_layer
    if not last and isinstance(anatomy, Tapped):
        last = anatomy.features
    images = noise(model, classifier.spec)
    for layer in dict.fromkeys((_before_its_block(model, last), last)):
        with suppress(SplitError), surgery.inference(model):
            rows = cut(classifier, images, layer).grid.shape[2]
            fine = images.shape[2] <= CELL * rows
            return layer if fine else boundary(classifier, CELL).path or layer
    return last


def _before_its_block(model: nn.Module, layer: str) -> str:
    """Name the module before the block that a layer is inside; the layer if it is in none."""
    parent = surgery.submodule(model, layer.rpartition(".")[0])
    inside = parent is not model and not isinstance(parent, nn.Sequential | nn.ModuleList)
    before = _before(model, layer) if inside else ()
    return before[-1] if before else layer


def cut(classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], layer: str) -> Cut:
    """Run a network once, in inference mode as the caller enters it; keep what a layer returns.

    Args:
        classifier: The model, split.
        images: Normalised as `classifier.spec` says, on the model's device; not changed.
        layer: Module path; empty for the feature map of a model that names its own parts.

    Raises:
        SplitError: there is no such layer, or its output has no grid over the picture.
    """
    model, anatomy = classifier.model, classifier.anatomy
    raw: object
    if layer or anatomy is None:
        with surgery.tap(model, layer) as tapped:
            logits = classifier.logits_of(model(images.clone()))
        raw = tapped.value(layer)
    else:
        raw, logits = anatomy.forward(model, images.clone())
    size = (images.shape[-2], images.shape[-1])
    layout = detect(raw, size)
    if layout is None or not isinstance(raw, Tensor):
        raise SplitError(
            f"layer {layer!r} of {classifier.spec.name} has no grid over the picture; name "
            "another module with the method's option layer='...'"
        )
    grid = layout.grid(raw, size)
    return Cut(layer=layer, layout=layout, raw=raw, grid=grid, images=images, logits=logits)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rest:
    """What follows a cut, as a function of its features.

    Args:
        classifier: The model, split.
        cut: Where it is cut.
        passed: Modules before the cut that only hand on what they are given.
        stub: A small empty picture goes in; else the real ones.
    """

    classifier: SpatialClassifier
    cut: Cut
    passed: tuple[str, ...]
    stub: bool

    def __call__(
        self, features: Float[Tensor, "m k u v"], image: Int[Tensor, " m"]
    ) -> Float[Tensor, "m c"]:
        """Give the logits that other features would; in inference mode, as the caller enters it.

        Args:
            features: Instead of the cut's.
            image: Which image of the batch each row belongs to.
        """
        model, anatomy = self.classifier.model, self.classifier.anatomy
        raw = self._raw(features, image)
        if not self.cut.layer and anatomy is not None:
            return anatomy.replay(model, self.cut.images, raw)
        with surgery.passed_over(model, self.passed, self.cut.layer, raw):
            # not model(...): hooks on the model itself are to see the user's pictures only
            return self.classifier.logits_of(model.forward(self._pictures(image)))

    def _pictures(self, image: Int[Tensor, " m"]) -> Float[Tensor, "m _ _h _w"]:
        images = self.cut.images
        if self.stub:
            return images.new_zeros(len(image), images.shape[1], STUB, STUB)
        return images[image]

    def _raw(self, features: Float[Tensor, "m k u v"], image: Int[Tensor, " m"]) -> Tensor:
        layout, features = self.cut.layout, features.to(self.cut.raw.dtype)
        if layout.kind == "nchw":
            return features
        cells = features.permute(0, 2, 3, 1).contiguous()
        if layout.kind == "nhwc":
            return cells
        prefix = self.cut.raw[image, : layout.prefix]
        return torch.cat([prefix, cells.flatten(1, 2)], 1)


def rest_of(classifier: SpatialClassifier, cut: Cut) -> Rest:
    """Find the shortest way on from a cut that gives the batch's own logits.

    Tried in turn: everything before the cut is passed over; what comes before it in its own
    sequence is (the embedding of a transformer still runs, and wants pictures of the right size);
    nothing is, and the layer's output is exchanged.

    Raises:
        SplitError: none does, since the layer runs more than once or others read its insides.
    """
    before = _before(classifier.model, cut.layer)
    inner = tuple(path for path in before if "." in path)
    cause: Exception | None = None
    for passed, stub in ((before, True), (inner, False), ((), False)):
        rest = Rest(classifier=classifier, cut=cut, passed=passed, stub=stub)
        try:
            if _agrees(rest):
                return rest
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            cause = error  # the model looks at what it is not given: a longer way may be left
    raise SplitError(
        f"the logits of {classifier.spec.name} do not follow from the output of {cut.layer!r} "
        f"({cause or 'they differ'}), e.g. since it runs more than once; name another module with "
        "the method's option layer='...'"
    ) from cause


def _before(model: nn.Module, layer: str) -> tuple[str, ...]:
    """Name the modules before a layer in the model and in each sequence that it lies in."""
    found, parent, walked = list[str](), model, ""
    for step in layer.split("."):
        if parent is not model and not isinstance(parent, nn.Sequential | nn.ModuleList):
            break
        names = [name for name, _ in parent.named_children()]
        found += [walked + name for name in names[: names.index(step)]] if step in names else []
        parent, walked = getattr(parent, step, parent), f"{walked}{step}."
    return tuple(found)


def _agrees(rest: Rest) -> bool:
    cut = rest.cut
    got = rest(cut.grid.clone(), torch.arange(len(cut.grid), device=cut.grid.device))
    if got.shape != cut.logits.shape:
        return False
    got, want = got.nan_to_num(), cut.logits.nan_to_num()
    tolerance = 1e-3 if want.dtype in (torch.float32, torch.float64) else 2e-2
    return bool((got - want).abs().max() <= tolerance * want.abs().max())
