"""Other pictures in RIB's batch: drawn anew at each step, or as their expected gradient."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attrib.errors import InputError
from attrib.methods.rib.options import Pool, RIBOptions
from attrib.methods.rib.pooling import loss_of, pool
from attrib.models.learner import Learner, Prepared

__all__ = ["Drawn", "Expectation", "PreparedPool", "check_pool"]

CHUNK = 8
"""Pool pictures per pass."""
ON_DEVICE = 2 << 30
"""Bytes of frozen features that may lie on the device; more lie in the host's memory."""
IN_MEMORY = 8 << 30
"""Bytes that the expected gradients may take."""

Drawn = Callable[[int], tuple[Prepared, Bool[Tensor, "m c"]]]
"""Gives a step's other pictures and their labels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Expectation:
    """The gradient that others would bring on average.

    Args:
        gradient: By name of the trained parameter; parameters that get none are absent.
    """

    gradient: dict[str, Tensor]


def check_pool(pool: Pool, labels: Bool[Tensor, "n c"], options: RIBOptions) -> None:
    """Make sure that a pool has others for each of these sets of classes.

    Raises:
        InputError: one with too few pictures that share no class with it.
    """
    shared = labels.cpu().float() @ pool.labels.cpu().T.float()
    fewest, row = (shared == 0).sum(1).min(0)
    wanted = 1 if pool.expected else max(options.num_others, 1)
    if fewest < wanted:
        classes = labels[row].nonzero().flatten().tolist()
        raise InputError(
            f"the pool has {int(fewest)} pictures that share no class with one of classes "
            f"{classes}, {wanted} are wanted; enlarge pool_pictures or lower num_others"
        )


class PreparedPool:
    """A pool that has been through the frozen part of a network once.

    Args:
        learner: The network.
        pictures: What to draw from.
        options: See `RIBOptions`.
    """

    def __init__(self, learner: Learner, pictures: Pool, options: RIBOptions) -> None:
        self._learner, self._options, self._pictures = learner, options, pictures
        self._labels = pictures.labels.cpu()
        self._expected = pictures.expected
        device = learner.classifier.device
        parts = []
        for images in pictures.images.split(CHUNK):
            part = learner.prepare(images.to(device))
            size, bytes_each = part.size, part.features[0].nbytes
            stays = bytes_each * len(pictures.images) <= ON_DEVICE
            parts.append(part.features if stays else part.features.cpu())
        self._features, self._size = torch.cat(parts), size
        if self._features.device.type == "cpu" and device.type == "cuda":
            self._features = self._features.pin_memory()
        self._sums: dict[tuple[int, ...], tuple[int, dict[str, Tensor]]] = {}
        if self._expected:
            self._sums = self._gradients()

    def others(self, labels: Bool[Tensor, " c"], key: str = "") -> Drawn | Expectation:
        """Return what the others of one picture contribute.

        Args:
            labels: The picture's classes.
            key: Names the picture: others are drawn by it and the seed, whatever came before.
        """
        check_pool(self._pictures, labels[None], self._options)
        if self._expected:
            return self._expectation(labels)
        rows = (self._labels.float() @ labels.cpu().float() == 0).nonzero().flatten()
        generator = torch.Generator().manual_seed(self._options.seed ^ zlib.crc32(key.encode()))
        count = self._options.num_others
        picks = [
            rows[torch.randperm(len(rows), generator=generator)[:count]]
            for _ in range(self._options.steps)
        ]
        return lambda step: self._part(picks[step])

    def _part(self, rows: Int[Tensor, " m"]) -> tuple[Prepared, Bool[Tensor, "m c"]]:
        device = self._learner.classifier.device
        features = self._features[rows.to(self._features.device)].to(device, non_blocking=True)
        return Prepared(features=features, size=self._size), self._labels[rows].to(device)

    def _gradients(self) -> dict[tuple[int, ...], tuple[int, dict[str, Tensor]]]:
        """Add up the gradients of pictures with the same classes; return counts and sums."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, labels in enumerate(self._labels):
            groups.setdefault(tuple(labels.nonzero().flatten().tolist()), []).append(row)
        names, parameters = zip(*self._learner.trained(), strict=True)
        size = len(groups) * sum(p.nbytes for p in parameters)
        if size > IN_MEMORY:
            raise InputError(
                f"expected gradients of {len(groups)} sets of classes take {size >> 20} MiB, more "
                f"than {IN_MEMORY >> 20}; lower pool_pictures, or raise train_from"
            )
        self._learner.reset()
        found = {}
        for classes, rows in groups.items():
            total: dict[str, Tensor] = {}
            for part in torch.tensor(rows).split(CHUNK):
                for name, gradient in zip(names, self._gradient(part, parameters), strict=True):
                    if gradient is not None:
                        total[name] = total[name].add_(gradient) if name in total else gradient
            found[classes] = (len(rows), total)
        return found

    @torch.enable_grad()
    def _gradient(
        self, rows: Int[Tensor, " m"], parameters: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        prepared, labels = self._part(rows)
        logits = pool(self._learner.class_maps(prepared), labels, self._options)
        loss = loss_of(logits, labels, self._options)
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    def _expectation(self, labels: Bool[Tensor, " c"]) -> Expectation:
        own = set(labels.nonzero().flatten().tolist())
        disjoint = [entry for classes, entry in self._sums.items() if not own & set(classes)]
        scale = self._options.num_others / sum(count for count, _ in disjoint)
        total: dict[str, Tensor] = {}
        for _, gradient in disjoint:
            for name, value in gradient.items():
                total[name] = total[name].add_(value) if name in total else value.clone()
        return Expectation(gradient={name: value.mul_(scale) for name, value in total.items()})
