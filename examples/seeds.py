"""Make the seeds of a small data set by two methods, score them, and write a page of the worst.

python examples/seeds.py --out out/seeds

It first renders scenes into a folder laid out as any data set of one's own may be: pictures, a CSV
with their classes, and true masks for scoring.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import attrib
from attrib.datasets import Folder, Scenes
from attrib.datasets.scenes import CLASSES
from attrib.evaluate import evaluate_seeds
from attrib.seeds import SeedOptions, make_seeds

METHODS = {
    "cam": "cam",
    "rib": "rib(lr=5e-4, train_from=4, scales=(1.0, 1.5), loss_scales=(1.0, 1.5), "
    "others='expected', num_others=4, pool_pictures=16, pool_size=128, pool_long_side=(96, 160))",
}
"""RIB with a rate for the small demo model; the defaults are for a ResNet-50."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/seeds"))
    parser.add_argument("--scenes", type=int, default=24)
    arguments = parser.parse_args()

    data = render(arguments.out / "scenes", arguments.scenes)
    for name, spec in METHODS.items():
        explainer = attrib.Explainer("demo", spec)
        scales = None if name == "rib" else (1.0, 1.5)
        options = SeedOptions(scales=scales, formats=("label", "npz"))
        report = make_seeds(explainer, data, arguments.out / name, options)
        page = arguments.out / f"{name}-worst.html"
        scores = evaluate_seeds(data, arguments.out / name, worst=6, html=page)
        print(
            f"{name}: {report.made} made, {report.kept} kept, {report.seconds:.1f} s; "
            f"mIoU {scores['fixed']['miou']:.1f} at {scores['fixed']['threshold']:g}, "
            f"{scores['oracle']['miou']:.1f} at {scores['oracle']['threshold']:g}, chosen on these "
            f"pictures; see {page}"
        )


def render(folder: Path, count: int) -> Folder:
    """Write scenes with their classes and masks, as files."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    scenes, rows = Scenes(length=count, size=128, seed=11), ["path,labels"]
    for i in range(count):
        scene = scenes[i]
        Image.fromarray(scene.image.permute(1, 2, 0).numpy()).save(folder / f"{i:03}.png")
        mask = scene.mask.numpy().astype(np.uint8) * (scene.label + 1)
        Image.fromarray(mask).save(folder / "masks" / f"{i:03}.png")
        rows.append(f"{i:03}.png,{CLASSES[scene.label]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return Folder(folder, folder / "labels.csv", classes=CLASSES, masks=folder / "masks")


if __name__ == "__main__":
    main()
