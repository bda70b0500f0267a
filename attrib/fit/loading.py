"""What training reads: labelled pictures, in an order and with crops that follow from a seed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from attrib.ahead import read_ahead
from attrib.datasets.labelled import LabelledDataset, LabelledSample
from attrib.errors import InputError

__all__ = ["ahead", "batches", "generator_of", "labelled_samples", "multi_hot", "seeded"]

T = TypeVar("T")
AHEAD = 2
"""Batches that threads read before they are asked for."""


def labelled_samples(dataset: LabelledDataset, *, exclusive: bool) -> list[LabelledSample]:
    """List a data set's pictures and check their classes.

    Args:
        dataset: Not empty.
        exclusive: Every picture is to have exactly one class.

    Raises:
        InputError: names the picture whose classes will not do.
    """
    samples = [dataset[i] for i in range(len(dataset))]
    if not samples or not dataset.labels:
        raise InputError(f"{dataset.name} has no pictures or no classes to learn")
    for sample in samples:
        if any(label not in range(len(dataset.labels)) for label in sample.labels):
            raise InputError(
                f"{dataset.name} has {len(dataset.labels)} classes, numbered from 0, "
                f"but {sample.id!r} has the classes {sample.labels}"
            )
        if exclusive and len(sample.labels) != 1:
            raise InputError(
                f"classes that exclude each other need exactly one per picture, {sample.id!r} of "
                f"{dataset.name} has {len(sample.labels)}; use loss='soft-margin' for a "
                "classifier, and a multi-label model for what is trained on one"
            )
    return samples


def multi_hot(samples: list[LabelledSample], classes: int) -> Bool[Tensor, "b c"]:
    """Say of every picture and class whether it is there."""
    labels = torch.zeros(len(samples), classes, dtype=torch.bool)
    for row, sample in zip(labels, samples, strict=True):
        row[list(sample.labels)] = True
    return labels


def batches(count: int, size: int, generator: torch.Generator) -> list[list[int]]:
    """Deal pictures into whole batches at random; what is left over has to wait."""
    order = torch.randperm(count, generator=generator).tolist()
    whole = max(1, count // size)
    return [order[size * i : size * (i + 1)] for i in range(whole)]


def ahead(
    read: Callable[[int], T], index: Sequence[Sequence[int]], readers: int
) -> Generator[list[T], None, None]:
    """Yield what is read for each batch of indices, in order, read ahead by so many threads."""
    depth = AHEAD * max(map(len, index), default=1)
    read_pairs = read_ahead(read, chain.from_iterable(index), readers=readers, depth=depth)
    for batch in index:
        yield [future.result() for _, future in islice(read_pairs, len(batch))]


def generator_of(*key: int) -> torch.Generator:
    """Make a generator on the CPU that follows from some numbers, 0 or more."""
    return torch.Generator().manual_seed(_seed(key))


@contextmanager
def seeded(device: torch.device, *key: int) -> Iterator[None]:
    """Let torch draw what follows from some numbers, then go on as if it had not."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(_seed(key))  # not torch's: it would seed every GPU
        for gpu in cuda:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(_seed(key))
        yield


def _seed(key: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0])
