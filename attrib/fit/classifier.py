"""Training a classifier whose class maps become seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attrib import surgery
from attrib.datasets.labelled import LabelledDataset, LabelledSample, digest
from attrib.errors import InputError, SplitError
from attrib.fit import checkpoint
from attrib.fit.config import FitConfig
from attrib.fit.loading import labelled_samples
from attrib.fit.loop import train as train_loop
from attrib.fit.timm_config import CONFIG, check_rebuilds, timm_config
from attrib.fit.timm_model import parameters_of_head
from attrib.fit.training import ClassifierTask
from attrib.models.adl import adl_inserted
from attrib.models.output import logits_of
from attrib.models.probe import noise, probing
from attrib.models.split import spec_of
from attrib.types import ModelSpec

__all__ = ["fit_classifier"]


def fit_classifier(
    model: nn.Module,
    train: LabelledDataset,
    *,
    out: str | Path,
    config: FitConfig | None = None,
    validation: LabelledDataset | None = None,
    model_args: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Train a timm model on pictures and their classes, in place.

    The model's weights, and with `train_norm` its running statistics, are changed and its
    `attrib_spec` becomes that of the trained model; gradients are dropped. Modes and the random
    state are left as they were. Parameters that want no gradient are not trained.

    A checkpoint is written after each epoch. Called again with the same settings and folder, a run
    goes on after the last whole epoch, whatever weights the model comes with, and ends as if it had
    not been interrupted: on the CPU bit by bit. A run that had ended is loaded.

    For validation, pictures are brought to `config.crop` as a whole: the long side is resized and
    the rest filled with the mean colour. The trained model's spec says the same.

    Args:
        model: From timm, on the device to train on, with one output per class of `train`.
        train: Pictures to learn from.
        out: Folder for `model.safetensors`, `config.json` (together a `local-dir:` model of timm's
            and `attrib.load_model`'s) and `fit.json`.
        config: The published recipe if left.
        validation: Scored after each epoch; has the classes of `train`.
        model_args: What `timm.create_model` was given beside name and number of classes, such as
            `{"output_stride": 16}`.
        tensorboard: Write the log for TensorBoard too.
        progress: Show a bar; None for one on terminals only.

    Returns:
        What `fit.json` holds: the settings and, as `history`, per epoch the mean `loss` and, with
        a validation set, the `average_precision` of each class, None for a class that no picture
        has, and their mean.

    Raises:
        InputError: model and data set do not fit, classes are missing, the folder holds another
            run, or the loss is not finite.
        ImageError: a picture cannot be read; names it.
        ModelError: the model is spread over devices by DataParallel or DistributedDataParallel.
        SplitError: no such module for ADL to follow.
        OutputError: `out` cannot be made a folder.
    """
    out, config = Path(out), config or FitConfig()
    surgery.refuse_parallel(model)
    model = surgery.unwrap(model)
    spec = _spec(model, train, config)
    description = timm_config(model, spec, model_args or {})
    check_rebuilds(model, description, spec)
    samples = labelled_samples(train, exclusive=config.loss == "cross-entropy")
    task = ClassifierTask(
        model=model,
        optimizer=_optimizer(model, config),
        samples=samples,
        judged=_judged(train, validation),
        spec=spec,
        config=config,
    )
    settings = _settings(description, spec, train.name, samples, validation, config)
    with adl_inserted(model, config.adl, p=config.adl_p, gamma=config.adl_gamma):
        report = train_loop(
            task,
            out,
            settings,
            train_norm=config.train_norm,
            bfloat16=config.bfloat16,
            tensorboard=tensorboard,
            progress=progress,
        )
    if (out / checkpoint.CHECKPOINT).exists():
        checkpoint.write_text(out / CONFIG, json.dumps(description, indent=2) + "\n")
    checkpoint.finish(out, report, model, {})
    model.attrib_spec = spec  # type: ignore[assignment]
    return report


def _settings(
    description: Mapping[str, Any],
    spec: ModelSpec,
    dataset: str,
    samples: Sequence[LabelledSample],
    validation: LabelledDataset | None,
    config: FitConfig,
) -> dict[str, Any]:
    """Everything that the weights depend on."""
    return {
        "schema": "attrib.fit/1",
        "model": spec.name,
        "architecture": description["architecture"],
        "model_args": description["model_args"],
        "dataset": dataset,
        "pictures": len(samples),
        "digest": digest(samples),
        "validation": validation.name if validation else None,
        "config": asdict(config),
    }


def _spec(model: nn.Module, train: LabelledDataset, config: FitConfig) -> ModelSpec:
    """Say how the trained model is to be fed; check that this one can be."""
    if not isinstance(getattr(model, "pretrained_cfg", None), Mapping):
        raise InputError(
            f"fit_classifier trains timm models, got {type(model).__name__} without pretrained_cfg"
        )
    spec = replace(
        spec_of(model),
        input_size=(config.crop, config.crop),
        fit="pad",
        crop=1.0,
        labels=tuple(train.labels),
        multi_label=config.loss == "soft-margin",
    )
    images = noise(model, spec)
    try:
        with probing(model, images):
            outputs = logits_of(model(images)).shape[1]
    except SplitError as error:
        raise InputError(f"set crop to a size that the model takes: {error}") from error
    if outputs != len(train.labels):
        raise InputError(
            f"the model has {outputs} outputs, {train.name} has {len(train.labels)} classes; "
            f"make it with num_classes={len(train.labels)}"
        )
    return spec


def _judged(train: LabelledDataset, validation: LabelledDataset | None) -> list[LabelledSample]:
    if validation is None:
        return []
    if tuple(validation.labels) != tuple(train.labels):
        raise InputError(f"{validation.name} and {train.name} have different classes")
    return labelled_samples(validation, exclusive=False)


def _optimizer(model: nn.Module, config: FitConfig) -> torch.optim.SGD:
    head = {id(parameter) for parameter in parameters_of_head(model)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("no parameter of the model wants a gradient; nothing can be trained")
    groups = [
        {"params": [p for p in trained if (id(p) in head) == of_head], "first_lr": rate}
        for of_head, rate in ((False, config.lr), (True, config.lr * config.head_factor))
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
