"""Whether a program does what the model and its method do, by running both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import ExportError
from attrib.export.graph import GraphOptions
from attrib.localize import largest_component, normalize, tight_boxes, to_source, usable
from attrib.methods.cam import Linear
from attrib.models import SpatialClassifier
from attrib.surgery import dtype_of
from attrib.targets import resolve_targets
from attrib.types import Attribution, Frame

__all__ = ["Deviation", "compare", "eager", "smooth_noise"]

PIXEL = 1
"""A side of a box may differ by so many pixels, where onnxruntime rounds a value at the threshold
the other way. If that value joined two components more would differ, which is refused."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far a program is from the model and its method.

    Args:
        logits: Largest difference, over the largest magnitude.
        maps: The same of the raw maps.
        boxes: Largest difference of a side in pixels, from what `attrib.localize` finds in the
            program's own maps.
    """

    logits: float
    maps: float
    boxes: int


def smooth_noise(
    classifier: SpatialClassifier, options: GraphOptions, count: int
) -> Float[Tensor, "b _ h w"]:
    """Make images of soft blobs from a generator of its own, on the model's device and type."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, len(classifier.spec.mean), 8, 8, generator=generator)
    fine = F.interpolate(coarse, options.image_size, mode="bicubic")
    return fine.to(classifier.device, dtype_of(classifier.model))


def eager(
    classifier: SpatialClassifier, method: Linear, images: Float[Tensor, "b _ h w"]
) -> Attribution:
    """Explain the most likely classes by the method itself, with the model as it is."""
    return method.attribute(classifier, images.clone(), resolve_targets(None, len(images), ()))


def compare(
    true: Attribution, outputs: tuple[Tensor, ...], options: GraphOptions, tolerance: float
) -> Deviation:
    """Compare what a program returned with the method itself and `attrib.localize`'s functions.

    Raises:
        ExportError: the logits or maps deviate by more than `tolerance`, a box by more than a
            pixel, or the most likely class is another.
    """
    logits, target, maps, boxes, settled = outputs
    found = Deviation(
        logits=_relative(logits, true.logits),
        maps=_relative(maps, true.maps),
        boxes=int((boxes - _boxes(maps.float(), options)).abs().max()),
    )
    wrong = []
    if not torch.equal(target, true.targets.label):
        wrong.append(f"classes {target.tolist()} for {true.targets.label.tolist()}")
    if not (found.logits <= tolerance and found.maps <= tolerance):  # also where one is NaN
        wrong.append(
            f"logits by {found.logits:.1e} and maps by {found.maps:.1e} of the largest magnitude, "
            f"more than tolerance={tolerance:g}"
        )
    if found.boxes > PIXEL:
        hint = "" if bool(settled.all()) else f"; {options.rounds} rounds are too few, give more"
        wrong.append(f"boxes by {found.boxes} pixels{hint}")
    if wrong:
        raise ExportError(f"the program deviates from the model: {'; '.join(wrong)}")
    return found


def _relative(found: Tensor, true: Tensor) -> float:
    if found.shape != true.shape:
        return float("inf")
    scale = true.abs().max().clamp(min=torch.finfo(true.dtype).tiny)
    return float((found - true).abs().max() / scale)


def _boxes(maps: Float[Tensor, "b u v"], options: GraphOptions) -> Int[Tensor, "b 4"]:
    """Find the boxes as `attrib.localize` does: with OpenCV on the CPU, without rounds."""
    h, w = options.image_size
    good = usable(maps)[:, None, None]
    whole = Frame(source=(h, w), resized=(h, w), tensor=(h, w))
    heat, _, _ = normalize(to_source(torch.where(good, maps, 0), whole), options.normalize)
    masks = (heat >= options.threshold) & good
    return tight_boxes(masks) if options.boxes == "all" else largest_component(masks).boxes
