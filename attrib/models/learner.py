"""A copy of a classifier that can be trained from some stage on, and its frozen part run once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib import surgery
from attrib.errors import SplitError
from attrib.models.classifier import SpatialClassifier
from attrib.models.layout import detect
from attrib.models.probe import Call, noise, probing, record

__all__ = ["Boundary", "Learner", "Prepared", "boundary"]

STUB = 8
"""Side of the picture that stands in for the real one when the frozen part is passed over."""


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Where the frozen part of a trunk ends.

    Args:
        path: The last frozen module; empty if the whole trunk is trained.
        passed: The modules before it, which need not run once its output is known.
        frozen: Names of the parameters up to and including it.
    """

    path: str
    passed: tuple[str, ...]
    frozen: frozenset[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Images on their way: what the frozen part makes of them, and how large they were."""

    features: Tensor
    size: tuple[int, int]


def boundary(classifier: SpatialClassifier, stride: int) -> Boundary:
    """Find the last module of the trunk whose cells are at most `stride` input pixels wide.

    Only modules that nothing can bypass come into question: those in no other module than a
    `Sequential`, so that all that follows is computed from their output.
    """
    model, spec = classifier.model, classifier.spec
    images = noise(model, spec)
    with probing(model, images):
        calls, _ = record(model, images, classifier.output)
    found = None
    for index, call in enumerate(calls):
        if _stands_alone(model, call.path):
            width = _stride(call, spec.input_size)
            if width > stride:
                break
            found = index if width > 0 else found
    if found is None:
        return Boundary(path="", passed=(), frozen=frozenset())
    path = calls[found].path
    before = [c.path for c in calls[:found] if _stands_alone(model, c.path)]
    before = [p for p in before if not _inside(path, p) and not _inside(p, path)]
    passed = tuple(p for p in before if not any(_inside(p, q) for q in before if q != p))
    frozen = frozenset(
        name
        for name, _ in model.named_parameters()
        if any(name.startswith(f"{p}.") for p in (*passed, path))
    )
    return Boundary(path=path, passed=passed, frozen=frozen)


def _inside(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}.")


def _stands_alone(model: nn.Module, path: str) -> bool:
    steps = path.split(".")
    parents = [model.get_submodule(".".join(steps[:i])) for i in range(1, len(steps))]
    return all(isinstance(p, nn.Sequential | nn.ModuleList) for p in parents)


def _stride(call: Call, input_size: tuple[int, int]) -> float:
    """Input pixels per cell of what a module returns; 0 if that is no grid."""
    layout = detect(call.output, input_size)
    if layout is None or not isinstance(call.output, Tensor):
        return 0
    return input_size[0] / layout.grid(call.output, input_size).shape[2]


class Learner:
    """A private copy of a classifier, trained from a stride on; the user's model is never written.

    Args:
        classifier: The model, split.
        stride: Stages with wider cells than this are trained, the others are frozen and run once.
        bfloat16: Run the network under autocast; class maps are computed in the weights' type.
        channels_last: Lay out the copy's weights, and with them all activations, so.
    """

    def __init__(
        self,
        classifier: SpatialClassifier,
        stride: int,
        *,
        bfloat16: bool = False,
        channels_last: bool = False,
    ) -> None:
        self.boundary = boundary(classifier, stride)
        self._bfloat16 = bfloat16
        self._layout = torch.channels_last if channels_last else torch.preserve_format
        model = surgery.frozen_copy(classifier.model)
        model.to(memory_format=self._layout)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in self.boundary.frozen)
        self.classifier = replace(classifier, model=model)
        self._start = {n: p.detach().clone() for n, p in self.trained()}
        with surgery.inference(model):
            self.caches = self._can_pass_over()

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name the parameters that are trained."""
        for name, parameter in self.classifier.model.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the trained parameters of the trunk, and those of a linear head."""
        head = f"{self.classifier.linear}." if self.classifier.linear else "\0"
        trunk = [p for n, p in self.trained() if not n.startswith(head)]
        return trunk, [p for n, p in self.trained() if n.startswith(head)]

    def reset(self) -> None:
        """Bring every weight back to the user's."""
        with torch.no_grad():
            for name, parameter in self.trained():
                parameter.copy_(self._start[name])
                parameter.grad = None

    def prepare(self, images: Float[Tensor, "b _ h w"]) -> Prepared:
        """Run the frozen part once."""
        size = (images.shape[-2], images.shape[-1])
        if not self.caches:
            return Prepared(features=images, size=size)
        path = self.boundary.path
        with torch.no_grad(), self._autocast():
            images = images.to(memory_format=self._layout)
            features = surgery.run_until(self.classifier.model, path, images)
        return Prepared(features=features, size=size)

    def class_maps(self, prepared: Prepared) -> Float[Tensor, "b c u v"]:
        """Run the trained part and the head, recording gradients if they are enabled."""
        classifier, model = self.classifier, self.classifier.model
        anatomy, layout = classifier.anatomy, classifier.layout
        if anatomy is None or layout is None:
            raise SplitError(classifier.note)
        images = prepared.features
        passing: AbstractContextManager[None] = nullcontext()
        if self.caches:
            channels = len(classifier.spec.mean)
            images = images.new_zeros(len(images), channels, STUB, STUB)
            passing = surgery.passed_over(
                model, self.boundary.passed, self.boundary.path, prepared.features
            )
        with passing, self._autocast():
            raw, _ = anatomy.forward(model, images)
            grid = anatomy.activate(layout.grid(raw, prepared.size))  # type: ignore[arg-type]
        grid = grid.to(surgery.dtype_of(model))
        if classifier.linear is not None:
            weight = surgery.submodule(model, classifier.linear).weight
            return torch.einsum("ck,bkuv->bcuv", weight.flatten(1), grid)  # type: ignore[operator]
        b, _, u, v = grid.shape
        cells = anatomy.cells(model, grid.permute(0, 2, 3, 1).flatten(0, 2), layout)
        return cells.view(b, u, v, -1).permute(0, 3, 1, 2)

    def _autocast(self) -> AbstractContextManager[object]:
        kind = self.classifier.device.type
        return torch.autocast(kind, torch.bfloat16) if self._bfloat16 else nullcontext()

    def _can_pass_over(self) -> bool:
        """Try on noise whether the trained part computes the same from the frozen part's output."""
        self.caches = False
        if not self.boundary.path:
            return False
        images = noise(self.classifier.model, self.classifier.spec)
        want = self.class_maps(self.prepare(images))
        self.caches = True
        try:
            got = self.class_maps(self.prepare(images))
        except (RuntimeError, ValueError, IndexError):
            return False
        rtol, atol = (0.05, 0.05) if self._bfloat16 else (1e-4, 1e-5)
        return got.shape == want.shape and torch.allclose(got, want, rtol=rtol, atol=atol)
