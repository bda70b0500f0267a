"""A trained model as timm reads it: the configuration beside the weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attrib import surgery
from attrib.errors import InputError, in_one_line
from attrib.files import replacing
from attrib.models.probe import noise
from attrib.types import ModelSpec

__all__ = ["CONFIG", "check_rebuilds", "timm_config"]

CONFIG = "config.json"
KEPT = ("interpolation", "first_conv", "classifier", "license")
"""What stays true of a model's timm configuration when its weights change."""
MULTI_LABEL = "multi-label"
"""Among a configuration's notes: outputs are independent. timm has no field for it."""


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
        with replacing(Path(folder, CONFIG)) as temporary:
            temporary.write_text(json.dumps(config), encoding="utf-8")
        try:
            with torch.random.fork_rng(devices=[]):
                twin = timm.create_model(f"local-dir:{folder}", pretrained=False)
            twin.load_state_dict(model.state_dict())
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise InputError(_not_again(config, in_one_line(error, 300))) from error
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
