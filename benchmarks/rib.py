"""Seconds and peak memory of RIB on one picture: attrib beside the published loop, written out.

`python benchmarks/rib.py` runs on rendered scenes with a ResNet-50 of output stride 16 and random
weights; what the numbers mean does not depend on the weights. `--size`, `--steps` and `--others`
make it smaller or larger, `--json FILE` also writes the figures.

The published loop builds the list of other pictures anew for each picture, decodes and crops a
fresh batch of them at every step in the same process, runs the whole network on every view at
every step, and keeps the activations of all scales until one backward pass. First both are run
without others, to see that they compute the same. Then they take turns, round by round; peak
memory is that of a process of its own. Beside them stands one forward pass of all views.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.cli.memory import keep_freed_memory
from attrib.datasets import Folder, LabelledDataset, Scenes, random_crop
from attrib.datasets.scenes import CLASSES
from attrib.methods import RIB
from attrib.methods.rib import RIBRunner
from attrib.models import SpatialClassifier
from attrib.seeds import pool_of, seed_views

POOL = 32
Loop = Callable[[int], list[Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50", help="a timm ResNet")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures")
    parser.add_argument("--crop", type=int, default=224, help="side of the others' crops")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--others", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        loops = candidates(options, scenes(Path(folder), options.size))
        if options.only is not None:
            loops[options.only](0)
            print(peak(options.device))
            return
        agree(loops["literal, no others"](0), loops["attrib, no others"](0))
        report(options, loops)


def scenes(folder: Path, size: int) -> LabelledDataset:
    data, rows = Scenes(length=POOL + 1, size=size, seed=5), ["path,label"]
    for i in range(len(data)):
        pixels = data[i].image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
        rows.append(f"{i}.jpg,{CLASSES[data[i].label]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return Folder(folder, folder / "labels.csv", classes=CLASSES)


def candidates(options: argparse.Namespace, data: LabelledDataset) -> dict[str, Loop]:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(options.model, num_classes=len(CLASSES), output_stride=16)
    for module in model.modules():  # so that the random weights' maps are not all alike
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(2.0)
    classifier = attrib.split(model.eval().to(options.device))
    chosen = RIB(
        steps=options.steps,
        num_others=options.others,
        pool_pictures=POOL,
        pool_size=options.crop,
        pool_long_side=(options.size, options.size),
        explode_ratio=1.1,
        margin=1e9,
    )
    found: dict[str, Loop] = {
        "forward": partial(forward, classifier, views_of(classifier, data, chosen, POOL)),
        "literal": partial(literal, model, classifier, data, chosen, True),
        "literal, no others": partial(literal, model, classifier, data, chosen, False),
    }
    for name, expected in (("attrib", False), ("attrib, expected others", True)):
        if options.only in (None, name):
            pool = pool_of(data, classifier, chosen, expected=expected)
            runner = RIBRunner(classifier, RIB(**{**vars(chosen), "others": pool}))
            found[name] = partial(ours, runner, classifier, data, chosen)
    runner = RIBRunner(classifier, chosen)
    return {**found, "attrib, no others": partial(ours, runner, classifier, data, chosen)}


@torch.no_grad()
def forward(classifier: SpatialClassifier, views: list[Tensor], _index: int) -> list[Tensor]:
    """Run the plain network once on each view."""
    return [classifier.model(view) for view in views]


def ours(
    runner: RIBRunner,
    classifier: SpatialClassifier,
    data: LabelledDataset,
    options: RIB,
    index: int,
) -> list[Tensor]:
    sample, views = data[index], views_of(classifier, data, options, index)
    labels = torch.zeros(classifier.num_classes, dtype=torch.bool, device=classifier.device)
    labels[list(sample.labels)] = True
    return list(runner(views, labels, sample.id).sums)


def views_of(
    classifier: SpatialClassifier, data: LabelledDataset, options: RIB, index: int
) -> list[Tensor]:
    views = seed_views(attrib.read_image(data[index].picture), classifier.spec, options.scales)
    return [view.to(classifier.device) for view in views]


def literal(
    model: nn.Module,
    classifier: SpatialClassifier,
    data: LabelledDataset,
    options: RIB,
    with_others: bool,
    index: int,
) -> list[Tensor]:
    """The published loop: see the first lines of this file."""
    net, device, sample = copy.deepcopy(model), classifier.device, data[index]
    views = views_of(classifier, data, options, index)
    own = set(sample.labels)
    disjoint = [i for i in range(POOL) if not own & set(data[i].labels)]
    head = list(net.fc.parameters())
    trunk = [*net.layer3.parameters(), *net.layer4.parameters()]
    groups = [{"params": trunk}, {"params": head}]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=1e-4, weight_decay=options.weight_decay)
    sums: list[Tensor | float] = [0.0] * len(views)
    generator = torch.Generator().manual_seed(index)
    for step in range(options.steps):
        rows, labels = [], []
        for i, view in enumerate(views):
            cam = class_maps(net, view)
            sums[i] = sums[i] + (cam[0].relu() + cam[1].relu().flip(2)).detach()
            if i != 1:
                rows.append(pooled(cam, [own, own], options.tau))
                labels += [own, own]
        if with_others:
            pick = torch.randperm(len(disjoint), generator=generator)[: options.others].tolist()
            chosen = [data[disjoint[i]] for i in pick]
            crops = [
                random_crop(
                    attrib.read_image(s.picture),
                    classifier.spec,
                    options.pool_size,
                    (options.pool_long_side[0], options.pool_long_side[1]),
                    generator,
                )
                for s in chosen
            ]
            sets = [set(s.labels) for s in chosen]
            rows.append(pooled(class_maps(net, torch.stack(crops).to(device)), sets, options.tau))
            labels += sets
        logits = torch.cat(rows)
        loss = -sum(logits[row, c] for row, classes in enumerate(labels) for c in classes)
        decay = (1 - step / options.steps) ** options.power
        optimizer.param_groups[0]["lr"] = options.lr * decay
        optimizer.param_groups[1]["lr"] = options.lr * decay * options.head_factor
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [s for s in sums if isinstance(s, Tensor)]


def class_maps(net: nn.Module, x: Tensor) -> Tensor:
    x = net.maxpool(net.act1(net.bn1(net.conv1(x))))
    x = net.layer2(net.layer1(x)).detach()
    return F.conv2d(net.layer4(net.layer3(x)), net.fc.weight[:, :, None, None])


def pooled(cam: Tensor, labels: list[set[int]], tau: float) -> Tensor:
    ratio = torch.full_like(cam, -1)
    for row, classes in enumerate(labels):
        for c in classes:
            ratio[row, c] = (cam[row, c] / cam[row, c].max()).detach()
    return (cam * (ratio < tau)).mean((2, 3))


def agree(theirs: list[Tensor], own: list[Tensor]) -> None:
    worst = max(
        float((a - b).abs().max() / a.abs().max()) for a, b in zip(theirs, own, strict=True)
    )
    print(f"largest difference of the summed maps, of their maximum: {worst:.1e}")
    if worst > 1e-3:
        sys.exit("the two loops do not compute the same")


def peak(device: str) -> float:
    """MiB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # where rusage's figure is inherited from the process that started this one
        return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def report(options: argparse.Namespace, loops: dict[str, Loop]) -> None:
    shown = [name for name in loops if not name.endswith("no others")]
    seconds: dict[str, list[float]] = {name: [] for name in shown}
    for turn in range(options.rounds):
        for name in shown:
            started = time.perf_counter()
            loops[name](POOL)
            if options.device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
        print(f"round {turn + 1} of {options.rounds} done", file=sys.stderr)
    ratios = {
        name: [a / b for a, b in zip(seconds["literal"], seconds[name], strict=True)]
        for name in shown
    }
    rows = {
        name: {
            "seconds": median(seconds[name]),
            "speedup": median(ratios[name]),
            "least": min(ratios[name]),
            "most": max(ratios[name]),
            "peak_mib": memory(name),
        }
        for name in shown
    }
    print(f"{options.model}, {options.size}^2, K={options.steps}, {options.others} others of "
          f"{options.crop}^2, {options.threads} threads, {options.device}")  # fmt: skip
    print(f"{'':26}{'s':>8}{'x':>7}{'spread':>14}{'peak MiB':>10}")
    for name, row in rows.items():
        spread = f"{row['least']:.2f}..{row['most']:.2f}"
        print(f"{name:26}{row['seconds']:8.2f}{row['speedup']:7.2f}{spread:>14}"
              f"{row['peak_mib']:10.0f}")  # fmt: skip
    if options.json is not None:
        facts = {k: v for k, v in vars(options).items() if k not in ("json", "only")}
        options.json.write_text(json.dumps({"setting": facts, "rows": rows}, indent=2) + "\n")


def memory(name: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    keep_freed_memory()
    main()
