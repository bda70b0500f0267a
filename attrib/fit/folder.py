"""The folder of a training run: a checkpoint on the way, at the end a model as timm reads it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attrib import surgery
from attrib.errors import InputError, OutputError
from attrib.models.load import load_weights
from attrib.models.probe import noise
from attrib.report import replacing
from attrib.types import ModelSpec

__all__ = ["check_rebuilds", "finish", "resume", "save_checkpoint", "timm_config"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
REPORT, CHECKPOINT = "fit.json", "checkpoint.pt"
KEPT = ("interpolation", "first_conv", "classifier", "license")
"""What stays true of a model's timm configuration when its weights change."""
MULTI_LABEL = "multi-label"
"""Among a configuration's notes: outputs are independent. timm has no field for it."""
FREE = ("history", "average_precision", "workers")
"""What a report says that need not agree for a run to go on."""


def timm_config(model: nn.Module, spec: ModelSpec, model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Write down what timm needs to make a model again, feed it and name its outputs.

    Args:
        model: From timm.
        spec: How to feed it, with all labels.
        model_args: What `timm.create_model` is given beside the number of classes.
    """
    known: Mapping[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    classes = len(spec.labels)
    made_for = {"img_size": list(known["input_size"][1:])} if known.get("fixed_input_size") else {}
    return {
        "architecture": known["architecture"],
        "num_classes": classes,
        "model_args": {**made_for, **model_args},
        "pretrained_cfg": {
            **{key: known[key] for key in KEPT if key in known},
            "custom_load": False,
            "input_size": [len(spec.mean), *spec.input_size],
            "crop_pct": spec.crop,
            "crop_mode": {"pad": "border", "squash": "squash", "crop": "center"}[spec.fit],
            "mean": list(spec.mean),
            "std": list(spec.std),
            "num_classes": classes,
            "label_names": list(spec.labels),
            **({"notes": [MULTI_LABEL]} if spec.multi_label else {}),
        },
    }


def check_rebuilds(model: nn.Module, config: Mapping[str, Any], spec: ModelSpec) -> None:
    """Make a twin from the configuration, give it the weights, and compare the two on noise.

    Raises:
        InputError: timm makes no such model, or one that computes something else.
    """
    import timm

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, CONFIG).write_text(json.dumps(config), encoding="utf-8")
        try:
            with torch.random.fork_rng(devices=[]):
                twin = timm.create_model(f"local-dir:{folder}", pretrained=False)
            twin.load_state_dict(model.state_dict())
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise InputError(_not_again(config, " ".join(str(error).split())[:300])) from error
    twin.to(surgery.device_of(model), surgery.dtype_of(model))
    images = noise(model, spec)
    with surgery.inference(model), surgery.inference(twin):
        if not torch.allclose(model(images), twin(images), rtol=1e-3, atol=1e-4):
            raise InputError(_not_again(config, "it computes other logits"))


def _not_again(config: Mapping[str, Any], cause: str) -> str:
    return (
        f"timm does not make this model again from {config['architecture']!r} and "
        f"model_args={config['model_args']}: {cause}. Pass as model_args what create_model was "
        "given, e.g. {'output_stride': 16}"
    )


def resume(
    out: Path, report: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Load what an earlier run with the same settings left; else leave everything as it is.

    Args:
        out: The run's folder.
        report: Of a run that has not begun.
        model: Gets the weights.
        optimizer: Gets its state.

    Returns:
        The report of the earlier run, or the one given.

    Raises:
        InputError: the folder is of another run, or damaged.
        OutputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made a folder: {error.strerror}") from error
    if (out / CHECKPOINT).exists():
        saved = _read_checkpoint(out / CHECKPOINT)
        _check_same(out, saved["report"], report)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        return dict(saved["report"])
    if (out / REPORT).exists():
        finished: dict[str, Any] = json.loads((out / REPORT).read_text(encoding="utf-8"))
        _check_same(out, finished, report)
        load_weights(model, out / WEIGHTS)
        return finished
    for name in (CONFIG, WEIGHTS):
        if (out / name).exists():
            raise InputError(f"{out / name} is of no training run; write to another folder")
    return report


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return {key: saved[key] for key in ("report", "model", "optimizer")}
    except Exception as error:  # torch raises whatever damaged data leads to
        raise InputError(f"{path} is damaged; delete it to start again: {error}") from error


def _check_same(out: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    old, new = _settings(there), _settings(here)
    different = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    if different:
        pairs = [f"{key} is {old.get(key)!r} there, {new.get(key)!r} here" for key in different]
        raise InputError(
            f"{out} holds a run with other settings: {'; '.join(pairs)}. "
            "Give the same ones to go on, or another folder"
        )


def _settings(report: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten what decides a run's outcome."""
    flat = {**report, **report.get("config", {})}
    for key in ("config", *FREE):
        flat.pop(key, None)
    return dict(json.loads(json.dumps(flat)))


def save_checkpoint(
    out: Path, report: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write all that a later run needs to go on."""
    saved = {
        "report": report,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with replacing(out / CHECKPOINT) as temporary:
        torch.save(saved, temporary)


def finish(
    out: Path, report: Mapping[str, Any], model: nn.Module, config: Mapping[str, Any]
) -> None:
    """Write weights, configuration and report, then drop the checkpoint; nothing without one."""
    from safetensors.torch import save

    if not (out / CHECKPOINT).exists():
        return
    tensors = {key: t.detach().cpu().clone().contiguous() for key, t in model.state_dict().items()}
    with replacing(out / WEIGHTS) as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
    for name, content in ((CONFIG, config), (REPORT, report)):
        with replacing(out / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (out / CHECKPOINT).unlink()
