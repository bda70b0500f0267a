"""Explain rendered scenes by three methods and write the picture that the README shows.

python examples/scenes.py --out docs/assets/scenes.png
"""

import argparse
from pathlib import Path

import attrib
from attrib.datasets.scenes import CLASSES, Scenes
from attrib.files import replacing
from attrib.report import Panel, figure

METHODS = ["cam", "infocam", "infocam+"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/scenes.png"))
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    data = Scenes(length=arguments.scenes, size=224, seed=arguments.seed)
    scenes = [data[i] for i in range(len(data))]
    model = attrib.load_model("demo")
    rows = [[Panel(image=s.image, truth=s.box, title=CLASSES[s.label])] for s in scenes]
    for method in METHODS:
        answers = attrib.explain(
            model, [s.image for s in scenes], [s.label for s in scenes], method=method
        )
        for row, scene, answer in zip(rows, scenes, answers, strict=True):
            row.append(
                Panel(
                    image=scene.image,
                    heatmap=answer.heatmap,
                    box=answer.box,
                    truth=scene.box,
                    title=method,
                )
            )
    with replacing(arguments.out) as temporary:
        figure(rows, size=2.0).savefig(temporary, format="png", dpi=100)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
