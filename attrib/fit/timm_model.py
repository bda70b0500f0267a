"""A timm model with a head for other classes, ready to be trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attrib.errors import InputError, UnknownNameError, WeightsError, in_one_line
from attrib.fit.loading import seeded
from attrib.models.load import read_state_dict
from attrib.models.split import spec_of

__all__ = ["parameters_of_head", "timm_classifier"]

LOCAL = "local-dir:"


def timm_classifier(
    name: str,
    num_classes: int,
    *,
    output_stride: int | None = None,
    pretrained: bool = True,
    weights: str | Path | None = None,
    seed: int = 0,
) -> tuple[nn.Module, dict[str, Any]]:
    """Make a timm model with some number of outputs.

    A head that has this number already is kept, as timm does; another is made anew.

    Args:
        name: A timm name or `"local-dir:FOLDER"`.
        num_classes: Outputs.
        output_stride: Input pixels per cell of the feature map, 8, 16 or 32, for architectures that
            can dilate instead of shrinking; by default the architecture's own.
        pretrained: Start from the published weights, or the folder's.
        weights: Start from this safetensors file or state dict instead.
        seed: Of the weights that are made anew.

    Returns:
        The model on the CPU, and the `model_args` that `fit_classifier` wants to know.

    Raises:
        UnknownNameError: timm knows no such name.
        InputError: the architecture takes no such output stride.
        WeightsError: weights cannot be had, read or fitted.
    """
    import timm

    model_args = _model_args(name)
    if output_stride not in (None, 8, 16, 32):
        raise InputError(f"output_stride is 8, 16 or 32, got {output_stride}")
    if output_stride is not None:
        model_args["output_stride"] = output_stride
    published = pretrained and weights is None
    try:
        with seeded(torch.device("cpu"), seed):
            model: nn.Module = timm.create_model(
                name, pretrained=published, num_classes=num_classes, **model_args
            )
    except (TypeError, AssertionError, NotImplementedError) as error:
        raise InputError(_refused(name, model_args, error)) from error
    except (OSError, RuntimeError, ValueError) as error:
        cause = in_one_line(error, 300)
        raise WeightsError(
            f"cannot get the weights of {name!r}: {cause}. Give a file with --weights FILE, or "
            "start from none with --no-pretrained"
        ) from error
    if weights is not None:
        _load_trunk(model, weights)
    start = f" from {weights}" if weights else "" if published else " from scratch"
    model.attrib_spec = replace(spec_of(model), name=name + start, labels=())  # type: ignore[assignment]
    return model, model_args


def _model_args(name: str) -> dict[str, Any]:
    """Look up what the model in a folder was made with; check other names."""
    import timm

    if not name.startswith(LOCAL):
        if not timm.is_model(name.split(".")[0]):
            raise UnknownNameError("timm model", name, timm.list_models())
        return {}
    path = Path(name.removeprefix(LOCAL)) / "config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).get("model_args") or {})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{name}: the folder has no config.json as timm writes it") from error


def _refused(name: str, model_args: dict[str, Any], error: Exception) -> str:
    cause = in_one_line(error, 200)
    return (
        f"{name!r} cannot be made with {model_args} ({cause or type(error).__name__}); "
        "only networks that can dilate, such as ResNets and MobileNetV2, take an output_stride"
    )


def _load_trunk(model: nn.Module, path: str | Path) -> None:
    """Load weights strictly, but for a head of another number of outputs."""
    state, own = read_state_dict(path), model.state_dict()
    head = {id(p) for p in parameters_of_head(model)}
    for key, parameter in model.named_parameters():
        if id(parameter) in head and key in state and state[key].shape != own[key].shape:
            state[key] = own[key]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        cause = in_one_line(error, 300)
        raise WeightsError(f"{path} does not fit the model: {cause}") from error


def parameters_of_head(model: Any) -> list[nn.Parameter]:
    """List what a timm model turns its pooled features into logits with."""
    heads = model.get_classifier()
    modules = heads if isinstance(heads, tuple | list) else (heads,)
    return [parameter for module in modules for parameter in module.parameters()]
