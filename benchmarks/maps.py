"""What a map costs over the plain forward pass, beside the peers.

`python benchmarks/maps.py` prints a table; `--json FILE` also writes it, as `Report` says. First
it checks that attrib and the peers make the same maps. Then all candidates take turns, round by
round, and each is compared with the plain forward pass of its own round, so that the drift of a
busy machine hits all alike.

The peers run as their own documentation shows, at the same layer and for the same classes. The
weights are random and require gradients, as those of a freshly loaded model do. Hooks are set up
outside the timed call and removed after it, so that no candidate pays for another's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.models import SpatialClassifier

CONTROL = "forward again"
NOISE = 0.1
"""A table is called noisy if the control's ratio strays further than this from 1 in any round."""
METHODS = ("cam", "infocam", "infocam+", "gradcam", "gradcam++", "hirescam", "layercam")
TARGETS = (1, 4, 16)
INSTALL = "pip install 'attrib[bench]'"
TORCHVISION = "torchvision/"
SAME = (0.999, 5e-3)
"""Maps are the same above this correlation and below this difference; see `Agreement`."""

KNOWN_DIFFERENCES = {
    ("pytorch-grad-cam", "gradcam++"): "known, its 1e-6 outweighs g^2 in the denominator of alpha",
    ("torchcam", "gradcam++"): "known, it divides a copy, so that alpha stays g^2",
}
"""Maps that differ from attrib's, which follow the paper's eq. 19, and why. They are timed all the
same: the work is the same."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured.

    Args:
        model: A timm name, or `"torchvision/NAME"`. Its weights are random.
        layer: Module path of the feature map, for the peers; empty for the last block of `layer4`.
        batch: Images per call, one class each.
        size: Height and width of the images in pixels.
        rounds: Timed calls per candidate.
        device: `"cpu"` or `"cuda"`.
    """

    model: str = TORCHVISION + "resnet50"
    layer: str = ""
    batch: int = 16
    size: int = 224
    rounds: int = 7
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """One model and one batch for all candidates; `labels` are the most likely classes."""

    model: nn.Module
    classifier: SpatialClassifier
    layer: str
    images: Tensor
    logits: Tensor

    @property
    def labels(self) -> list[int]:
        return self.logits.argmax(1).tolist()


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """Something to time.

    Args:
        library: Whose it is.
        method: The method's name in attrib, for peers too.
        gives: What a call returns.
        ready: Sets up, gives the call to time, and takes down.
        maps: Takes the maps `[n, u, v]` out of what a call returns.
    """

    library: str
    method: str
    gives: str
    ready: Callable[[], AbstractContextManager[Callable[[], Any]]]
    maps: Callable[[Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library that also makes maps.

    Args:
        name: As people call it.
        package: As it is installed.
        module: As it is imported.
        classes: Its class for each method, by attrib's name.
        ready: Given a class and the work, what `Candidate.ready` says.
        maps: As for `Candidate`.
        gives: As for `Candidate`.
        scaled: Its maps are scaled to 0 .. 1, so that only their shape can be compared.
    """

    name: str
    package: str
    module: str
    classes: dict[str, str]
    ready: Callable[[Any, Work], AbstractContextManager[Callable[[], Any]]]
    maps: Callable[[Any], Tensor]
    gives: str
    scaled: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Args:
        library: Whose it is.
        method: The method's name in attrib, for peers too.
        milliseconds: Median over rounds, for the whole batch.
        ratio: Median over rounds of its time over that of the round's plain forward pass.
        low: Smallest of these ratios.
        high: Largest of them.
        gives: What a call returns.
    """

    library: str
    method: str
    milliseconds: float
    ratio: float
    low: float
    high: float
    gives: str


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
        correlation, difference = SAME
        same = self.correlation > correlation and self.difference < difference
        return same or bool(self.known)


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A peer that is not measured: its methods, why it cannot be imported, what to do."""

    peer: str
    methods: tuple[str, ...]
    reason: str
    install: str = INSTALL


@dataclass(frozen=True, kw_only=True)
class Imports:
    """Median seconds to import torch, and attrib with torch, in new processes."""

    torch: float
    attrib: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was found out, and what `--json` writes under the same names.

    Args:
        setting: What was measured.
        machine: Processor or GPU, threads, and versions of the libraries.
        speedup: Time of the plain forward pass with one thread over that with all; None on a GPU.
            Below 1, other processes hold the cores, and the figures are waiting times.
        agreement: Each installed peer against attrib.
        methods: The table.
        missing: Peers that are not installed.
        growth: infocam+ by targets per image; None unless asked for.
        imports: None unless asked for.
    """

    setting: Setting
    machine: dict[str, str | int]
    speedup: float | None
    agreement: tuple[Agreement, ...]
    methods: tuple[Row, ...]
    missing: tuple[Missing, ...]
    growth: tuple[Row, ...] | None = None
    imports: Imports | None = None


def prepare(setting: Setting) -> Work:
    """Build the model with random weights, and a batch of noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(setting.model).eval().to(setting.device)
    shape = (setting.batch, 3, setting.size, setting.size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(setting.device)
    with torch.no_grad():
        logits = model(images)
    return Work(
        model=model,
        classifier=attrib.split(model),
        layer=setting.layer or last_block(model),
        images=images,
        logits=logits,
    )


def build(name: str) -> nn.Module:
    """Build a model with random weights, by the names that `attrib.load_model` takes."""
    if name.startswith(TORCHVISION):
        from torchvision import models

        return models.get_model(name.removeprefix(TORCHVISION), weights=None)
    import timm

    return timm.create_model(name, pretrained=False)


def last_block(model: nn.Module) -> str:
    """Return the module path of a residual network's feature map."""
    blocks = getattr(model, "layer4", None)
    if not isinstance(blocks, nn.Sequential):
        names = ", ".join(name for name, _ in model.named_children())
        raise ValueError(
            f"{type(model).__name__} has no layer4; name the module that returns its feature map "
            f"as --layer. It holds: {names}"
        )
    return f"layer4.{len(blocks) - 1}"


def forward_candidates(work: Work) -> list[Candidate]:
    """List the plain forward pass, twice: the second shows what the machine's noise is."""

    def forward() -> Tensor:
        with torch.no_grad():
            return work.model(work.images)

    return [
        Candidate(
            library="torch",
            method=name,
            gives="logits, no maps",
            ready=partial(nullcontext, forward),
            maps=lambda logits: logits.new_empty(0, 1, 1),
        )
        for name in ("forward", CONTROL)
    ]


def attrib_candidate(work: Work, method: str, targets: Any, label: str = "") -> Candidate:
    explainer = attrib.Explainer(work.classifier, method)
    return Candidate(
        library="attrib",
        method=label or method,
        gives="raw maps on the feature grid, and the logits",
        ready=partial(nullcontext, partial(explainer, work.images, targets)),
        maps=lambda found: found.maps,
    )


@contextmanager
def ready_pytorch_grad_cam(make: Any, work: Work) -> Iterator[Callable[[], Any]]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(label) for label in work.labels]
    extractor = make(model=work.model, target_layers=[work.model.get_submodule(work.layer)])
    # Not `with extractor`, which would swallow an IndexError.
    try:
        yield partial(extractor, input_tensor=work.images, targets=targets)
    finally:
        extractor.activations_and_grads.release()
        work.model.zero_grad()


@contextmanager
def ready_torchcam(make: Any, work: Work) -> Iterator[Callable[[], Any]]:
    plain = make.__name__ == "CAM"
    options = {"fc_layer": work.classifier.linear} if plain else {}
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
def ready_captum(make: Any, work: Work) -> Iterator[Callable[[], Any]]:
    extractor = make(work.model, work.model.get_submodule(work.layer))
    yield partial(extractor.attribute, work.images, target=work.labels, relu_attributions=True)


PEERS = (
    Peer(
        name="pytorch-grad-cam",
        package="grad-cam",
        module="pytorch_grad_cam",
        classes={
            "gradcam": "GradCAM",
            "gradcam++": "GradCAMPlusPlus",
            "hirescam": "HiResCAM",
            "layercam": "LayerCAM",
        },
        ready=ready_pytorch_grad_cam,
        maps=torch.from_numpy,
        gives="maps cut at 0, scaled to 0 .. 1, resized to the input, as NumPy",
        scaled=True,
    ),
    Peer(
        name="torchcam",
        package="torchcam",
        module="torchcam.methods",
        classes={
            "cam": "CAM",
            "gradcam": "GradCAM",
            "gradcam++": "GradCAMpp",
            "layercam": "LayerCAM",
        },
        ready=ready_torchcam,
        maps=lambda found: found[0],
        gives="maps on the feature grid, scaled to 0 .. 1",
        scaled=True,
    ),
    Peer(
        name="Captum",
        package="captum",
        module="captum.attr",
        classes={"gradcam": "LayerGradCam"},
        ready=ready_captum,
        maps=lambda found: found.detach()[:, 0],
        gives="raw maps on the feature grid",
        scaled=False,
    ),
)


def installed(peers: Sequence[Peer]) -> tuple[list[Peer], list[Missing]]:
    """Tell the peers that can be imported from those that cannot."""
    found, missing = list[Peer](), list[Missing]()
    for peer in peers:
        try:
            importlib.import_module(peer.module)
        except ImportError as error:
            methods = tuple(peer.classes)
            missing.append(Missing(peer=peer.name, methods=methods, reason=str(error)))
        else:
            found.append(peer)
    return found, missing


def peer_candidates(work: Work, peer: Peer) -> list[Candidate]:
    module = importlib.import_module(peer.module)
    return [
        Candidate(
            library=peer.name,
            method=method,
            gives=peer.gives,
            ready=partial(peer.ready, getattr(module, name), work),
            maps=peer.maps,
        )
        for method, name in peer.classes.items()
    ]


def agreements(work: Work, peers: Sequence[Peer]) -> list[Agreement]:
    """Compare every peer's maps with attrib's."""
    return [
        compare(
            maps_of(attrib_candidate(work, candidate.method, work.labels)),
            maps_of(candidate),
            peer=peer,
            method=candidate.method,
        )
        for peer in peers
        for candidate in peer_candidates(work, peer)
    ]


def maps_of(candidate: Candidate) -> Tensor:
    with candidate.ready() as call:
        return candidate.maps(call()).cpu().double()


def compare(own: Tensor, other: Tensor, *, peer: Peer, method: str) -> Agreement:
    if peer.scaled:
        own = F.interpolate(own[:, None], other.shape[1:], mode="bilinear")[:, 0]
        own, other = unit(own), unit(other)
    correlation = torch.corrcoef(torch.stack([own.flatten(), other.flatten()]))[0, 1]
    difference = (own - other).abs().max() / own.abs().max()
    return Agreement(
        peer=peer.name,
        method=method,
        correlation=correlation.item(),
        difference=difference.item(),
        known=KNOWN_DIFFERENCES.get((peer.name, method), ""),
    )


def unit(maps: Tensor) -> Tensor:
    """Scale each map to 0 .. 1."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def measure(candidates: Sequence[Candidate], rounds: int, device: str) -> list[Row]:
    """Time all candidates in turns; the first is what the others are compared with."""
    for candidate in candidates:
        seconds(candidate, device)
    times: list[list[float]] = [[] for _ in candidates]
    for i in range(rounds):
        # Each round starts with another one: who comes first finds other caches than who follows.
        for j in (*range(i % len(candidates), len(candidates)), *range(i % len(candidates))):
            times[j].append(seconds(candidates[j], device))
    return [row(c, own, times[0]) for c, own in zip(candidates, times, strict=True)]


def seconds(candidate: Candidate, device: str) -> float:
    with candidate.ready() as call:
        synchronise(device)
        started = time.perf_counter()
        call()
        synchronise(device)
        return time.perf_counter() - started


def synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def row(candidate: Candidate, times: Sequence[float], forward: Sequence[float]) -> Row:
    ratios = [own / base for own, base in zip(times, forward, strict=True)]
    return Row(
        library=candidate.library,
        method=candidate.method,
        milliseconds=1000 * median(times),
        ratio=median(ratios),
        low=min(ratios),
        high=max(ratios),
        gives=candidate.gives,
    )


def growth_candidates(work: Work) -> list[Candidate]:
    """List infocam+ for the likeliest classes of each image, ever more of them."""
    chosen = {n: work.logits.topk(n).indices.tolist() for n in TARGETS}
    return [
        attrib_candidate(work, "infocam+", labels, f"infocam+, {n} per image")
        for n, labels in chosen.items()
    ]


def import_seconds(module: str) -> float:
    code = (
        "import time; started = time.perf_counter(); "
        f"import {module}; print(time.perf_counter() - started)"
    )
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_imports(repeats: int = 5) -> Imports:
    """Time imports in turns, after one of each that fills the disk cache."""
    pairs = [(import_seconds("torch"), import_seconds("attrib")) for _ in range(repeats + 1)][1:]
    plain, ours = (median(times) for times in zip(*pairs, strict=True))
    return Imports(torch=plain, attrib=ours, difference=ours - plain)


def run(setting: Setting, *, growth: bool = False, imports: bool = False) -> Report:
    """Check agreement, then measure.

    Raises:
        RuntimeError: a peer makes other maps than attrib, so that there is nothing to compare.
    """
    work = prepare(setting)
    peers, missing = installed(PEERS)
    agreed = agreements(work, peers)
    if wrong := [line(a) for a in agreed if not a.holds]:
        raise RuntimeError("not the same maps, so nothing was timed:\n" + "\n".join(wrong))
    forward = forward_candidates(work)
    own = [attrib_candidate(work, method, work.labels) for method in METHODS]
    others = [candidate for peer in peers for candidate in peer_candidates(work, peer)]
    timed = partial(measure, rounds=setting.rounds, device=setting.device)
    return Report(
        setting=setting,
        machine=machine(setting.device),
        speedup=speedup(forward[0]) if setting.device == "cpu" else None,
        agreement=tuple(agreed),
        methods=tuple(timed([*forward, *own, *others])),
        missing=tuple(missing),
        growth=tuple(timed([*forward, *growth_candidates(work)])) if growth else None,
        imports=measure_imports() if imports else None,
    )


def speedup(forward: Candidate) -> float:
    """Tell what threads gain, fastest of three each: on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    together = min(seconds(forward, "cpu") for _ in range(3))
    torch.set_num_threads(1)
    try:
        return min(seconds(forward, "cpu") for _ in range(3)) / together
    finally:
        torch.set_num_threads(threads)


def machine(device: str) -> dict[str, str | int]:
    on_gpu = torch.device(device).type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else platform.processor()
    found: dict[str, str | int] = {
        "device": name or platform.machine(),
        "threads": torch.get_num_threads(),
    }
    for package in ("torch", "attrib", *(peer.package for peer in PEERS)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def text(report: Report) -> str:
    """Write the report for people."""
    setting = report.setting
    parts = [
        f"{setting.model}, {setting.batch} images of {setting.size} x {setting.size}, "
        f"median of {setting.rounds} rounds",
        ", ".join(f"{name} {value}" for name, value in report.machine.items()),
        *busy(report),
        "",
        "Same maps as attrib's (a peer that scales its maps is compared after scaling):",
        *(line(a) for a in report.agreement),
        *(f"  {m.peer:18}not checked" for m in report.missing),
        "",
        *table(report.methods),
        *missing_lines(report.missing),
        *noisy(report.methods),
        "",
        "ratio: time over that of the plain forward pass of the same round, median and spread.",
        f"'{CONTROL}' is that pass once more: its spread is the noise of the machine.",
        "pytorch-grad-cam runs backward through the whole network and resizes; torchcam and Captum",
        "run backward to the layer, but record the whole forward pass; attrib records from the",
        "layer on. Every peer's figure holds what its usual call includes.",
    ]
    if report.growth is not None:
        parts += ["", "Targets per image, in one forward pass:", *table(report.growth)]
        parts += noisy(report.growth)
    if report.imports is not None:
        i = report.imports
        parts += [
            "",
            f"import torch {i.torch:.2f} s, import attrib {i.attrib:.2f} s: "
            f"{i.difference:+.2f} s over torch alone",
        ]
    return "\n".join(parts)


def busy(report: Report) -> list[str]:
    threads = report.machine["threads"]
    if report.speedup is None or report.speedup >= 1 or threads == 1:
        return []
    return [
        f"BUSY MACHINE: {threads} threads take {1 / report.speedup:.1f} times as long as one:",
        "other processes hold the cores. The figures are waiting times; use --threads 1, or wait.",
    ]


def noisy(rows: Sequence[Row]) -> list[str]:
    """Say so if the plain forward pass does not even agree with itself."""
    strays = [max(1 - r.low, r.high - 1) for r in rows if r.method == CONTROL]
    if not strays or max(strays) <= NOISE:
        return []
    return [
        f"NOISY: the forward pass differs from itself by up to {max(strays):.0%} in a round; "
        "ratios closer",
        "than that to each other, or to 1, tell nothing. Run it again on a quiet machine.",
    ]


def line(a: Agreement) -> str:
    verdict = a.known or ("same" if a.holds else "DIFFERENT")
    return (
        f"  {a.peer:18}{a.method:11}correlation {a.correlation:.6f}, "
        f"largest difference {a.difference:.1e}: {verdict}"
    )


def table(rows: Sequence[Row]) -> list[str]:
    head = f"{'':18}{'':24}{'ms':>9}{'ratio':>8}{'spread':>15}  gives"
    return [head] + [
        f"{r.library:18}{r.method:24}{r.milliseconds:9.1f}{r.ratio:8.3f}"
        f"{r.low:8.2f} ..{r.high:5.2f}  {r.gives}"
        for r in rows
    ]


def missing_lines(missing: Sequence[Missing]) -> list[str]:
    return [
        f"{m.peer:18}{method:24}{'missing':>9}  {m.install}"
        for m in missing
        for method in m.methods
    ]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    made.add_argument("--model", default=Setting.model, help="timm name or torchvision/NAME")
    made.add_argument("--layer", default=Setting.layer, help="the peers' layer, if not layer4")
    made.add_argument("--batch", type=int, default=Setting.batch, help="images per call")
    made.add_argument("--size", type=int, default=Setting.size, help="side of an image in pixels")
    made.add_argument("--rounds", type=int, default=Setting.rounds, help="calls per candidate")
    made.add_argument("--device", default=Setting.device, help="cpu or cuda")
    made.add_argument("--threads", type=int, help="CPU threads; torch's choice if not given")
    made.add_argument("--growth", action="store_true", help="also 1, 4, 16 targets per image")
    made.add_argument("--imports", action="store_true", help="also the time of importing attrib")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    given = vars(parser().parse_args(arguments))
    extra = {name: given.pop(name) for name in ("growth", "imports")}
    file, threads = given.pop("json"), given.pop("threads")
    if threads is not None:
        torch.set_num_threads(threads)
    report = run(Setting(**given), **extra)
    print(text(report))
    if file is not None:
        file.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
