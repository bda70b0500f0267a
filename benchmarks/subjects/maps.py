"""What a map costs over the plain forward pass, beside the peers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import attrib
from benchmarks import peers
from benchmarks.harness import OURS, Budget, Candidate, Effort, Table, call, measure
from benchmarks.models import Work, prepare

TITLE = "Maps"
ABOUT = (
    "Raw maps of the most likely class, over the plain forward pass of the same batch. "
    "pytorch-grad-cam runs backward through the whole network, scales and resizes to the input; "
    "torchcam and Captum record the whole forward pass; attrib records from the layer on. In "
    "batches Grad-CAM stands for all gradient methods of a peer: they cost about the same. Where "
    "the target is missed: a class map costs a millisecond or two of small operations beyond the "
    "forward pass, which ResNet-50 hides and MobileNetV2, of 18 ms, does not; a ViT's head reads "
    "the class token, so that gradients are taken in its last block and go back through it; "
    "eigencam decomposes the products of the features of each picture."
)
LIMIT = 1.05
"""Target: a map of the CAM family costs hardly more than the forward pass."""

CLASS_MAPS = ("cam", "infocam", "infocam+")
GRADIENTS = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam")
OTHERS = ("eigencam",)
ATTENTION = ("rollout", "generic-attention")
"""No maps of the CAM family, so without a target: they read every layer's attention."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One table: a model, a batch of images and how long to measure."""

    model: str
    batch: int
    budget: Budget
    size: int = 224


MODELS = (
    "torchvision/resnet50",
    "torchvision/mobilenet_v2",
    "convnext_tiny",
    "vit_small_patch16_224",
)
SETTINGS = tuple(
    Setting(model=model, batch=batch, budget=budget)
    for batch, budget in ((1, Budget(seconds=15)), (16, Budget(seconds=30)))
    for model in MODELS
)


def tables(effort: Effort, settings: Sequence[Setting] = SETTINGS) -> Iterator[Table]:
    """Check agreement, then measure, for every setting."""
    for setting in settings:
        yield table(setting, effort)


def table(setting: Setting, effort: Effort) -> Table:
    work = prepare(setting.model, setting.batch, setting.size, effort.device)
    found, missing = peers.installed(peers.PEERS)
    whole = setting.batch == 1
    notes = [*missing, *(peers.told(peers.agreements(work, found)) if whole else ())]
    others = [c for peer in found for c in _of(work, peer, whole=whole)]
    return measure(
        f"{setting.model}, batch {setting.batch}, {setting.size} pixels",
        [call("torch", "forward", work.forward), *own(work), *others],
        setting.budget,
        effort,
        notes=notes,
    )


def own(work: Work) -> list[Candidate]:
    """List attrib's methods that go with a model."""
    attention = ATTENTION if work.layer.startswith("blocks.") else ()
    limited = [candidate(work, m, LIMIT) for m in (*CLASS_MAPS, *GRADIENTS, *OTHERS)]
    return [*limited, *(candidate(work, m) for m in attention)]


def candidate(work: Work, method: str, limit: float | None = None) -> Candidate:
    explainer = attrib.Explainer(work.classifier, method)
    return call(OURS, method, partial(explainer, work.images, work.labels), limit=limit)


def _of(work: Work, peer: peers.Peer, *, whole: bool) -> list[Candidate]:
    found = peers.candidates(work, peer)
    return [c for method, c in found.items() if whole or method in ("cam", "gradcam")]
