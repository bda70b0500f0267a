"""Train a mask generator and an attention for a finished classifier; draw them, test the masks.

python examples/posthoc.py                    # demo model, rendered scenes: half a minute
python examples/posthoc.py --cub CUB_200_2011 --model local-dir:my_birds \
    --mask mask/mask.safetensors              # of `attrib fit ib-mask`: tests its masks

How often is the classifier right on test pictures of which it is shown what the masks leave, the
rest in the mean colour? Masks are Boolean and drawn from the generator's probabilities, or the
probabilities themselves. Two controls: each picture under the next one's mask, as large but not
made for it, and what the mask hides.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.bottleneck.mask_view import blend, filling
from attrib.datasets import CUB, Folder, Scenes
from attrib.datasets.scenes import CLASSES
from attrib.files import replacing
from attrib.fit import AttentionConfig, MaskConfig, fit_attention, fit_mask
from attrib.images import Picture, preprocess, read_image
from attrib.models import SpatialClassifier
from attrib.report import Panel, figure

SEED, SIDE, BATCH, SHOWN = 3, 96, 26, 4
MASK = {"stride": 8, "beta": 0.003, "batch_size": 16}
ATTENTION = {"latent": 32}

Masks = Callable[[Float[Tensor, "b 1 u v"]], Float[Tensor, "b 1 u v"]]
"""Makes what is shown of pictures, of the probabilities that their cells are seen."""
Batches = Iterator[tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]]


def main() -> None:
    args = parse_arguments()
    classifier = attrib.split(attrib.load_model(args.model), need="features")
    if args.cub is not None:
        table(classifier, args.mask, cub(classifier, args.cub, args.every))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            weights = trained(classifier, Path(temporary), args.scenes, args.epochs)
            table(classifier, weights["ib-mask"], test_scenes(classifier, args.scenes // 2))
            draw(classifier, weights, args.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cub", type=Path, help="folder CUB_200_2011; scenes if left")
    parser.add_argument("--every", type=int, default=1, help="of the test pictures, one in so many")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--mask", type=Path, help="file of `attrib fit ib-mask`, for --cub")
    parser.add_argument("--scenes", type=int, default=240, help="to learn from; half as many test")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("out/learned.png"))
    args = parser.parse_args()
    if (args.cub is None) != (args.mask is None):
        parser.error("--cub and --mask come together; without both, scenes are rendered")
    return args


def trained(
    classifier: SpatialClassifier, folder: Path, count: int, epochs: int
) -> dict[str, Path]:
    """Train both on rendered scenes; return their files by method."""
    scenes, pictures = Scenes(length=count, size=SIDE, seed=SEED), folder / "scenes"
    for i in range(count):
        place = pictures / CLASSES[scenes[i].label] / f"{i:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scenes[i].image.permute(1, 2, 0).numpy()).save(place)
    data = Folder(pictures, classes=CLASSES)
    fit_mask(classifier, data, out=folder / "ib-mask", config=MaskConfig(epochs=epochs, **MASK))
    fit_attention(
        classifier, data, out=folder / "aib", config=AttentionConfig(epochs=epochs, **ATTENTION)
    )
    return {
        "ib-mask": folder / "ib-mask" / "mask.safetensors",
        "aib": folder / "aib" / "attention.safetensors",
    }


def test_scenes(classifier: SpatialClassifier, count: int) -> Batches:
    """Render pictures that nothing was trained on."""
    scenes = Scenes(length=count, size=SIDE, seed=SEED + 1)
    for rows in torch.arange(len(scenes)).split(BATCH):
        shown = [scenes[i] for i in rows.tolist()]
        images, _ = preprocess([Picture(pixels=scene.image) for scene in shown], classifier.spec)
        yield images, torch.tensor([scene.label for scene in shown])


def cub(classifier: SpatialClassifier, root: Path, every: int) -> Batches:
    """Read test pictures."""
    data = CUB(root, "test")
    for rows in torch.arange(0, len(data), every).split(BATCH):
        shown = [data[i] for i in rows.tolist()]
        images, _ = preprocess([read_image(sample.picture) for sample in shown], classifier.spec)
        yield images, torch.tensor([sample.label for sample in shown])


def table(classifier: SpatialClassifier, weights: Path, batches: Batches) -> None:
    """Print how often the classifier is right, by what it is shown."""
    explainer = attrib.Explainer(classifier, f"ib-mask(weights={str(weights)!r})")
    draws = torch.Generator().manual_seed(SEED)
    kinds: dict[str, Masks] = {
        "whole": torch.ones_like,
        "drawn masks": lambda p: (torch.rand(p.shape, generator=draws) < p).to(p),
        "probabilities": lambda p: p,
        "the next picture's": lambda p: p.roll(1, 0),
        "what is hidden": lambda p: 1 - p,
    }
    right, count, seen = dict.fromkeys(kinds, 0), 0, 0.0
    for images, labels in batches:
        probability = explainer(images, labels).maps[:, None]
        for name, kind in kinds.items():
            answers = answers_through(classifier, images, kind(probability))
            right[name] += int((answers == labels).sum())
        count, seen = count + len(images), seen + float(probability.mean((1, 2, 3)).sum())
    print(f"{count} test pictures of {classifier.spec.name}; seen on average {seen / count:.3f}")
    for name, hits in right.items():
        print(f"{name:>20}{hits / count:8.1%}")


def answers_through(
    classifier: SpatialClassifier, images: Float[Tensor, "b 3 h w"], masks: Float[Tensor, "b 1 u v"]
) -> Int[Tensor, " b"]:
    """Return the classes of pictures under masks, enlarged as in training."""
    shown = F.interpolate(masks, size=images.shape[2:], mode="bilinear")
    return classifier.predict(blend(images, shown, filling(images, "mean"))).argmax(1)


def draw(classifier: SpatialClassifier, weights: dict[str, Path], path: Path) -> None:
    """Draw both beside infocam+, a scene per row."""
    specs = {"infocam+": "infocam+"}
    specs |= {name: f"{name}(weights={str(file)!r})" for name, file in weights.items()}
    data = Scenes(length=SHOWN, size=160, seed=SEED + 2)
    scenes = [data[i] for i in range(SHOWN)]
    rows = [[Panel(image=s.image, truth=s.box, title=CLASSES[s.label])] for s in scenes]
    for name, spec in specs.items():
        explainer = attrib.Explainer(classifier, spec)
        for row, scene in zip(rows, scenes, strict=True):
            found = explainer.explain(scene.image, scene.label)
            panel = Panel(image=scene.image, heatmap=found.heatmap, box=found.box, truth=scene.box,
                          title=name)  # fmt: skip
            row.append(panel)
    with replacing(path) as temporary:
        figure(rows, size=1.6).savefig(temporary, format="png", dpi=90)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
