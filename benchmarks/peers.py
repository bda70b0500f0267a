"""Other libraries that make maps, used as they document it, and whether they make the same.

Hooks are set up outside the timed call and removed after it, so that no candidate pays for
another's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import attrib
from benchmarks.harness import Candidate
from benchmarks.models import Work

__all__ = [
    "INSTALL",
    "PEERS",
    "Agreement",
    "Peer",
    "agreements",
    "candidates",
    "installed",
    "missing",
    "told",
]

INSTALL = "pip install 'attrib[bench]'"
TOGETHER = 32
"""Pictures or features in a pass of the methods that try them one by one, as attrib's default."""
SAME = (0.999, 5e-3)
"""Maps are the same above this correlation and below this difference; see `Agreement`."""

KNOWN_DIFFERENCES = {
    ("pytorch-grad-cam", "gradcam++"): "its 1e-6 outweighs g^2 in the denominator of alpha",
    ("torchcam", "gradcam++"): "it divides a copy, so that alpha stays g^2",
    ("pytorch-grad-cam", "xgradcam"): "its 1e-7 outweighs the sums of faint channels",
    ("torchcam", "xgradcam"): "its 1e-8 outweighs the sums of faint channels",
    (
        "pytorch-grad-cam",
        "eigencam",
    ): "it projects centred features, and leaves their sign to chance",
    ("pytorch-grad-cam", "scorecam"): "it enlarges with corners aligned",
}
"""Maps that may differ from attrib's, which follow the papers' equations, and why. They are timed
all the same: the work is the same."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library that also makes maps.

    Args:
        name: As people call it.
        module: As it is imported.
        classes: Its class for each method, by attrib's name.
        ready: Given a class and the work, what `Candidate.ready` says.
        maps: Takes the maps `[n, u, v]` out of what a call returns.
        scaled: Its maps are scaled to 0 .. 1, so that only their shape can be compared.
        tokens: It can be told how to make a grid of a transformer's tokens.
    """

    name: str
    module: str
    classes: dict[str, str]
    ready: Callable[[Any, Work], AbstractContextManager[Callable[[], Any]]]
    maps: Callable[[Any], Tensor]
    scaled: bool = True
    tokens: bool = False


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a peer's maps compare with attrib's on the same model and batch.

    Args:
        peer: Library.
        method: Name in attrib.
        correlation: Over all values of all maps.
        difference: Largest one, over the largest value of attrib's maps; after scaling both to
            0 .. 1, and attrib's to the peer's size, where the peer scales and resizes.
        known: Why the maps differ; empty where they must not.
    """

    peer: str
    method: str
    correlation: float
    difference: float
    known: str = ""

    @property
    def holds(self) -> bool:
        return bool(self.known) or self.same

    @property
    def same(self) -> bool:
        correlation, difference = SAME
        return self.correlation > correlation and self.difference < difference

    def __str__(self) -> str:
        verdict = "same" if self.same else self.known or "DIFFERENT"
        return (
            f"{self.peer} {self.method}: correlation {self.correlation:.6f}, largest difference "
            f"{self.difference:.1e}: {verdict}"
        )


@contextmanager
def _pytorch_grad_cam(make: Any, work: Work) -> Iterator[Callable[[], Any]]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(label) for label in work.labels]
    layers = [work.model.get_submodule(work.layer)]
    reshape = _grid_of_tokens if work.layer.startswith("blocks.") else None
    extractor = make(model=work.model, target_layers=layers, reshape_transform=reshape)
    extractor.batch_size = TOGETHER
    # Not `with extractor`, which would swallow an IndexError.
    try:
        with redirect_stderr(StringIO()):  # it shows progress bars
            yield partial(extractor, input_tensor=work.images, targets=targets)
    finally:
        extractor.activations_and_grads.release()
        work.model.zero_grad()


def _grid_of_tokens(tokens: Tensor) -> Tensor:
    side = round((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)


@contextmanager
def _torchcam(make: Any, work: Work) -> Iterator[Callable[[], Any]]:
    plain = make.__name__ == "CAM"
    options = {"fc_layer": work.classifier.linear} if plain else {}
    options |= {"batch_size": TOGETHER} if make.__name__ == "ScoreCAM" else {}
    with make(work.model, target_layer=work.layer, **options) as extractor:

        def from_weights() -> Any:
            with torch.inference_mode():
                work.model(work.images)
            return extractor(class_idx=work.labels)

        def from_gradients() -> Any:
            scores = work.model(work.images)
            return extractor(class_idx=work.labels, scores=scores)

        yield from_weights if plain else from_gradients


@contextmanager
def _captum(make: Any, work: Work) -> Iterator[Callable[[], Any]]:
    extractor = make(work.model, work.model.get_submodule(work.layer))
    yield partial(extractor.attribute, work.images, target=work.labels, relu_attributions=True)


PEERS = (
    Peer(
        name="pytorch-grad-cam",
        module="pytorch_grad_cam",
        classes={
            "gradcam": "GradCAM",
            "gradcam++": "GradCAMPlusPlus",
            "hirescam": "HiResCAM",
            "layercam": "LayerCAM",
            "xgradcam": "XGradCAM",
            "eigencam": "EigenCAM",
            "scorecam": "ScoreCAM",
            "ablationcam": "AblationCAM",
        },
        ready=_pytorch_grad_cam,
        maps=torch.from_numpy,
        tokens=True,
    ),
    Peer(
        name="torchcam",
        module="torchcam.methods",
        classes={
            "cam": "CAM",
            "gradcam": "GradCAM",
            "gradcam++": "GradCAMpp",
            "layercam": "LayerCAM",
            "xgradcam": "XGradCAM",
            "scorecam": "ScoreCAM",
        },
        ready=_torchcam,
        maps=lambda found: found[0],
    ),
    Peer(
        name="Captum",
        module="captum.attr",
        classes={"gradcam": "LayerGradCam"},
        ready=_captum,
        maps=lambda found: found.detach()[:, 0],
        scaled=False,
    ),
)


def installed(peers: Sequence[Peer]) -> tuple[list[Peer], list[str]]:
    """Tell the peers that can be imported, and say of the others what to do."""
    absent = [missing(peer.name, peer.module) for peer in peers]
    found = [peer for peer, says in zip(peers, absent, strict=True) if not says]
    return found, [says for says in absent if says]


def missing(name: str, module: str) -> str:
    """Say what to do if a library cannot be imported; empty if it can."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"{name} is missing ({error}); {INSTALL}"
    return ""


