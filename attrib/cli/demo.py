"""`attrib demo`: methods on rendered scenes, with a table and a picture; offline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from attrib import Explainer, Explanation
    from attrib.datasets.scenes import Scene

__all__ = ["methods", "run", "save"]

SHOWN = 6
FAMILIES = ("class maps", "features and their gradients", "bottlenecks")
"""Of the methods that run: the others need many passes per scene, or show pixels and no object."""
TUNED = {"rib": "rib(lr=1e-3, train_from=4, scales=(1.0, 1.5), loss_scales=(1.0, 1.5))"}
"""Where a method's published constants are for networks a hundred times larger than the demo's."""


def run(
    out: Annotated[Path, typer.Option(help="Folder for demo.png and some scenes.")] = Path("out"),
    scenes: Annotated[int, typer.Option(min=1, help="How many scenes to score.")] = 64,
    size: Annotated[int, typer.Option(min=32, help="Their side in pixels.")] = 192,
    seed: Annotated[int, typer.Option(help="Other scenes for another number.")] = 0,
) -> None:
    """Explain rendered scenes by the methods that take moments and score the boxes and masks."""
    import attrib
    from attrib.datasets.scenes import Scenes

    data = Scenes(length=scenes, size=size, seed=seed)
    pictures = [data[i] for i in range(scenes)]
    model = attrib.load_model("demo")
    typer.echo(
        f"{scenes} scenes of {size}x{size}: a small head tells what a large body is.\n"
        "GT-known: share of boxes with IoU >= 0.5. Threshold 20 % of each map's range.\n"
    )
    typer.echo(f"{'method':12}{'GT-known':>10}{'box IoU':>10}{'mask IoU':>10}{'ms/scene':>10}")
    answers: dict[str, list[Explanation]] = {}
    for name in methods():
        explainer = attrib.Explainer(model, TUNED.get(name, name))
        started = time.perf_counter()
        answers[name] = _answers(explainer, pictures)
        elapsed = (time.perf_counter() - started) / scenes
        known, box, mask = _scores(answers[name], pictures)
        typer.echo(f"{name:12}{known:>9.1%}{box:>10.3f}{mask:>10.3f}{1000 * elapsed:>10.1f}")
    for spec in TUNED.values():
        typer.echo(f"\nrun as {spec}")
    typer.echo(f"\nwrote {_draw(answers, pictures, out / 'demo.png')}")
    typer.echo(f"wrote {save(pictures, out / 'scenes')}, pictures to try commands on")


def methods() -> list[str]:
    """List the methods that the demo runs."""
    from attrib.methods import METHODS, untrained

    return [name for name in untrained() if METHODS[name].family in FAMILIES]


def _answers(explainer: Explainer, scenes: list[Scene]) -> list[Explanation]:
    found = explainer.explain(
        [scene.image for scene in scenes], [scene.label for scene in scenes], progress=False
    )
    return cast("list[Explanation]", found)


def _scores(answers: list[Explanation], scenes: list[Scene]) -> tuple[float, float, float]:
    import torch

    from attrib.metrics import pairwise_iou

    boxes = torch.tensor([answer.box or (0, 0, 0, 0) for answer in answers])
    truth = torch.tensor([scene.box for scene in scenes])
    iou = pairwise_iou(boxes.float(), truth.float())
    masks = [
        float((a.mask.cpu() & s.mask).sum() / (a.mask.cpu() | s.mask).sum())
        for a, s in zip(answers, scenes, strict=True)
    ]
    return float((iou >= 0.5).float().mean()), float(iou.mean()), sum(masks) / len(masks)


def _draw(answers: dict[str, list[Explanation]], scenes: list[Scene], path: Path) -> Path:
    from attrib.datasets.scenes import CLASSES
    from attrib.files import replacing
    from attrib.report import Panel, figure

    rows = []
    for i, scene in enumerate(scenes[:SHOWN]):
        row = [Panel(image=scene.image, truth=scene.box, title=CLASSES[scene.label])]
        for name, found in answers.items():
            row.append(
                Panel(
                    image=scene.image,
                    heatmap=found[i].heatmap,
                    box=found[i].box,
                    truth=scene.box,
                    title=name if i == 0 else "",
                )
            )
        rows.append(row)
    with replacing(path) as temporary:
        figure(rows, size=1.8).savefig(temporary, format="png", dpi=110)
    return path


def save(scenes: list[Scene], folder: Path) -> Path:
    """Write a few scenes as pictures."""
    from torchvision.transforms.functional import to_pil_image

    from attrib.datasets.scenes import CLASSES
    from attrib.files import replacing

    for i, scene in enumerate(scenes[:SHOWN]):
        with replacing(folder / f"{i}-{CLASSES[scene.label]}.png") as temporary:
            to_pil_image(scene.image).save(temporary, format="png")
    return folder
