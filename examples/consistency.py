r"""Score methods by AIB's interpretability score: do maps stay where predictions stay?

python examples/consistency.py
python examples/consistency.py --data splits=cifar10-jpeg.zip --count 32 --few 4 \
    --model local-dir:mobilenetv2_imagenet --model aib:out/network.safetensors --thetas .85 .9 .95

Pictures are of one of the data sets that `attrib fit aib-network` takes, NAME=ROOT; without one
scenes are rendered. Windows are given in pixels of a 32-pixel picture and grow with larger ones;
they are painted in a random colour, or with --fill NAME=ROOT covered by pictures of a data set.
The column "other" compares each map with that of another picture: smooth maps are alike anyway, and
a score tells something only where it is far above that. "flat" counts maps without a range.
"""

import argparse
import dataclasses
import time

import torch

import attrib
from attrib.bottleneck.aib_classifier import NetworkClassifier
from attrib.datasets import Scenes, picture_set
from attrib.errors import InputError, ModelError
from attrib.images import Picture, preprocess
from attrib.methods import METHODS, untrained
from attrib.metrics.consistency import Frequencies, Looks, Window, agreement, looks_of
from attrib.registry import format_spec

WINDOWS = [4, 8, 12, 16]
SIDE = 32
SLOW = [
    "ablationcam",
    "feature-ablation",
    "gradient-shap",
    "iba",
    "integrated-gradients",
    "kernel-shap",
    "lime",
    "occlusion",
    "rib",
    "scorecam",
    "shapley-sampling",
    "smoothgrad",
]
"""Methods of many passes per picture; they get --few pictures."""
AROUND = ["captum", "fuse", "smooth", "tta"]
"""What is nothing without another method."""
QUICK = ["cam", "infocam", "infocam+", "gradcam", "gradcam++", "hirescam", "layercam"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", metavar="NAME=ROOT", help="such as splits=cifar10-jpeg.zip")
    parser.add_argument("--split", default="test")
    parser.add_argument("--fill", metavar="NAME=ROOT", help="what covers the windows; colours")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--few", type=int, default=4, help="pictures for slow methods")
    parser.add_argument("--model", action="append", help="several are scored one after the other")
    parser.add_argument("--methods", help="specs separated by spaces; all that are usable")
    parser.add_argument("--thetas", type=float, nargs="+", default=[0.9], help="cosines")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    pictures = some(arguments.data, arguments.split, arguments.count)
    fill = some(arguments.fill, "train", 500) if arguments.fill else None
    kinds = modifications(min(pictures.shape[2:]), arguments.seed, fill)
    print(
        f"{len(pictures)} pictures of {tuple(pictures.shape[2:])}; percent of maps with a cosine "
        "of theta or more, of the pictures whose prediction stayed"
    )
    for name in arguments.model or ["demo"]:
        model = attrib.load_model(name)
        names = arguments.methods.split() if arguments.methods else None
        if names is None:
            names = QUICK if arguments.data is None else usable(model)
        table(model, names, pictures, kinds, arguments)


def table(model, names, pictures, kinds, arguments) -> None:
    spec, stayed = attrib.split(model, need="features").spec, []
    print(f"\n{spec.name}\n{'theta':>28}" + "".join(f"{n:>7}" for n in (*kinds, "other", "flat")))
    for name in names:
        method = METHODS.make(name)
        few = method.name in SLOW and arguments.few < len(pictures)
        chosen = pictures[: arguments.few] if few else pictures
        started = time.process_time()
        try:
            explainer = attrib.Explainer(model, at_attention(model, method))
            found = scores(look_of(explainer), chosen, kinds, arguments.thetas)
        except (ModelError, InputError) as error:
            print(f"{name:>22}  not usable: {str(error)[:60]}...")
            continue
        note = f"  {time.process_time() - started:5.0f} s" + few * f"  {len(chosen)} pictures"
        print_rows(name, arguments.thetas, found, note)
        if not few:
            stayed = [int(f.same.sum()) for f in found[:-1]]
    print(f"{'prediction stayed':>28}" + "".join(f"{count:7}" for count in stayed))


def print_rows(name, thetas, found, note):
    """Print a row per threshold."""
    flat = sum(f.unusable for f in found[:-1])
    for i, theta in enumerate(thetas):
        percent = "".join(f"{f.scores[i]:7.1f}" for f in found)
        first = f"{flat:7}{note}" if i == 0 else ""
        print(f"{'' if i else name:>22}{theta:6g}{percent}{first}", flush=True)


def scores(look, pictures, kinds, thetas):
    """Compare maps before and after each modification, and last with another picture's."""
    before = looks_of(look, pictures, 16)
    changed = [looks_of(look, modify(pictures), 16) for modify in kinds.values()]
    changed.append(Looks(maps=before.maps.roll(1, 0), predictions=before.predictions))
    return [agreement(before, after, thetas) for after in changed]


def usable(model) -> list[str]:
    own = isinstance(model, NetworkClassifier) and model.attends
    names = [name for name in untrained() if name not in AROUND]
    return (["aib"] if own else []) + sorted(names, key=lambda name: name in SLOW)


def at_attention(model, method):
    """In a network of the AIB paper, explain the grid that its attention is on."""
    has_layer = any(field.name == "layer" for field in dataclasses.fields(method))
    if not isinstance(model, NetworkClassifier) or not has_layer or method.layer:
        return method
    return METHODS.make(format_spec(dataclasses.replace(method, layer="network.features")))


def look_of(explainer):
    """Preprocess pictures, explain the most likely class of each, and name it."""
    classifier = explainer.classifier

    def look(batch):
        pictures = [Picture(pixels=pixels) for pixels in batch]
        images, _ = preprocess(pictures, classifier.spec, device=classifier.device)
        found = explainer(images)
        return found.maps, found.logits.argmax(1)

    return look


def modifications(side: int, seed: int, fill: torch.Tensor | None):
    windows = {f"p={p}": Window(size=p * side // SIDE, fill=fill, seed=seed) for p in WINDOWS}
    return windows | {
        "r>4": Frequencies(radius=4, keep="high"),
        "r<12": Frequencies(radius=12, keep="low"),
    }


def some(data: str | None, split: str, count: int) -> torch.Tensor:
    """Take pictures evenly from a split, or render scenes."""
    if data is None:
        scenes = Scenes(length=count, seed=1)
        return torch.stack([scenes[i].image for i in range(count)])
    found = picture_set(*data.split("=", 1), split)
    if len(found) < count:
        raise InputError(f"{found.name} has {len(found)} pictures, {count} are wanted")
    return found.read([i * len(found) // count for i in range(count)])


if __name__ == "__main__":
    main()
