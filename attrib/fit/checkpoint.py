"""The folder of a training run: what a later run needs to go on, and whose folder it is."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attrib.errors import InputError, OutputError
from attrib.files import reading, replacing, writing
from attrib.models.load import load_weights

__all__ = ["CHECKPOINT", "REPORT", "WEIGHTS", "finish", "resume", "save", "write_text"]

WEIGHTS, REPORT, CHECKPOINT = "model.safetensors", "fit.json", "checkpoint.pt"
FREE = ("history", "average_precision", "error", "readers")
"""What a report says that need not agree for a run to go on."""


def resume(
    out: Path, report: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Load what an earlier run with the same settings left; else leave everything as it is.

    Args:
        out: The run's folder; made if absent.
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
        saved = _read(out / CHECKPOINT)
        _check_same(out, saved["report"], report)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        return dict(saved["report"])
    if (out / REPORT).exists():
        with reading(out / REPORT):
            finished = dict(json.loads((out / REPORT).read_text(encoding="utf-8")))
        _check_same(out, finished, report)
        load_weights(model, out / WEIGHTS)
        return finished
    for name in ("config.json", WEIGHTS):
        if (out / name).exists():
            raise InputError(f"{out / name} is of no training run; write to another folder")
    return report


def save(
    out: Path, report: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write all that a later run needs to go on."""
    saved = {
        "report": report,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    whole = io.BytesIO()
    torch.save(saved, whole)
    with writing(out), replacing(out / CHECKPOINT) as temporary:
        temporary.write_bytes(whole.getbuffer())


def finish(
    out: Path, report: Mapping[str, Any], model: nn.Module, metadata: Mapping[str, str]
) -> None:
    """Write weights and report, then drop the checkpoint; nothing without one.

    Args:
        out: The run's folder.
        report: What `fit.json` is to hold.
        model: Whose weights are written.
        metadata: To stand in the weight file's header.
    """
    from safetensors.torch import save

    if not (out / CHECKPOINT).exists():
        return
    tensors = {key: t.detach().cpu().clone().contiguous() for key, t in model.state_dict().items()}
    with writing(out), replacing(out / WEIGHTS) as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt", **metadata}))
    write_text(out / REPORT, json.dumps(report, indent=2) + "\n")
    (out / CHECKPOINT).unlink()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with writing(path.parent), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
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