def candidates(work: Work, peer: Peer, methods: Sequence[str]) -> dict[str, Candidate]:
    """List which of the methods a peer can do on a model, by attrib's names."""
    if work.layer.startswith("blocks.") and not peer.tokens:
        return {}
    module = importlib.import_module(peer.module)
    return {
        method: Candidate(
            library=peer.name,
            what=method,
            ready=partial(peer.ready, getattr(module, name), work),
        )
        for method, name in peer.classes.items()
        if method in methods and (method != "cam" or work.classifier.exact)
    }


def agreements(work: Work, peers: Sequence[Peer], methods: Sequence[str]) -> list[Agreement]:
    """Compare every peer's maps with attrib's.

    Raises:
        RuntimeError: a peer makes other maps than attrib, so that there is nothing to compare.
    """
    found = [
        compare(_ours(work, method), _theirs(peer, candidate), peer=peer, method=method)
        for peer in peers
        for method, candidate in candidates(work, peer, methods).items()
    ]
    if wrong := [str(a) for a in found if not a.holds]:
        raise RuntimeError("not the same maps, so nothing was timed:\n" + "\n".join(wrong))
    return found


def _ours(work: Work, method: str) -> Tensor:
    found = attrib.Explainer(work.classifier, method)(work.images, work.labels)
    return found.maps.cpu().double()


def _theirs(peer: Peer, candidate: Candidate) -> Tensor:
    with candidate.ready() as run:
        return peer.maps(run()).cpu().double()


def compare(own: Tensor, other: Tensor, *, peer: Peer, method: str) -> Agreement:
    if peer.scaled:
        own = F.interpolate(own[:, None], other.shape[1:], mode="bilinear")[:, 0]
        own, other = _unit(own), _unit(other)
    correlation = torch.corrcoef(torch.stack([own.flatten(), other.flatten()]))[0, 1]
    difference = (own - other).abs().max() / own.abs().max()
    return Agreement(
        peer=peer.name,
        method=method,
        correlation=correlation.item(),
        difference=difference.item(),
        known=KNOWN_DIFFERENCES.get((peer.name, method), ""),
    )


def _unit(maps: Tensor) -> Tensor:
    """Scale each map to 0 .. 1."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def told(found: Sequence[Agreement]) -> list[str]:
    """Say in a line per peer how its maps compare."""
    lines = []
    for name in dict.fromkeys(a.peer for a in found):
        own = [a for a in found if a.peer == name]
        same = [a for a in own if a.same]
        line = f"{name} makes the same maps: {', '.join(a.method for a in same) or 'none'}"
        line += f" (largest difference {max(a.difference for a in same):.0e})" if same else ""
        others = "".join(f"; not {a.method}: {a.known}" for a in own if not a.same)
        lines.append(f"{line}{others}.")
    return lines
