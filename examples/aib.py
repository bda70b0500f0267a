r"""Train the AIB paper's networks with attention and without; print its table of errors.

python examples/aib.py
python examples/aib.py --data splits=cifar10-jpeg.zip --width 0.125 --epochs 10 --batch-size 64 \
    --lr 0.05 --seeds 2 --bfloat16
python examples/aib.py --data cifar10=ROOT --data cifar100=ROOT --data svhn=ROOT --stl10 ROOT
python examples/aib.py --network cub_vgg16 --data cub=CUB_200_2011 --features vgg16.pth

A data set is NAME=ROOT, as `attrib fit aib-network` takes them; without any, scenes are rendered.
Of a network with attention it also says how often it errs without noise: with each picture's own
attention, with its average in every cell, and with the attention of another picture. An attention
that has learned something errs least with its own.
With --stl10 each network that knows its classes is also tested on the pictures of STL-10, the 9
classes they share matched by name. A run that was begun in the folder --out goes on there.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from attrib.datasets import InMemory, Scenes, matched, picture_set, resized
from attrib.datasets.scenes import CLASSES
from attrib.fit import NetworkConfig, fit_network, top1_error
from attrib.fit.top1 import normalised

PUBLISHED = {
    ("vgg", "plain"): (7.77, 30.62, 34.64, 4.27, 54.66, 55.09),
    ("vgg", "dvib"): (4.64, 22.88, 23.94, 3.28, 51.40, 51.60),
    ("vgg", "aib"): (4.28, 21.56, 23.73, 3.24, 50.64, 51.24),
    ("vgg", "aib-qt"): (4.10, 20.87, 21.83, 3.07, 50.44, 51.16),
    ("wrn", "plain"): (4.00, 19.25, 26.50, None, None, None),
    ("wrn", "aib"): (3.60, 17.82, 17.26, 2.76, 50.08, 50.84),
    ("wrn", "aib-qt"): (3.43, 17.64, 15.50, 2.69, 50.34, 50.49),
}
"""Lai et al., table 1: top-1 errors in percent, by network and variant."""
COLUMNS = ("cifar10", "cifar100", "cub", "svhn", "stl10 train", "stl10 test")
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", action="append", default=[], metavar="NAME=ROOT")
    parser.add_argument("--stl10", type=Path, help="folder that holds stl10_binary")
    parser.add_argument("--network", default="vgg32")
    parser.add_argument("--variants", default="plain,aib,aib-qt", help="also dvib")
    parser.add_argument("--features", type=Path, help="weights to begin with, for CUB")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, help="learning rate; the paper's if left")
    parser.add_argument("--beta", type=float, default=0.01, help="price of information")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        arguments.out = arguments.out or Path(temporary)
        if not arguments.data:
            arguments.width, arguments.epochs = 1 / 32, 1
        table(arguments)


def table(arguments) -> None:
    data = [opened(*entry.split("=", 1)) for entry in arguments.data] or [rendered()]
    stl10 = stl10_sets(arguments.stl10) if arguments.stl10 else {}
    variants, errors = arguments.variants.split(","), {}
    for seed in range(arguments.seeds):
        for variant in variants:
            for name, train, test in data:
                started = time.process_time()
                found = errors_of(arguments, variant, seed, train, test, stl10)
                for column, error in found.items():
                    key = variant, f"{name} {column}".strip()
                    errors.setdefault(key, []).append(error)
                told = "  ".join(f"{k or 'test'} {v:.2f}" for k, v in found.items())
                seconds = time.process_time() - started
                print(f"{name}  {variant}  seed {seed}: {told}  ({seconds:.0f} s)", flush=True)
    print_table(arguments, variants, errors)


def errors_of(arguments, variant, seed, train, test, stl10) -> dict[str, float]:
    config = NetworkConfig(
        network=arguments.network,
        variant=variant,
        width=arguments.width,
        epochs=arguments.epochs,
        batch_size=min(arguments.batch_size, len(train)),
        lr=arguments.lr,
        beta=arguments.beta,
        bfloat16=arguments.bfloat16 or None,
        seed=seed,
    )
    classifier, report = fit_network(
        train,
        out=arguments.out / f"{train.name}-{variant}-{seed}".replace(" ", "-"),
        config=config,
        test=test,
        features=arguments.features,
        device=arguments.device,
    )
    if classifier.attends:
        told = errors_by_attention(classifier, test, seed)
        print(f"{variant}  " + "  ".join(f"{name} attention {v:.2f}" for name, v in told.items()))
    errors = {"": report["error"]}
    if list(train.labels) == CIFAR10:
        for column, pictures in stl10.items():
            errors[column] = top1_error(classifier, pictures, config.test_samples, seed=seed)
    return errors


@torch.no_grad()
def errors_by_attention(classifier, test, seed) -> dict[str, float]:
    """Test without noise, by what the features are multiplied with."""
    network, spec = classifier.network, classifier.attrib_spec
    device = next(network.parameters()).device
    other = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    wrong = dict.fromkeys(("own", "flat", "another's"), 0)
    for index in torch.arange(len(test)).split(256):
        features, others = (
            network.features(normalised(test.read(i.tolist()).to(device), spec))
            for i in (index, other[index])
        )
        own, another = (network.aib.attention.map(f)[:, None] for f in (features, others))
        flat = own.mean((2, 3), keepdim=True)
        for name, maps in zip(wrong, (own, flat, another), strict=True):
            latent = network.aib.encode(features * (1 + maps))[:, : network.aib.latent]
            answers = network.aib.decode(latent).argmax(1).cpu()
            wrong[name] += int((answers != test.classes[index]).sum())
    return {name: 100 * count / len(test) for name, count in wrong.items()}


def print_table(arguments, variants, errors) -> None:
    columns = list(dict.fromkeys(column for _, column in errors))
    print(
        f"\nTop-1 error in percent, mean of {arguments.seeds} seed(s); in brackets the paper's, of "
        f"the whole data set, width 1 and 200 epochs.\n{arguments.network}, width "
        f"{arguments.width:g}, {arguments.epochs} epochs"
    )
    print(f"{'':8}" + "".join(f"{column:>28}" for column in columns))
    for variant in variants:
        cells = []
        for column in columns:
            found = errors[variant, column]
            spread = f" ±{statistics.stdev(found):.2f}" if len(found) > 1 else ""
            cells.append(f"{statistics.mean(found):.2f}{spread}{paper(arguments, variant, column)}")
        print(f"{variant:8}" + "".join(f"{cell:>28}" for cell in cells))


def paper(arguments, variant, column) -> str:
    family = "wrn" if arguments.network.startswith("wrn") else "vgg"
    name = next((known for known in reversed(COLUMNS) if column.endswith(known)), None)
    row = PUBLISHED.get((family, variant))
    figure = row[COLUMNS.index(name)] if row and name else None
    return " (-)" if figure is None else f" ({figure:.2f})"


def opened(name, root):
    """Open training and test pictures; a folder or zip of CIFAR-10 is called so."""
    train, test = (picture_set(name, root, split) for split in ("train", "test"))
    known = "cifar10" if list(train.labels) == CIFAR10 else name
    return known, train, test


def stl10_sets(root):
    splits = {f"stl10 {split}": picture_set("stl10", root, split) for split in ("train", "test")}
    return {key: resized(matched(s, CIFAR10), (32, 32)) for key, s in splits.items()}


def rendered():
    scenes = Scenes(length=48, size=32, seed=1)
    pixels = torch.stack([scenes[i].image for i in range(len(scenes))])
    classes = torch.tensor([scenes[i].label for i in range(len(scenes))])
    parts = {"train": slice(32), "test": slice(32, None)}
    made = [
        InMemory(name=f"scenes {k}", labels=CLASSES, pixels=pixels[p], classes=classes[p])
        for k, p in parts.items()
    ]
    return "scenes", *made


if __name__ == "__main__":
    main()
