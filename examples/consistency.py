"""Score methods by AIB's interpretability score: do maps stay where predictions stay?

python examples/consistency.py
python examples/consistency.py --pictures cifar10-jpeg.zip --model local-dir:FOLDER --count 64

Pictures lie in a folder or zip as SPLIT/CLASS/NAME.jpg and are all of one size; without them scenes
are rendered. Windows are given in pixels of a 32-pixel picture and grow with larger ones. The last
column compares each map with that of another picture: smooth maps are alike anyway, and a score
tells something only where it is far above that.
"""

import argparse
import zipfile
from pathlib import Path

import torch

import attrib
from attrib.datasets import Scenes
from attrib.errors import InputError
from attrib.images import Picture, preprocess
from attrib.metrics.consistency import Frequencies, Looks, Window, agreement, looks_of

METHODS = ["cam", "infocam", "infocam+", "gradcam", "gradcam++", "hirescam", "layercam"]
WINDOWS = [4, 8, 12, 16]
SIDE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=Path, help="folder or zip of SPLIT/CLASS/NAME.jpg")
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--theta", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    pictures = some(arguments.pictures, arguments.split, arguments.count)
    model = attrib.load_model(arguments.model)
    kinds = modifications(min(pictures.shape[2:]), arguments.seed)
    changed = {name: modify(pictures) for name, modify in kinds.items()}
    print(
        f"{len(pictures)} pictures of {tuple(pictures.shape[2:])}; percent of maps with a cosine "
        f"of {arguments.theta:g} or more, of the pictures whose prediction stayed"
    )
    print(f"{'':>10}" + "".join(f"{name:>8}" for name in (*kinds, "other")))
    for method in METHODS:
        look = look_of(attrib.Explainer(model, method))
        before = looks_of(look, pictures)
        found = [
            agreement(before, looks_of(look, other), [arguments.theta])
            for other in changed.values()
        ]
        another = Looks(maps=before.maps.roll(1, 0), predictions=before.predictions)
        found.append(agreement(before, another, [arguments.theta]))
        print(f"{method:>10}" + "".join(f"{f.scores[0]:8.1f}" for f in found), flush=True)
    print(f"{'stayed':>10}" + "".join(f"{int(f.same.sum()):8}" for f in found[:-1]))


def look_of(explainer):
    """Preprocess pictures, explain the most likely class of each, and name it."""
    classifier = explainer.classifier

    def look(batch):
        pictures = [Picture(pixels=pixels) for pixels in batch]
        images, _ = preprocess(pictures, classifier.spec, device=classifier.device)
        found = explainer(images)
        return found.maps, found.logits.argmax(1)

    return look


def modifications(side: int, seed: int):
    windows = {f"p={p}": Window(size=p * side // SIDE, seed=seed) for p in WINDOWS}
    return windows | {
        "r>4": Frequencies(radius=4, keep="high"),
        "r<12": Frequencies(radius=12, keep="low"),
    }


def some(path: Path | None, split: str, count: int) -> torch.Tensor:
    """Take pictures evenly from the sorted names of a split, or render scenes."""
    if path is None:
        scenes = Scenes(length=count, seed=1)
        return torch.stack([scenes[i].image for i in range(count)])
    pattern = f"{split}/*/*.jpg"
    if path.is_dir():
        files = sorted(path.glob(pattern))
        read = Path.read_bytes
    else:
        archive = zipfile.ZipFile(path)
        files = sorted(n for n in archive.namelist() if Path(n).match(pattern))
        read = archive.read
    if len(files) < count:
        raise InputError(f"{path} has {len(files)} pictures {pattern}, {count} are wanted")
    chosen = [files[i * len(files) // count] for i in range(count)]
    pixels = [attrib.read_image(read(file)).pixels for file in chosen]
    if len({p.shape for p in pixels}) > 1:
        raise InputError(f"pictures in {path} are of several sizes; they have to be of one")
    return torch.stack(pixels)


if __name__ == "__main__":
    main()
