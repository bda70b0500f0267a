"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["BatchSize", "Device", "FitOption", "MethodSpec", "ModelName", "NumClasses", "Weights"]

ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="timm name, torchvision/NAME, local-dir:FOLDER, hf-hub:REPO or demo.",
    ),
]
MethodSpec = Annotated[
    str, typer.Option("--method", help='Name or spec, e.g. "infocam+(region=4)".')
]
Weights = Annotated[
    Path | None, typer.Option(help="Weight file (safetensors or state dict) to use instead.")
]
NumClasses = Annotated[
    int | None, typer.Option(help="Outputs of the model, where --weights has other ones.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; the GPU if any.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")]
FitOption = Annotated[
    str | None,
    typer.Option(
        "--fit", help="crop, squash or pad pictures to the model's size; as the model says if left."
    ),
]
