"""`attrib.split`: any classifier, without configuration, to a `SpatialClassifier`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from attrib import surgery
from attrib.errors import InputError, SplitError
from attrib.models.anatomy import Anatomy, Flattening, Parts, Tapped, recognise
from attrib.models.classifier import SpatialClassifier, Stage
from attrib.models.output import Output, logits_of
from attrib.models.probe import discover, examine, noise, probing
from attrib.types import ModelSpec

__all__ = ["Need", "spec_from_timm", "spec_of", "split"]

Need = Literal["class_maps", "features"]
"""What a model is split for: with `"features"`, one without class maps is not refused."""

_FLATTENING = (
    "{name} has no class maps: it flattens its feature map into fully connected layers, so no "
    "single cell has a class score. attrib.to_gap(model) makes a version with global average "
    "pooling (to be fine-tuned), and gradient methods such as 'gradcam' work on the model as it is"
)
_UNKNOWN = (
    "cannot tell where {name} keeps its feature map: no linear layer that gives its logits reads "
    "the average of a feature map. Name the two parts, e.g. "
    "attrib.split(model, features='layer4', head='fc'); it holds: {children}"
)


def split(
    model: nn.Module,
    *,
    features: str | None = None,
    head: str | None = None,
    spec: ModelSpec | None = None,
    need: Need = "class_maps",
    output: Output | None = None,
) -> SpatialClassifier:
    """See a classifier as a trunk, a feature map and a head, and check what the head does to cells.

    Works without configuration on timm's and torchvision's classifiers, on any module with
    `forward_features` and `forward_head`, and on any whose last linear layer reads the average of
    a feature map. Runs the model once on noise. The model itself is not changed.

    Args:
        model: Any classifier that returns logits `[b, c]`, or something that holds them.
        features: Path of the module whose output is the feature map, for models not recognised.
        head: Path of the module that makes logits of a pooled vector; goes with `features`.
        spec: How to feed the model; by default what its timm configuration says, else ImageNet's
            mean and deviation at 224.
        need: With `"features"` a model without class maps is not refused: gradient methods need
            none. What is missing stands in the result's `note`.
        output: Where the logits are in what the model returns: `"logits"` for a key or an
            attribute, `0` for the first of a tuple, or a function that takes all of it and gives
            them. If left, the model returns them as they are.

    Raises:
        ModelError: the model is spread over devices by DataParallel or DistributedDataParallel.
        SplitError: the model has no class maps, or is not understood; the message says what to do.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"split takes a torch module, got {type(model).__name__}; "
            "attrib.load_model(name) makes one of a model name"
        )
    if (features is None) != (head is None):
        raise InputError("name both features= and head=, or neither")
    surgery.refuse_parallel(model)
    model = surgery.unwrap(model)
    spec = spec or spec_of(model)
    try:
        return _spatial(model, spec, _anatomy(model, spec, features, head, output), output)
    except SplitError as error:
        if need == "class_maps" or isinstance(error.__cause__, Exception):
            raise
        return _without_maps(model, spec, str(error), output)


def _anatomy(
    model: nn.Module,
    spec: ModelSpec,
    features: str | None,
    head: str | None,
    output: Output | None,
) -> Anatomy:
    name = type(model).__name__
    if features is not None and head is not None:
        for path in (features, *head.split(",")):
            surgery.submodule(model, path)
        return Tapped(features, head, output=output)
    known = recognise(model)
    if isinstance(known, Flattening):
        raise SplitError(_FLATTENING.format(name=name))
    if isinstance(known, Tapped):
        return replace(known, output=output)
    if isinstance(known, Parts) and output is None:  # else it is no mere sequence of its parts
        return known
    found = discover(model, spec, output)
    if found is None:
        children = ", ".join(path for path, _ in model.named_children())
        raise SplitError(_UNKNOWN.format(name=name, children=children))
    return found


def _spatial(
    model: nn.Module, spec: ModelSpec, anatomy: Anatomy, output: Output | None
) -> SpatialClassifier:
    found = examine(model, spec, anatomy)
    return SpatialClassifier(
        model=model,
        spec=spec,
        num_classes=found.num_classes,
        anatomy=anatomy,
        layout=found.layout,
        linear=found.linear,
        exact=found.exact,
        note=found.note,
        stages=_stages(model),
        output=output,
    )


def _without_maps(
    model: nn.Module, spec: ModelSpec, note: str, output: Output | None
) -> SpatialClassifier:
    images = noise(model, spec)
    with probing(model, images):
        classes = logits_of(model(images), output).shape[1]
    return SpatialClassifier(
        model=model,
        spec=spec,
        num_classes=classes,
        anatomy=None,
        layout=None,
        linear=None,
        exact=False,
        note=note,
        stages=_stages(model),
        output=output,
    )


def _stages(model: nn.Module) -> tuple[Stage, ...]:
    """List the trunk's steps as timm's `feature_info` gives them; empty where it says nothing."""
    info = getattr(model, "feature_info", None) or ()
    rows = [row for row in info if isinstance(row, Mapping) and "module" in row]
    return tuple(Stage(name=row["module"], stride=int(row["reduction"])) for row in rows)


def spec_of(model: nn.Module) -> ModelSpec:
    """Read how to feed a model: its `attrib_spec`, or timm's configuration, or defaults."""
    model = surgery.unwrap(model)
    carried = getattr(model, "attrib_spec", None)
    if isinstance(carried, ModelSpec):
        return carried
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or not config:
        return ModelSpec(name=type(model).__name__)
    spec = spec_from_timm(config)
    if len(spec.labels) != getattr(model, "num_classes", None):
        spec = replace(spec, labels=_imagenet_labels(model))
    return spec


def _imagenet_labels(model: nn.Module) -> tuple[str, ...]:
    """Name the classes of a timm model that has those of an ImageNet; else nothing."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if subset is None:
        return ()
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(i) for i in range(info.num_classes()))


def spec_from_timm(config: Mapping[str, Any]) -> ModelSpec:
    """Turn a timm `pretrained_cfg` into a `ModelSpec`."""
    fits = {"squash": "squash", "border": "pad"}
    names = {"bicubic": "bicubic", "nearest": "nearest"}
    size = config.get("input_size") or (3, 224, 224)
    architecture, tag = str(config.get("architecture", "")), str(config.get("tag", ""))
    name = ".".join(part for part in (architecture, tag) if part) or "timm"
    return ModelSpec(
        name=name,
        input_size=(int(size[1]), int(size[2])),
        mean=tuple(config.get("mean") or ModelSpec.mean),
        std=tuple(config.get("std") or ModelSpec.std),
        fit=fits.get(config.get("crop_mode", "center"), "crop"),  # type: ignore[arg-type]
        crop=float(config.get("crop_pct") or ModelSpec.crop),
        interpolation=names.get(config.get("interpolation", ""), "bilinear"),  # type: ignore[arg-type]
        labels=_label_names(config.get("label_names") or (), config.get("num_classes")),
        multi_label="multi-label" in (config.get("notes") or ()),
    )


def _label_names(names: Mapping[Any, str] | Sequence[str], count: int | None) -> tuple[str, ...]:
    """Put names in the order of the outputs; timm also keeps them by number, as text in JSON."""
    if not isinstance(names, Mapping):
        return tuple(names)
    known = {int(key): name for key, name in names.items() if str(key).isdecimal()}
    return tuple(known.get(i, str(i)) for i in range(count or len(known)))
