"""Whatever a user gives as a model → `SpatialClassifier`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import nn

from attrib.errors import InputError
from attrib.models.classifier import SpatialClassifier
from attrib.models.load import load_model
from attrib.models.output import Output
from attrib.models.split import Need, split
from attrib.surgery import dtype_of
from attrib.types import ModelSpec

__all__ = ["ModelLike", "Precision", "as_classifier", "under_autocast"]

ModelLike = nn.Module | str | SpatialClassifier
"""A timm, torchvision or custom module, a name that `attrib.load_model` takes, or what
`attrib.split` made."""

Precision = Literal["bfloat16", "float16"]
"""What a network can be run in under autocast."""


def as_classifier(
    model: ModelLike,
    spec: ModelSpec | None = None,
    multi_label: bool | None = None,
    output: Output | None = None,
    *,
    need: Need = "class_maps",
) -> SpatialClassifier:
    """See a module, a name or a split model as a `SpatialClassifier`.

    Args:
        model: See `ModelLike`.
        spec: How to feed the model; by default what it carries.
        multi_label: True for a model with independent (sigmoid) outputs.
        output: Where the logits are in what the model returns; see `split`.
        need: See `split`.

    Raises:
        InputError: an `output` for a `SpatialClassifier`, which has its own.
        SplitError: the model has no class maps and `need` asks for them.
        UnknownNameError: no such model.
    """
    if isinstance(model, SpatialClassifier):
        if output not in (None, model.output):
            raise InputError("a SpatialClassifier has an output of its own; give it to split()")
        classifier = model if spec is None else replace(model, spec=spec)
    else:
        module = load_model(model) if isinstance(model, str) else model
        classifier = split(module, spec=spec, need=need, output=output)
    if multi_label is not None:
        classifier = replace(classifier, spec=replace(classifier.spec, multi_label=multi_label))
    return classifier


def under_autocast(classifier: SpatialClassifier, precision: Precision) -> SpatialClassifier:
    """Return a view of the same model that runs the network under autocast; it is not `exact`.

    Raises:
        InputError: no such precision, or weights that are of half precision themselves.
    """
    if precision not in get_args(Precision):
        raise InputError(f"autocast is 'bfloat16', 'float16' or None, got {precision!r}")
    own = dtype_of(classifier.model)
    if own.itemsize < 4:
        raise InputError(f"autocast is for weights in float32; {classifier.spec.name} has {own}")
    note = f"the network was run under {precision} autocast"
    return replace(classifier, autocast=getattr(torch, precision), exact=False, note=note)
