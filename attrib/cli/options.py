"""Options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from attrib.datasets import LabelledDataset

__all__ = [
    "BatchSize",
    "Bfloat16",
    "Data",
    "DatasetName",
    "Decode",
    "Device",
    "Epochs",
    "FirstRate",
    "FitDatasetName",
    "FitOption",
    "FitRoot",
    "JsonFile",
    "Labels",
    "Masks",
    "MethodSpec",
    "ModelName",
    "MultiLabel",
    "NumClasses",
    "Objective",
    "Readers",
    "ResultFolder",
    "Root",
    "Seed",
    "Split",
    "StepSize",
    "TensorBoard",
    "Weights",
    "Work",
    "labelled_dataset",
    "print_terms",
    "source",
    "write_json",
]

_DATASET = typer.Option("--dataset", help="voc, coco, cub or folder.")
_ROOT = typer.Option(
    help="Folder of the data set; for folder also 'DIR/*.tar', 'DIR/*.parquet', or the URL of "
    "any of them."
)
DatasetName = Annotated[str, _DATASET]
Root = Annotated[str, _ROOT]
FitDatasetName = Annotated[str | None, _DATASET]
FitRoot = Annotated[str | None, _ROOT]
Data = Annotated[
    str | None, typer.Option(help="Folder of pictures: short for --dataset folder --root DATA.")
]
Split = Annotated[
    str | None,
    typer.Option(
        help="Part of it: a list of VOC's (train, val, train_aug, ...; or a file), a folder of "
        "COCO's (val2017, ...). VOC's train and COCO's val2017 if left."
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="File of classes per picture, CSV or JSON; for coco its instances JSON. If left, the "
        "data set's own; for folder, what shards say, or one folder per class."
    ),
]
Masks = Annotated[
    str | None,
    typer.Option(help="Folder of true masks ID.png, if another; for folder also as for --root."),
]

ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="timm name, torchvision/NAME, local-dir:FOLDER, hf-hub:REPO, aib:FILE or demo.",
    ),
]
MethodSpec = Annotated[
    str, typer.Option("--method", help='Name or spec, e.g. "infocam+(region=4)".')
]
Weights = Annotated[
    Path | None, typer.Option(help="Weight file (safetensors or state dict) to use instead.")
]
NumClasses = Annotated[
    int | None, typer.Option(help="Outputs of the model, where --weights has another number.")
]
MultiLabel = Annotated[
    bool | None,
    typer.Option(help="The model has independent (sigmoid) outputs; as it says if left."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; the GPU if any.")]
Decode = Annotated[
    str,
    typer.Option(
        "--decode", help="pillow, or device: JPEGs by torchvision where the model is, GPU or CPU."
    ),
]
ResultFolder = Annotated[
    Path, typer.Option(help="Folder for the result; what is begun there goes on.")
]
Work = Annotated[
    Path | None, typer.Option(help="Folder that keeps what is done; repeat the command to go on.")
]
Epochs = Annotated[int, typer.Option(help="Passes over the pictures.")]
StepSize = Annotated[int, typer.Option(help="Pictures per step.")]
FirstRate = Annotated[float, typer.Option(help="First learning rate.")]
Objective = Annotated[str, typer.Option(help="paper, or official for that of the authors' code.")]
Seed = Annotated[int, typer.Option(help="Of weights, order and noise.")]
Readers = Annotated[
    int, typer.Option("--readers", min=0, help="Threads that read ahead; with 0 steps wait.")
]
Bfloat16 = Annotated[bool, typer.Option(help="Compute the loss under bfloat16 autocast.")]
TensorBoard = Annotated[bool, typer.Option(help="Write the log for TensorBoard too.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")]
FitOption = Annotated[
    str | None,
    typer.Option(
        "--fit", help="crop, squash or pad pictures to the model's size; as the model says if left."
    ),
]

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write this file.")]


def write_json(result: dict[str, Any], path: Path | None) -> None:
    """Write an answer to a file, if one was named."""
    from attrib.files import replacing

    if path is not None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def print_terms(report: dict[str, Any]) -> None:
    """Print the mean of every term of a training's loss, a line per epoch."""
    for number, epoch in enumerate(report["history"], 1):
        terms = "   ".join(f"{key} {value:.4f}" for key, value in epoch.items())
        typer.echo(f"epoch {number:3}   {terms}")


def source(
    data: str | None, dataset: str | None, root: str | None, folder: str = "folder"
) -> tuple[str, str]:
    """Return the name and the root of what `--data`, or `--dataset` and `--root`, stand for.

    Args:
        data: Folder of pictures.
        dataset: Name of a data set.
        root: Its folder.
        folder: Name of the data set that `data` is the root of.

    Raises:
        InputError: neither is given whole, or both are given.
    """
    from attrib.errors import InputError

    if data is not None and dataset is None and root is None:
        return folder, data
    if data is None and dataset is not None and root is not None:
        return dataset, root
    given = {"--data": data, "--dataset": dataset, "--root": root}
    named = " and ".join(name for name, value in given.items() if value is not None) or "nothing"
    raise InputError(
        f"pictures are named by --data FOLDER or by --dataset NAME --root FOLDER, got {named}"
    )


def labelled_dataset(
    name: str,
    root: str | Path,
    split: str | None = None,
    labels: Path | None = None,
    masks: str | Path | None = None,
    classes: tuple[str, ...] = (),
) -> LabelledDataset:
    """Open a data set by the name it has on the command line.

    Args:
        name: `voc`, `coco`, `cub` or `folder`.
        root: Its folder; of `folder` also shards or a URL.
        split: Part of it; None for the usual one.
        labels: File of classes per picture.
        masks: Folder of true masks; of `folder` also shards or a URL.
        classes: The model's class names, for a folder whose labels are indices.

    Raises:
        InputError: an option that the data set does not take, or files that cannot be used.
    """
    from attrib.datasets import COCO, VOC, Folder, LabelledCUB
    from attrib.errors import InputError, UnknownNameError

    if name == "voc":
        return VOC(root, split or "train", labels=labels, masks=masks)
    if name == "coco":
        if masks is not None:
            raise InputError("--masks is not for coco, whose masks are in its instances JSON")
        return COCO(root, split or "val2017", annotations=labels)
    if name == "cub":
        if labels is not None or masks is not None:
            raise InputError("--labels and --masks are not for cub, which has its own labels")
        return LabelledCUB(root, split or "train")  # type: ignore[arg-type]
    if name != "folder":
        raise UnknownNameError("data set", name, ["voc", "coco", "cub", "folder"])
    if split is not None:
        raise InputError("--split is not for folder; --labels lists the pictures")
    return Folder(root, labels, classes=classes or None, masks=masks)
