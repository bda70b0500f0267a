"""The graph that is exported: logits, the most likely class, its map and its box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attrib import surgery
from attrib.errors import InputError, SpecError
from attrib.localize import largest_component_bounded, normalize, tight_boxes, to_source, usable
from attrib.methods import CAM, InfoCAM, InfoCAMPlus, Method
from attrib.methods.cam import Linear, region_sum
from attrib.models import ClassSum, SpatialClassifier
from attrib.registry import AtLeast, check_fields, format_spec
from attrib.types import Frame, Normalize, Targets

__all__ = ["OUTPUTS", "BoxKind", "Graph", "GraphOptions", "exportable"]

OUTPUTS = ("logits", "target", "maps", "boxes", "settled")
"""What a program returns, in this order; see `Graph.forward`."""

BoxKind = Literal["largest", "all"]
"""What a box is around: the largest 8-connected component, or all that reaches the threshold."""


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """What is fixed when a graph is made.

    Args:
        image_size: `(h, w)` of the pictures it takes.
        threshold: Fraction of the normalised map at and above which a pixel counts, in [0, 1].
        normalize: `"minmax"`, or `"max"` to cut negative values off first.
        boxes: See `BoxKind`.
        rounds: In which labels spread through components; only for `boxes="largest"`. A round
            joins what it reaches in a time that grows with the logarithm of the length, so that
            few are needed; a picture that needs more is reported as not settled.
    """

    name = "export"
    image_size: tuple[int, ...]
    threshold: float = 0.2
    normalize: Normalize = "minmax"
    boxes: BoxKind = "largest"
    rounds: Annotated[int, AtLeast(1)] = 8

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise SpecError(f"export: image_size is positive (h, w), got {self.image_size}")
        if not 0 <= self.threshold <= 1:
            raise SpecError(f"export: threshold lies in [0, 1], got {self.threshold}")


def exportable(method: Method) -> Linear:
    """Return the method, if its maps are one fixed combination of class maps.

    Raises:
        InputError: they are not; says which methods can be exported.
    """
    if isinstance(method, CAM | InfoCAM) or (
        isinstance(method, InfoCAMPlus) and method.contrast == "image"
    ):
        return method
    raise InputError(
        f"{format_spec(method)!r} cannot be exported; 'cam', 'infocam' and 'infocam+' with "
        "contrast='image' can, with any region and border"
    )


class Graph(nn.Module):
    """A classifier that explains its own most likely class, in tensor operations alone.

    Args:
        classifier: The model, split. A frozen copy of it goes into the graph.
        method: See `exportable`.
        options: What is fixed.
    """

    def __init__(self, classifier: SpatialClassifier, method: Linear, options: GraphOptions):
        super().__init__()
        self.model = surgery.frozen_copy(classifier.model)
        self.method = method
        self.options = options
        self._classifier = classifier.of(self.model)

    def forward(
        self, images: Float[Tensor, "b _ h w"]
    ) -> tuple[
        Float[Tensor, "b c"],
        Int[Tensor, " b"],
        Float[Tensor, "b u v"],
        Int[Tensor, "b 4"],
        Bool[Tensor, " b"],
    ]:
        """Predict and explain.

        Args:
            images: Normalised as the model's spec says, of `options.image_size`.

        Returns:
            The logits; the index of the most likely class; its raw map, on the feature grid; its
            box, half-open `x0 y0 x1 y1` in pixels of the images, zeros where there is none; and
            whether the box is sure, which it is not where labels were still spreading in the last
            round.
        """
        logits, grid = self._features(images)
        target = logits.argmax(1)
        pairs = Targets(image=torch.arange(target.shape[0], device=target.device), label=target)
        cells = self._evidence(grid, pairs.image, self.method.classes(logits, pairs))
        maps = region_sum(cells, self.method.region, self.method.border)
        boxes, settled = boxes_of(maps.float(), self.options)
        return logits, target, maps, boxes, settled

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        anatomy, layout = self._classifier.parts()
        raw, logits = anatomy.forward(self.model, images.clone())  # models may write into it
        return logits, anatomy.activate(layout.grid(raw, self._size))  # type: ignore[arg-type]

    def _evidence(
        self, grid: Tensor, image: Int[Tensor, " b"], classes: ClassSum
    ) -> Float[Tensor, "b u v"]:
        """Do what `SpatialClassifier.evidence` does, for one pair per image and without chunks."""
        if self._classifier.linear is not None:
            weights = classes.of_weights(self._classifier.weight)
            return torch.einsum("bk,bkuv->buv", weights, grid)
        anatomy, layout = self._classifier.parts()
        b, _, u, v = grid.shape
        logits = anatomy.cells(self.model, grid.permute(0, 2, 3, 1).flatten(0, 2), layout)
        return classes.of_maps(logits.view(b, u, v, -1).permute(0, 3, 1, 2), image)

    @property
    def _size(self) -> tuple[int, int]:
        h, w = self.options.image_size
        return h, w


def boxes_of(
    maps: Float[Tensor, "b u v"], options: GraphOptions
) -> tuple[Int[Tensor, "b 4"], Bool[Tensor, " b"]]:
    """Do what `attrib.localize` does for one threshold, in a fixed number of operations."""
    good = usable(maps)[:, None, None]
    h, w = options.image_size
    whole = Frame(source=(h, w), resized=(h, w), tensor=(h, w))
    heat = to_source(torch.where(good, maps, 0), whole)
    masks = (normalize(heat, options.normalize)[0] >= options.threshold) & good
    if options.boxes == "all":
        return tight_boxes(masks), masks.new_ones(masks.shape[0])
    kept, settled = largest_component_bounded(masks, options.rounds)
    return tight_boxes(kept), settled
