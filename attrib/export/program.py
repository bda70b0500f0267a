"""From a classifier and a method to a program that was compared with them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError
from attrib.export.capture import Captured
from attrib.export.check import Deviation, compare, eager, smooth_noise
from attrib.export.formats import Format, format_for, made, runner, write
from attrib.export.graph import OUTPUTS, Graph, GraphOptions, exportable
from attrib.files import replacing
from attrib.methods import Method
from attrib.models import ModelRecord, SpatialClassifier
from attrib.registry import format_spec
from attrib.surgery import dtype_of
from attrib.types import Fit

__all__ = ["Program", "export_program"]

SCHEMA = "attrib.program/1"
CHECKED = 4
"""Images on which a program is compared: one alone, then the others in one batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A model and its explanation as one program.

    Args:
        program: A `torch.export.ExportedProgram` or an `onnx.ModelProto`. It takes normalised
            images `[b, channels, h, w]` and returns what `attrib.export.OUTPUTS` lists.
        metadata: What it was made of, how to feed it and what it returns; written with it.
        deviation: How far it is from the model and the method.
    """

    program: Any
    metadata: dict[str, Any]
    deviation: Deviation

    def captured(self, count: int) -> Captured:
        """Capture it as a CUDA graph for so many images at a time, for where launches cost most.

        Raises:
            InputError: it is not a torch program that was exported on a GPU, or no image is asked.
            ExportError: it cannot be captured.
        """
        device = self.metadata["device"]
        if count < 1 or not str(device).startswith("cuda"):
            raise InputError(
                "a CUDA graph is captured for one image or more, from a program that was exported "
                f"with format='torch' on a GPU; got {count} images and the device {device}"
            )
        shape, kind = self.metadata["input"]["shape"], self.metadata["input"]["dtype"]
        example = torch.zeros(count, *shape[1:], dtype=getattr(torch, kind), device=device)
        return Captured(runner(self.program, "torch"), example)

    def save(self, path: str | Path) -> Path:
        """Write a .pt2 or an .onnx file, as the program's format is, whole or not at all."""
        path = Path(path)
        format_for(path, self.metadata["format"])
        with replacing(path) as temporary:
            write(self.program, self.metadata, temporary)
        return path


def export_program(
    classifier: SpatialClassifier,
    method: Method,
    options: GraphOptions,
    path: Path | None = None,
    *,
    format: Format | None = None,
    fit: Fit | None = None,
    images: Float[Tensor, "b _ h w"] | None = None,
    tolerance: float = 1e-4,
) -> Program:
    """Make a program, compare it with the model, and write it; see `attrib.Explainer.export`."""
    chosen = format_for(path, format)
    linear = exportable(method)
    if classifier.autocast is not None:
        raise InputError(
            f"a program computes in the weights' type, and this model is seen under "
            f"{classifier.precision}; export from an Explainer without autocast"
        )
    if images is None:
        images = smooth_noise(classifier, options, CHECKED)
    images = _checked(images, classifier, options)
    parts = (images[:1], images[1:])
    true = [eager(classifier, linear, part) for part in parts]
    program = made(Graph(classifier, linear, options), images[:2].clone(), chosen)
    run = runner(program, chosen)
    found = [
        compare(expected, run(part.clone()), options, tolerance)
        for expected, part in zip(true, parts, strict=True)
    ]
    deviation = Deviation(
        logits=max(d.logits for d in found),
        maps=max(d.maps for d in found),
        boxes=max(d.boxes for d in found),
    )
    metadata = {
        "schema": SCHEMA,
        "format": chosen,
        "device": str(classifier.device) if chosen == "torch" else None,
        **_meaning(classifier, linear, options),
        "checked": {"images": len(images), "tolerance": tolerance, **asdict(deviation)},
        "model": ModelRecord(classifier, fit or classifier.spec.fit).to_dict(),
    }
    result = Program(program=program, metadata=metadata, deviation=deviation)
    if path is not None:
        result.save(path)
    return result


def _checked(images: Tensor, classifier: SpatialClassifier, options: GraphOptions) -> Tensor:
    shape = (len(classifier.spec.mean), *options.image_size)
    if images.ndim != 4 or images.shape[1:] != shape or len(images) < 2:
        raise InputError(
            f"images to compare on are two or more, normalised, of shape {shape} each, "
            f"got {tuple(images.shape)}"
        )
    return images.detach().to(classifier.device, dtype_of(classifier.model))


def _meaning(
    classifier: SpatialClassifier, method: Method, options: GraphOptions
) -> dict[str, Any]:
    """Say what goes in and what the numbers that come out are."""
    largest = options.boxes == "largest"
    return {
        "method": format_spec(method),
        "unit": method.unit,
        "exact": classifier.exact,
        "input": {
            "name": "images",
            "shape": ["batch", len(classifier.spec.mean), *options.image_size],
            "dtype": str(dtype_of(classifier.model)).removeprefix("torch."),
        },
        "outputs": list(OUTPUTS),
        "target": "most likely class",
        "labels": list(classifier.spec.labels),
        "boxes": {
            "around": "largest component" if largest else "all above the threshold",
            "threshold": options.threshold,
            "normalize": options.normalize,
            "coordinates": "half-open x0 y0 x1 y1, pixels of the input",
            "connectivity": 8 if largest else None,
            "rounds": options.rounds if largest else None,
        },
    }
