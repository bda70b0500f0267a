"""Any classifier, seen as a trunk that makes a feature map and a head that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attrib import surgery
from attrib.errors import SplitError
from attrib.models.anatomy import Anatomy
from attrib.models.evidence import CHUNK_CELLS, ClassSum, linear_evidence
from attrib.models.layout import Layout, Levels, Raw, detect
from attrib.models.output import Output, logits_of
from attrib.models.recall import Recall
from attrib.types import ModelSpec

if TYPE_CHECKING:
    from attrib.models.class_token import ClassToken

__all__ = ["Features", "SpatialClassifier", "Stage"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """What one forward pass leaves: the feature map and the logits."""

    grid: Float[Tensor, "b k u v"]
    logits: Float[Tensor, "b c"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the trunk, in the order in which pictures pass.

    Args:
        name: Module path.
        stride: Input pixels per cell of its output.
    """

    name: str
    stride: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SpatialClassifier:
    """A classifier with its feature map in view. Made by `attrib.split`; the model is not changed.

    The **class maps** are the head applied at every cell of the feature map. Where it is linear
    and follows average pooling, their mean over the grid is the logits: the CAM identity.

    Args:
        model: The user's module, as it is.
        spec: How to feed it.
        num_classes: `c`.
        anatomy: Where the features come out; None if there is no head to apply at cells.
        layout: How the raw features lie in memory; None as above.
        linear: Path of the module that holds the head's weight `[c, k]`, if the head is linear.
        exact: The CAM identity was verified, to 1e-4 in float32.
        note: Why the class maps are approximate or absent; empty when exact.
        stages: The steps of the trunk, in order.
        autocast: Type that `forward` runs the network in, under autocast; None for the weights'.
            Features and logits come out in the weights' type, so that all that is computed of
            them is too.
        output: Where the logits are in what the model returns; None if it returns them.
        recall: Keeps what was made of the last batch, if given; see `remembering`.
    """

    model: nn.Module
    spec: ModelSpec
    num_classes: int
    anatomy: Anatomy | None
    layout: Layout | Levels | None
    linear: str | None
    exact: bool
    note: str
    stages: tuple[Stage, ...] = ()
    autocast: torch.dtype | None = None
    output: Output | None = None
    recall: Recall | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return surgery.device_of(self.model)

    @property
    def precision(self) -> str:
        """What the network computes in: its weights' type, or e.g. `"bfloat16 autocast"`."""
        own = surgery.dtype_of(self.model) if self.autocast is None else self.autocast
        return str(own).removeprefix("torch.") + ("" if self.autocast is None else " autocast")

    @property
    def weight(self) -> Float[Tensor, "c k"]:
        """The head's weight, for a linear head."""
        if self.linear is None:
            raise SplitError(f"{self.spec.name} has no linear head: {self.note}")
        return surgery.submodule(self.model, self.linear).weight.detach().flatten(1)  # type: ignore[operator]

    def logits_of(self, returned: object) -> Float[Tensor, "b c"]:
        """Take the logits out of what the model returned; `SplitError` if there are none."""
        return logits_of(returned, self.output)

    def predict(self, images: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c"]:
        """Run the model once for its logits, in evaluation mode and without gradients.

        Args:
            images: Normalised as `spec` says, on the model's device; not changed.
        """
        with surgery.inference(self.model):
            return self.logits_of(self.model(images.clone()))  # some models rewrite their input

    def forward(self, images: Float[Tensor, "b _ h w"]) -> Features:
        """Run the model once, in evaluation mode and without gradients.

        Args:
            images: Normalised as `spec` says, on the model's device.

        Raises:
            SplitError: the model has no class maps; the message says why and what to do.
        """
        self.parts()
        return self.recalled("features", None, images, self._forward)

    def _forward(self, images: Float[Tensor, "b _ h w"]) -> Features:
        anatomy, layout = self.parts()
        with surgery.inference(self.model):
            with self._autocast():
                raw, logits = anatomy.forward(self.model, images)
            grid = self._grid(raw, layout, anatomy, images)
        if self.autocast is not None:
            own = surgery.dtype_of(self.model)
            grid, logits = grid.to(own), logits.to(own)
        return Features(grid=grid, logits=logits)

    def _autocast(self) -> AbstractContextManager[object]:
        kind, dtype = self.device.type, self.autocast
        return nullcontext() if dtype is None else torch.autocast(kind, dtype)

    def remembering(self, recall: Recall) -> SpatialClassifier:
        """Return a view of the same model that does not run it twice in a row on equal images.

        For several methods on one batch.

        Args:
            recall: Keeps of that batch, until the next or until it forgets, the features, what was
                recorded from the layer last differentiated by on, and the gradients last taken.
        """
        return self._changed(recall=recall)

    def recalled(
        self, kind: str, key: object, images: Float[Tensor, "b _ h w"], run: Callable[[Tensor], T]
    ) -> T:
        """Return `run(images)`, or what it made of equal images before, in a view that remembers.

        Args:
            kind: Of each the last is kept.
            key: What else the result depends on.
            images: To run on; not changed by a view that remembers.
            run: Uses this model.
        """
        if self.recall is None:
            return run(images)
        return self.recall(self.model, images, run, kind, key)

    def of(self, model: nn.Module) -> SpatialClassifier:
        """Return the same view of a copy of the model, at the same layers."""
        return self._changed(model=model)

    def _changed(self, **fields: Any) -> SpatialClassifier:
        """Return a view that knows what passes of their own have found out about the model."""
        other, found = replace(self, **fields), ("gradient_layer", "_class_tokens")
        vars(other).update({name: vars(self)[name] for name in found if name in vars(self)})
        return other

    def grid_at(
        self, images: Float[Tensor, "b _ h w"], layer: str = ""
    ) -> Float[Tensor, "b k u v"]:
        """Run the model as far as one layer, in evaluation mode and without gradients.

        Args:
            images: Normalised as `spec` says, on the model's device.
            layer: Module path; the feature map itself if left.

        Raises:
            SplitError: there is no such module, or its output has no grid over the picture.
        """
        if not layer:
            return self.forward(images).grid
        with surgery.inference(self.model):
            raw = surgery.run_until(self.model, layer, images)
            return self._grid_of(raw, layer, images)

    def features_at(self, images: Float[Tensor, "b _ h w"], layer: str = "") -> Features:
        """Run the model once for the logits and for the grid of a layer; all as for `grid_at`."""
        if not layer:
            return self.forward(images)
        with surgery.inference(self.model):
            with surgery.tap(self.model, layer) as tapped:
                logits = self.logits_of(self.model(images))
            raw = tapped.value(layer) if tapped.first is None else tapped.first
            return Features(grid=self._grid_of(raw, layer, images), logits=logits)

    def class_maps(self, grid: Float[Tensor, "b k u v"]) -> Float[Tensor, "b c u v"]:
        """Apply the head at every cell; without bias where it is linear."""
        if self.linear is not None:
            return torch.einsum("ck,bkuv->bcuv", self.weight, grid)
        anatomy, layout = self.parts()
        b, _, u, v = grid.shape
        cells = grid.permute(0, 2, 3, 1).flatten(0, 2)
        with surgery.inference(self.model):
            size = max(1, CHUNK_CELLS // self.num_classes)
            logits = [anatomy.cells(self.model, part, layout) for part in cells.split(size)]
        return torch.cat(logits).view(b, u, v, -1).permute(0, 3, 1, 2)

    def evidence(
        self,
        grid: Float[Tensor, "b k u v"],
        image: Int[Tensor, " n"],
        classes: ClassSum,
    ) -> Float[Tensor, "n u v"]:
        """Add up class maps of `image[i]`: those that `classes` names for the i-th pair.

        Through the weights where the head is linear, which costs next to nothing; else image by
        image, so that no more than a chunk of class maps is ever held.

        Args:
            grid: Features of the batch.
            image: Which image each pair is about, ascending.
            classes: Which class maps, and how much of each.
        """
        if self.linear is not None:
            return linear_evidence(grid, image, classes.of_weights(self.weight))
        out = grid.new_empty(len(classes.label), *grid.shape[2:])
        size = max(1, CHUNK_CELLS // (self.num_classes * grid.shape[2] * grid.shape[3]))
        for start, part in zip(range(0, len(grid), size), grid.split(size), strict=True):
            own = (image >= start) & (image < start + size)
            rows: Tensor | slice = own.nonzero().flatten() if len(part) < len(grid) else slice(None)
            out[rows] = classes.rows(rows).of_maps(self.class_maps(part), image[rows] - start)
        return out

    @contextmanager
    def differentiable(
        self, images: Float[Tensor, "b _ h w"], layer: str = ""
    ) -> Iterator[tuple[Features, Tensor, Layout]]:
        """Run the model with gradients recorded from one layer on, and nothing before it.

        Args:
            images: Normalised as `spec` says, on the model's device.
            layer: Module path; by default the last layer whose cells the logits depend on.

        Yields:
            The layer's features as `[b, k, u, v]` with the logits, the raw layer output to
            differentiate by, and the layout that turns its gradient into `[b, k, u, v]`.
        """
        layer = layer or self.gradient_layer
        with surgery.inference(self.model):
            yield self.recalled("recorded", layer, images, lambda x: self._recorded(x, layer))

    def _recorded(
        self, images: Float[Tensor, "b _ h w"], layer: str
    ) -> tuple[Features, Tensor, Layout]:
        if layer:
            logits, raw = self._recorded_from(images, layer)
            layout = detect(raw, _size(images))
            activate = nn.Identity()
        else:
            anatomy, known = self.parts()
            raw, logits = anatomy.forward_leaf(self.model, images)
            layout = known if isinstance(known, Layout) else None
            activate = anatomy.activate  # type: ignore[assignment]
        if layout is None or not isinstance(raw, Tensor):
            raise SplitError(
                f"layer {layer!r} of {self.spec.name} has no grid over the picture; name "
                "another module with the method's option layer='...'"
            )
        grid = activate(layout.grid(raw.detach(), _size(images)))
        return Features(grid=grid, logits=logits), raw, layout

    def _recorded_from(self, images: Float[Tensor, "b _ h w"], layer: str) -> tuple[Tensor, Raw]:
        if layer not in self._class_tokens:
            from attrib.models.class_token import class_token_after

            self._class_tokens[layer] = class_token_after(self, layer)
        if token := self._class_tokens[layer]:
            return token.recorded(self, images)
        with surgery.tap(self.model, layer, leaf=True) as tapped:
            logits = self.logits_of(self.model(images))
            return logits, tapped.value(layer)

    @cached_property
    def _class_tokens(self) -> dict[str, ClassToken | None]:
        """Of each layer that was differentiated by, how the logits follow from it; None as ever."""
        return {}

    @property
    def constant_gradient(self) -> bool:
        """The logits' gradient by the feature map is the linear head's weight over its cells.

        As the CAM identity has it, unless the model rectifies what comes out of the features.
        """
        rectified = getattr(self.anatomy, "rectify", False)
        return self.exact and self.linear is not None and not rectified

    @cached_property
    def gradient_layer(self) -> str:
        """The last layer with a grid on which the logits depend; empty for the feature map itself.

        The class token of a transformer leaves its last patch tokens without influence, so there
        the layer before the last attention is taken.
        """
        if self.constant_gradient:
            return ""
        from attrib.models.probe import last_differentiable_layer

        return last_differentiable_layer(self)

    def parts(self) -> tuple[Anatomy, Layout | Levels]:
        """Return what runs the model in two halves, and how its raw features lie in memory.

        Raises:
            SplitError: the model has no class maps; the message says why and what to do.
        """
        if self.anatomy is None or self.layout is None:
            raise SplitError(self.note)
        return self.anatomy, self.layout

    def _grid_of(self, raw: Tensor, layer: str, images: Tensor) -> Float[Tensor, "b k u v"]:
        layout = detect(raw, _size(images))
        if layout is None:
            raise SplitError(f"layer {layer!r} of {self.spec.name} has no grid over the picture")
        return layout.grid(raw, _size(images))

    def _grid(
        self, raw: Raw, layout: Layout | Levels, anatomy: Anatomy, images: Tensor
    ) -> Float[Tensor, "b k u v"]:
        return anatomy.activate(layout.grid(raw, _size(images)))  # type: ignore[arg-type]


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
