"""Which model made something: what files say of it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Hashable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from attrib.images import Decode
from attrib.models.classifier import SpatialClassifier
from attrib.models.output import spelled
from attrib.types import Fit

__all__ = ["ModelRecord", "fingerprint", "identity", "imprint"]

WORD = 8
"""Bytes of a 64-bit integer."""


def fingerprint(model: nn.Module) -> str:
    """Return 16 hex digits that change when any weight or buffer does."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def imprint(model: nn.Module) -> Hashable:
    """Return what changes when any weight or buffer does, or moves to another device.

    Several times cheaper than `fingerprint`, and means something within this process only: per
    tensor torch's count of changes in place, which `.data` escapes, and the sum of its bits.
    """
    tensors = [value.detach() for value in model.state_dict().values()]
    sums = [_sum_of_bits(t) for t in tensors]
    totals = torch.stack([s.to(sums[0].device) for s in sums]).tolist() if sums else []
    counts = [0 if t.is_inference() else t._version for t in tensors]
    kinds = [(t.device, t.dtype, t.shape) for t in tensors]
    return tuple(zip(kinds, counts, totals, strict=True))


def _sum_of_bits(value: Tensor) -> Int[Tensor, ""]:
    """Add up all bits as 64-bit integers, and what is left over as bytes; overflow does no harm."""
    flat = value.contiguous().flatten()
    if flat.storage_offset() * flat.element_size() % WORD:
        flat = flat.clone()
    raw = flat.view(torch.uint8)
    whole = len(raw) // WORD * WORD
    return raw[:whole].view(torch.int64).sum() + raw[whole:].sum()


def identity(classifier: SpatialClassifier) -> dict[str, Any]:
    """Say in a file which classifier it is: `model`, `weights` and, if it has one, `output`."""
    output = {} if classifier.output is None else {"output": spelled(classifier.output)}
    return {
        "model": classifier.spec.name,
        "weights": fingerprint(classifier.model),
        **output,
    }


class ModelRecord:
    """What made an explanation, for its files. Weights are hashed when first asked for."""

    def __init__(self, classifier: SpatialClassifier, fit: Fit, decode: Decode = "pillow") -> None:
        self._model, self._output = classifier.model, classifier.output
        self._precision = classifier.precision
        self._decode = decode
        self.spec = replace(classifier.spec, fit=fit)

    @cached_property
    def weights(self) -> str:
        """16 hex digits over all weights and buffers."""
        return fingerprint(self._model)

    def to_dict(self) -> dict[str, Any]:
        """Return name, weights hash, precision, where the logits are, preprocessing, versions."""
        from importlib.metadata import version

        spec = self.spec
        packages = ("attrib", "torch", "torchvision", "timm")
        return {
            "name": spec.name,
            "weights": self.weights,
            **({} if self._output is None else {"output": spelled(self._output)}),
            "precision": self._precision,
            "multi_label": spec.multi_label,
            "preprocessing": {
                "input_size": list(spec.input_size),
                "fit": spec.fit,
                "crop": spec.crop,
                "interpolation": spec.interpolation,
                "mean": list(spec.mean),
                "std": list(spec.std),
                **({} if self._decode == "pillow" else {"decode": "torchvision"}),
            },
            "versions": {p: version(p) for p in packages} | {"python": platform.python_version()},
        }
