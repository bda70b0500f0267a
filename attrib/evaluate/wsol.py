"""Runs a method over a data set and scores its boxes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from attrib.datasets.samples import BoxDataset, BoxSample
from attrib.errors import InputError
from attrib.explain import Explainer
from attrib.images import boxes_to_tensor, preprocess, read_image
from attrib.metrics import InfoCAMProtocol
from attrib.registry import format_spec
from attrib.surgery import dtype_of

__all__ = ["evaluate_wsol"]


def evaluate_wsol(
    explainer: Explainer,
    dataset: BoxDataset,
    protocol: InfoCAMProtocol,
    *,
    batch_size: int = 16,
    limit: int | None = None,
    progress: bool | None = False,
) -> dict[str, Any]:
    """Localise the labelled object of every picture and score the boxes.

    Args:
        explainer: Model and method.
        dataset: Pictures with a class and one box each.
        protocol: Fresh; is filled.
        batch_size: Pictures per forward pass.
        limit: Score only the first so many pictures.
        progress: Show a bar; None for one on terminals only.

    Returns:
        The protocol's figures, with data set, model, method and seconds per image.

    Raises:
        InputError: the data set has classes that the model has not, or other ones.
    """
    explainer.check_labels(dataset.name, dataset.labels)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    started = time.perf_counter()
    for batch in _batches(dataset, count, batch_size, progress):
        _score(explainer, batch, protocol)
    elapsed = time.perf_counter() - started
    classifier = explainer.classifier
    return {
        "schema": "attrib.wsol/1",
        "dataset": dataset.name,
        "model": classifier.spec.name,
        "method": format_spec(explainer.method),
        "exact": classifier.exact or not explainer.method.needs_class_maps,
        **protocol.result(),
        "seconds_per_image": elapsed / max(count, 1),
    }


def _batches(
    dataset: BoxDataset, count: int, size: int, progress: bool | None
) -> Iterator[list[BoxSample]]:
    from tqdm import tqdm

    with tqdm(
        total=count, disable=None if progress is None else not progress, unit="picture", leave=False
    ) as bar:
        for start in range(0, count, size):
            batch = [dataset[i] for i in range(start, min(start + size, count))]
            yield batch
            bar.update(len(batch))


def _score(explainer: Explainer, batch: list[BoxSample], protocol: InfoCAMProtocol) -> None:
    classifier = explainer.classifier
    images, frames = preprocess(
        [read_image(sample.picture) for sample in batch],
        classifier.spec,
        fit=explainer.fit,
        device=classifier.device,
        dtype=dtype_of(classifier.model),
    )
    attribution = replace(explainer(images, [s.label for s in batch]), frames=frames)
    boxes = [boxes_to_tensor(s.boxes, f) for s, f in zip(batch, frames, strict=True)]
    if any(len(box) != 1 for box in boxes):
        raise InputError("the infocam protocol scores pictures with exactly one box each")
    protocol.update(attribution, torch.cat(boxes))
