"""Which classes to explain: from what a user says to (image, class) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError, TargetError, UnknownNameError
from attrib.models import SpatialClassifier
from attrib.types import TargetRule, Targets

__all__ = [
    "TargetsLike",
    "argmax",
    "check_labels",
    "classes_per_picture",
    "label_index",
    "resolve_targets",
]

Class = int | str
TargetsLike = None | Class | Sequence[Class | Sequence[Class]] | Tensor | Targets
"""None for the most likely class; a class (index or label name) for every image; one class, or a
list of classes, per image; a multi-hot matrix `[b, c]`; or `Targets`."""


def argmax(logits: Float[Tensor, "b c"]) -> Targets:
    """Choose the most likely class of each image."""
    image = torch.arange(len(logits), device=logits.device)
    return Targets(image=image, label=logits.argmax(1))


def resolve_targets(targets: TargetsLike, images: int, labels: Sequence[str]) -> TargetRule:
    """Turn what a user may say into a rule that gives pairs once the logits are known.

    Args:
        targets: See `TargetsLike`.
        images: Size of the batch.
        labels: The model's label names; empty if it has none.

    Raises:
        TargetError: a wrong number of targets, or one that is no class.
        UnknownNameError: a label name that the model does not have; gives the nearest.
    """
    if targets is None:
        return argmax
    if isinstance(targets, Targets):
        return targets
    if isinstance(targets, Tensor):
        return _from_tensor(targets, images)
    if isinstance(targets, int | str):
        targets = [targets] * images
    if not isinstance(targets, Sequence):
        raise TargetError(
            "targets are None, a class, a list with one class or list of classes per image, a "
            f"multi-hot matrix or Targets; got {type(targets).__name__}"
        )
    if len(targets) != images:
        raise TargetError(
            f"got {len(targets)} targets for {images} images; give one class, or one list of "
            "classes, per image"
        )
    pairs = [(i, label_index(t, labels)) for i, row in enumerate(targets) for t in _as_list(row)]
    image, label = zip(*pairs, strict=True) if pairs else ((), ())
    return Targets(
        image=torch.tensor(image, dtype=torch.int64), label=torch.tensor(label, dtype=torch.int64)
    )


def classes_per_picture(
    targets: TargetsLike, count: int, labels: Sequence[str], *, single: bool
) -> list[list[int]] | None:
    """Bring targets to one list of class indices per picture; None for the argmax.

    Args:
        targets: See `TargetsLike`; for a single picture a flat list is its classes.
        count: How many pictures.
        labels: The model's label names; empty if it has none.
        single: One picture was given, not a list of one.
    """
    if targets is None:
        return None
    if single and isinstance(targets, Sequence) and not isinstance(targets, str):
        nested = any(isinstance(t, Sequence) and not isinstance(t, str) for t in targets)
        targets = targets if nested else [cast(Any, targets)]
    pairs = cast(Targets, resolve_targets(targets, count, labels))
    rows: list[list[int]] = [[] for _ in range(count)]
    for image, label in zip(pairs.image.tolist(), pairs.label.tolist(), strict=True):
        rows[image].append(label)
    return rows


def _as_list(value: Class | Sequence[Class]) -> Sequence[Class]:
    return [value] if isinstance(value, str) or not isinstance(value, Sequence) else value


def _from_tensor(targets: Tensor, images: int) -> Targets:
    if len(targets) != images or targets.ndim not in (1, 2):
        raise TargetError(
            f"a target tensor has shape [{images}] (one class per image) or [{images}, c] "
            f"(multi-hot), got {tuple(targets.shape)}"
        )
    if targets.ndim == 1:
        if targets.is_floating_point() or targets.dtype == torch.bool:
            raise TargetError(f"class indices are integers, got {targets.dtype}")
        image = torch.arange(images, device=targets.device)
        return Targets(image=image, label=targets.long())
    if not bool(((targets == 0) | (targets == 1)).all()):
        raise TargetError("a multi-hot target matrix holds only 0 and 1")
    image, label = targets.nonzero(as_tuple=True)
    return Targets(image=image, label=label)


def label_index(label: Class, labels: Sequence[str]) -> int:
    """Return the index of a class given by index or by name.

    A name is matched regardless of case, whole or as one of the synonyms between commas.
    """
    if isinstance(label, int) and not isinstance(label, bool):
        return label
    if not isinstance(label, str):
        raise TargetError(f"a class is an index or a label name, got {label!r}")
    if not labels:
        raise TargetError(f"the model carries no label names; give {label!r} as an index")
    wanted = label.strip().lower()
    for index, name in enumerate(labels):
        if wanted == name.lower():
            return index
    for index, name in enumerate(labels):
        if wanted in (part.strip() for part in name.lower().split(",")):
            return index
    raise UnknownNameError("label", label, labels)


def check_labels(classifier: SpatialClassifier, name: str, labels: Sequence[str]) -> None:
    """Make sure that a data set's classes are the model's, or the first of them.

    Args:
        classifier: The model.
        name: Of the data set, for the message.
        labels: Its class names, in order.

    Raises:
        InputError: the model has fewer classes, or other ones.
    """
    spec, classes = classifier.spec, classifier.num_classes
    if len(labels) > classes:
        raise InputError(
            f"{name} has {len(labels)} classes, {spec.name} only {classes}; use a model "
            "trained on this data set"
        )
    for own, wanted in zip(spec.labels, labels, strict=False):
        if own != wanted:
            raise InputError(
                f"class names differ: {spec.name} has {own!r} where {name} has {wanted!r}"
            )
