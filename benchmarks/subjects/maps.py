"""What a map costs over the plain forward pass, beside the peers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import attrib
from benchmarks import peers
from benchmarks.harness import OURS, Budget, Candidate, Effort, Table, call, measure
from benchmarks.models import Work, operations, prepare

TITLE = "Maps"
ABOUT = (
    "Raw maps of the most likely class, over the plain forward pass of the same batch. "
    "pytorch-grad-cam runs backward through the whole network, scales and resizes to the input; "
    "torchcam and Captum record the whole forward pass; attrib records from the layer on, and "
    "takes the gradient for known before a linear head. In batches pytorch-grad-cam's Grad-CAM "
    "stands for those of its methods that torchcam, several times as fast, has too. The last table "
    "is of the methods that try the features one by one, on a small network and picture, as they "
    "take hundreds of forward passes. Not compared: infocam and infocam+, rollout and "
    "generic-attention, which none of the peers has; tta, smooth and fuse, which run the methods "
    "here several times; rib, iba and ib-mask, which are no CAMs."
)
LIMIT = 1.05
"""Target: a map of the CAM family costs hardly more than the forward pass."""

CLASS_MAPS = ("cam", "infocam", "infocam+")
GRADIENTS = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam")
OTHERS = ("eigencam",)
FAMILY = (*CLASS_MAPS, *GRADIENTS, *OTHERS)
TRIALS = ("scorecam", "ablationcam")
"""As many forward passes as there are channels, or passes through the head; so without a target."""
ATTENTION = ("rollout", "generic-attention")
"""No maps of the CAM family, so without a target: they read every layer's attention."""

STEPS = (
    "what is done beyond the forward pass costs the same on any network, and a note says how much: "
    "pictures and features are copied, modules kept from training, targets checked"
)
THROUGH_BLOCK = (
    "the class token goes through the last block and the head once more, and back: few operations, "
    "which a note counts, but they read all the weights there twice"
)
DECOMPOSED = "the products of the features of each picture are decomposed"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One table: a model, a batch of images, the methods and how long to measure."""

    model: str
    batch: int
    budget: Budget
    size: int = 224
    methods: tuple[str, ...] = FAMILY


MODELS = (
    "torchvision/resnet50",
    "torchvision/mobilenet_v2",
    "convnext_tiny",
    "vit_small_patch16_224",
)
SETTINGS = (
    *(
        Setting(model=model, batch=batch, budget=budget)
        for batch, budget in ((1, Budget(seconds=20)), (16, Budget(seconds=30, least=2)))
        for model in MODELS
    ),
    Setting(
        model="torchvision/resnet18",
        batch=1,
        budget=Budget(seconds=20, least=2, warm=0),
        size=96,
        methods=TRIALS,
    ),
)


def tables(effort: Effort, settings: Sequence[Setting] = SETTINGS) -> Iterator[Table]:
    """Check agreement, then measure, for every setting."""
    for setting in settings:
        yield table(setting, effort)


def table(setting: Setting, effort: Effort) -> Table:
    work = prepare(setting.model, setting.batch, setting.size, effort.device)
    found, missing = peers.installed(peers.PEERS)
    whole = setting.batch == 1
    notes = [*missing, *(_told(work, found, setting) if whole else ())]
    theirs = {peer.name: peers.candidates(work, peer, setting.methods) for peer in found}
    made = measure(
        f"{setting.model}, batch {setting.batch}, {setting.size} pixels",
        [
            call("torch", "forward", work.forward),
            *own(work, setting.methods),
            *(theirs_whole(theirs) if whole else theirs_in_batches(theirs)),
        ],
        setting.budget,
        effort,
        notes=notes,
    )
    if setting.methods != FAMILY:
        return made
    return replace(made, notes=(*made.notes, _beyond(made), *_counted(work)))


def _beyond(table: Table) -> str:
    """Say how many milliseconds each method takes beyond the forward pass of its round."""
    forward, allowed = table.rows[0].values, (LIMIT - 1) * table.rows[0].value
    more = [
        f"{row.what} {median(a - b for a, b in zip(row.values, forward, strict=True)):.1f}"
        for row in table.rows
        if row.limit is not None
    ]
    return f"Beyond the forward pass, {allowed:.1f} ms allowed: {', '.join(more)} ms."


def _counted(work: Work) -> list[str]:
    """Count a method's operations where its gradients go through a block."""
    if not work.layer.startswith("blocks."):
        return []
    explainer = attrib.Explainer(work.classifier, "gradcam")
    ratio = operations(partial(explainer, work.images, work.labels)) / operations(work.forward)
    return [f"gradcam's operations, counted, are {ratio:.3f} times those of the forward pass."]


def _told(work: Work, found: Sequence[peers.Peer], setting: Setting) -> list[str]:
    return peers.told(peers.agreements(work, found, setting.methods))


def own(work: Work, methods: Sequence[str]) -> list[Candidate]:
    """List attrib's methods that go with a model."""
    attention = ATTENTION if work.layer.startswith("blocks.") and methods == FAMILY else ()
    return [candidate(work, method) for method in (*methods, *attention)]


def candidate(work: Work, method: str) -> Candidate:
    explainer = attrib.Explainer(work.classifier, method)
    return call(
        OURS,
        method,
        partial(explainer, work.images, work.labels),
        limit=LIMIT if method in FAMILY else None,
        why=_why(work, method),
    )


def _why(work: Work, method: str) -> str:
    if method in GRADIENTS and work.layer.startswith("blocks."):
        return THROUGH_BLOCK
    return DECOMPOSED if method in OTHERS else STEPS if method in FAMILY else ""


Theirs = dict[str, dict[str, Candidate]]


def theirs_whole(theirs: Theirs) -> list[Candidate]:
    return [candidate for own in theirs.values() for candidate in own.values()]


def theirs_in_batches(theirs: Theirs) -> list[Candidate]:
    """Leave out what torchcam has too and pytorch-grad-cam takes long for, but for Grad-CAM."""
    left_out = theirs.get("torchcam", {}).keys() - {"gradcam"}
    slow = {m: c for m, c in theirs.get("pytorch-grad-cam", {}).items() if m not in left_out}
    return theirs_whole({**theirs, "pytorch-grad-cam": slow})
