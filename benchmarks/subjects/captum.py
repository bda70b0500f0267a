"""Methods that Captum has too, beside Captum called by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import attrib
from benchmarks import by_hand
from benchmarks.by_hand import ByHand
from benchmarks.harness import OURS, Budget, Effort, Table, call, measure
from benchmarks.models import Work, prepare

TITLE = "Captum's methods"
ABOUT = (
    "The same computation beside Captum called by hand, on one picture, over the plain forward "
    "pass. attrib's also gives the logits, and leaves everything as it was: methods of one pass "
    "have them from it, those that hide parts count them among theirs, and the rest make them by "
    "one more. Both are checked to give the same maps. "
    "First the large ones on a MobileNetV2: integrated gradients of 32 steps, occlusion by a "
    "window of 32 pixels (169 places), KernelSHAP of 200 sets of 49 squares; this one also for "
    "three classes, which Captum explains one by one. Then the others, on a SqueezeNet, as "
    "Captum's rules for ReLUs, DeepLift and LRP want modules that are used once and not in place. "
    "Batches of 16. Not compared: `captum(...)`, which calls any of Captum's methods by its name."
)
LARGE, SMALL = Budget(seconds=14, least=3, most=9), Budget(seconds=4, least=3, most=15)
MODEL, RECTIFIED, LAYER = "torchvision/mobilenet_v2", "torchvision/squeezenet1_1", "features.12"
BATCH, STEPS, SAMPLES, PARTS = 16, 32, 200, 49

KNOWN_DIFFERENCES = {
    "deeplift": "Captum's rule drops what two windows of a max pool take from one place",
}
"""Methods whose maps may differ, and why. They are timed all the same: the work is the same."""
ONE_MORE = "attrib makes the logits too, by a forward pass of its own"
BESIDES = "pictures are copied, modules kept from training and targets checked"
WITHIN = {
    "saliency",
    "input-x-gradient",
    "guided-backprop",
    "deconvolution",
    "guided-gradcam",
    "deeplift",
    "lrp",
    "occlusion",
    "feature-ablation",
    "shapley-sampling",
    "kernel-shap",
}
"""Methods whose passes give the logits."""


def tables(
    effort: Effort,
    model: str = MODEL,
    rectified: str = RECTIFIED,
    steps: int = STEPS,
    samples: int = SAMPLES,
    size: int = 224,
) -> Iterator[Table]:
    """Measure one method per table."""
    window, work = size // 7, prepare(model, 1, size)
    shap, *others = by_hand.parts(PARTS, BATCH, samples, 1).items()
    large: dict[str, ByHand] = {
        f"integrated-gradients(steps={steps})": partial(by_hand.integrated_gradients, steps, BATCH),
        f"occlusion(window={window})": partial(by_hand.occlusion, window, BATCH),
        **dict([shap]),
    }
    for spec, hand in large.items():
        yield _table(work, spec, hand, LARGE, effort)
    yield _table(work, *shap, LARGE, effort, classes=3)
    work = prepare(rectified, 1, size)
    _not_in_place(work.model)
    for spec, hand in {**by_hand.gradients(LAYER, BATCH), **dict(others)}.items():
        yield _table(work, spec, hand, SMALL, effort)


def _table(
    work: Work, spec: str, hand: ByHand, budget: Budget, effort: Effort, classes: int = 1
) -> Table:
    explainer = attrib.Explainer(work.classifier, spec)
    labels = work.logits.topk(classes).indices[0].tolist()
    ours, theirs = partial(explainer, work.images, [labels]), partial(_each, hand, work, labels)
    name = explainer.method.name
    candidates = [
        call("torch", "forward", work.forward),
        call("Captum", name, theirs),
        call(OURS, name, ours, why=BESIDES if name in WITHIN else ONE_MORE),
    ]
    notes = _agree(name, ours().maps, theirs())
    several = f", {classes} classes" if classes > 1 else ""
    table = measure(f"{spec}, {work.name}{several}", candidates, budget, effort, notes=notes)
    return replace(table, notes=(*table.notes, _difference(table)))


def _each(hand: ByHand, work: Work, labels: list[int]) -> Tensor:
    """Call Captum for one class after the other."""
    asked = F.one_hot(torch.tensor(labels), work.logits.shape[1])
    return torch.cat([hand(replace(work, logits=logits[None])) for logits in asked])


def _difference(table: Table) -> str:
    """Say how much longer attrib's takes than Captum's, in forward passes of the same rounds."""
    forward, _again, theirs, ours = (row.values for row in table.rows)
    more = [(a - b) / c for a, b, c in zip(ours, theirs, forward, strict=True)]
    found = median(more)
    return f"attrib's takes {abs(found):.1f} forward passes {'more' if found > 0 else 'less'}."


def _not_in_place(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False


def _agree(name: str, ours: Tensor, theirs: Tensor) -> list[str]:
    """Compare the maps, to a thousandth of the largest value; say where they may differ.

    Raises:
        RuntimeError: they differ, so that there is nothing to compare.
    """
    error = float((ours - theirs).abs().max() / ours.abs().max())
    if error < 1e-3:
        return [f"The same maps (largest difference {error:.0e})."]
    if name in KNOWN_DIFFERENCES:
        return [f"Not the same maps: {KNOWN_DIFFERENCES[name]}."]
    raise RuntimeError(f"{name} differs from Captum's by {error:.1e}, so nothing was timed")
