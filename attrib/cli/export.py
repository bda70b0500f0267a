"""`attrib export`: a model and its explanation as one file for a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attrib.cli.options import Device, MethodSpec, ModelName, MultiLabel, NumClasses, Weights

__all__ = ["run"]


def run(
    model: ModelName,
    out: Annotated[
        Path, typer.Option(help="File to write: .pt2 for torch.export, .onnx for ONNX.")
    ],
    method: MethodSpec = "infocam+",
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Height and width of the pictures it takes; the model's if left."),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Where heatmaps are cut, in [0, 1].")] = 0.2,
    normalize: Annotated[str, typer.Option(help="minmax or max.")] = "minmax",
    boxes: Annotated[
        str, typer.Option(help="largest component, or all that reaches the threshold.")
    ] = "largest",
    rounds: Annotated[int, typer.Option(min=1, help="Of finding components.")] = 8,
    tolerance: Annotated[
        float, typer.Option(help="How far the program may be from the model, relative.")
    ] = 1e-4,
    weights: Weights = None,
    num_classes: NumClasses = None,
    multi_label: MultiLabel = None,
    device: Device = None,
) -> None:
    """Write a program that predicts and explains, after comparing it with the model."""
    import attrib

    loaded = attrib.load_model(model, weights=weights, num_classes=num_classes, device=device)
    program = attrib.Explainer(loaded, method, multi_label=multi_label).export(
        out,
        image_size=size,
        threshold=threshold,
        normalize=normalize,  # type: ignore[arg-type]
        boxes=boxes,  # type: ignore[arg-type]
        rounds=rounds,
        tolerance=tolerance,
    )
    found = program.deviation
    typer.echo(
        f"wrote {out}: {program.metadata['method']}, box around "
        f"{program.metadata['boxes']['around']}\n"
        f"deviation from the model: logits {found.logits:.1e}, maps {found.maps:.1e}, "
        f"boxes {found.boxes} px"
    )
