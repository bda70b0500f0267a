"""Model names and weight files to modules that carry their own preprocessing and labels."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attrib.errors import InputError, UnknownNameError, WeightsError, in_one_line
from attrib.models.split import spec_of
from attrib.types import ModelSpec

__all__ = ["load_model", "load_weights", "model_names", "read_state_dict", "register_loader"]

TORCHVISION = "torchvision/"
LOCAL = "local-dir:"
HUB = "hf-hub:"
LOADERS: dict[str, Callable[[str], nn.Module]] = {}
"""Prefix of a model name → what loads the file named after it."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "model.", "_orig_mod.")


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    device: str | torch.device | None = None,
) -> nn.Module:
    """Load a classifier by name, with its preprocessing and label names, ready for `attrib`.

    Args:
        name: A timm name (`"resnet50"`, `"vit_base_patch16_224.augreg_in21k"`),
            `"torchvision/NAME"`, `"local-dir:FOLDER"` (config.json and model.safetensors, as timm
            writes them), `"hf-hub:REPO"`, `"aib:FILE"` for what `attrib fit aib-network` wrote,
            or `"demo"` for the small model that comes with attrib.
        weights: A safetensors file or a state dict to use instead of the published weights.
        num_classes: Outputs of the model, where `weights` has other ones than published; only
            with `weights`, as they would be random without.
        device: Where to put the model; by default the GPU when there is one.

    Returns:
        The model in evaluation mode, with a `ModelSpec` as its attribute `attrib_spec`.

    Raises:
        UnknownNameError: no such model; gives the nearest names.
        WeightsError: weights cannot be fetched, read or fitted.
        InputError: `num_classes` where it does not belong.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    published = weights is None
    prefix = next((prefix for prefix in LOADERS if name.startswith(prefix)), None)
    if name == "demo":
        model = _demo(published, num_classes)
    elif prefix is not None:
        if num_classes is not None:
            raise InputError(f"{name!r} comes with its own classes; leave num_classes out")
        model = LOADERS[prefix](name.removeprefix(prefix))
    else:
        if published and num_classes is not None:
            raise InputError(
                f"num_classes={num_classes} without weights is a model whose last layer is random; "
                "give the file that you trained with weights=FILE (--weights FILE)"
            )
        made = _torchvision if name.startswith(TORCHVISION) else _timm
        model = made(name.removeprefix(TORCHVISION), published, num_classes)
    if weights is not None:
        load_weights(model, weights)
    return model.eval().to(device)


def register_loader(prefix: str, load: Callable[[str], nn.Module]) -> None:
    """Let `load_model` load names with a prefix: by what stands behind it, with `attrib_spec`."""
    LOADERS[prefix] = load


def model_names() -> Iterator[str]:
    """List every name that `load_model` takes, but for folders and hub repositories."""
    import timm
    from torchvision import models

    yield "demo"
    yield from timm.list_models()
    yield from (TORCHVISION + name for name in models.list_models(module=models))


def _demo(published: bool, num_classes: int | None) -> nn.Module:
    from attrib.models.demo_net import demo_config, load_demo

    if not published or num_classes is not None:
        raise InputError("the demo model comes with its own weights and classes")
    config = demo_config()
    model = load_demo()
    model.attrib_spec = ModelSpec(  # type: ignore[assignment]
        name="demo",
        input_size=tuple(config["input_size"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        fit="squash",
        labels=tuple(config["classes"]),
    )
    return model


def _timm(name: str, published: bool, num_classes: int | None) -> nn.Module:
    import timm

    if not name.startswith((LOCAL, HUB)) and not timm.is_model(name.split(".")[0]):
        raise UnknownNameError("model", name, model_names(), hint=_hint(name))
    if name.startswith(LOCAL) and not (Path(name.removeprefix(LOCAL)) / "config.json").is_file():
        raise WeightsError(f"{name}: the folder has no config.json as timm writes it")
    options = {} if num_classes is None else {"num_classes": num_classes}
    with _configured(name), _fetching(name):
        model: nn.Module = timm.create_model(name, pretrained=published, **options)
        model.attrib_spec = replace(spec_of(model), name=name)  # type: ignore[assignment]
    return model


def _hint(name: str) -> str:
    """Say how a folder or a file is given, as they are no names."""
    if Path(name).is_dir():
        return f"A folder that timm saved is 'local-dir:{name}'"
    if Path(name).is_file():
        return f"Give the name of the architecture, and the file as weights (--weights {name})"
    return "`attrib models` lists them"


def _torchvision(name: str, published: bool, num_classes: int | None) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        names = [TORCHVISION + other for other in known]
        raise UnknownNameError("model", TORCHVISION + name, names)
    entry = models.get_model_weights(name).DEFAULT
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if not published and name in ("googlenet", "inception_v3"):
        options["init_weights"] = True
    with _fetching(TORCHVISION + name):
        model: nn.Module = models.get_model(name, weights=entry if published else None, **options)
    preset = entry.transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    labels = tuple(entry.meta["categories"]) if num_classes is None else ()
    model.attrib_spec = ModelSpec(  # type: ignore[assignment]
        name=TORCHVISION + name,
        input_size=(crop, crop),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        crop=crop / resize,
        interpolation=preset.interpolation.value,
        labels=labels,
    )
    return model


@contextmanager
def _configured(name: str) -> Iterator[None]:
    """Say that a configuration is damaged, whatever that makes timm come upon."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        if not name.startswith((LOCAL, HUB)):
            raise
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise WeightsError(f"{name}: no model can be made of its config.json ({cause})") from error


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    """Turn what the libraries raise when weights cannot be had into one clear error."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        cause = in_one_line(error, 300)
        raise WeightsError(
            f"cannot get the weights of {name!r}: {cause}. Give a file with weights=FILE "
            "(--weights FILE), or a folder that timm saved as 'local-dir:FOLDER'"
        ) from error


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a weight file into a model, strictly.

    Raises:
        WeightsError: the file cannot be read, or keys or shapes do not fit; says which. The model
            is then as it was.
    """
    state = read_state_dict(path)
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    surplus = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in state
        if key in own and state[key].shape != own[key].shape
    ]
    problems = [
        f"{what}: {', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}"
        for what, keys in (("missing", missing), ("unexpected", surplus), ("wrong shape", shapes))
        if keys
    ]
    if problems:
        hint = " (num_classes=... sets the number of outputs)" if shapes else ""
        raise WeightsError(f"{path} does not fit the model; {'; '.join(problems)}{hint}")
    model.load_state_dict(state, strict=False)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read tensors from a safetensors file or a `torch.save`d state dict, without running code.

    Common wrappers (`state_dict`, `model`, ...) are opened and prefixes that every key shares
    (`module.`, `model.`) are cut off. Checkpoints of timm's training script are read too.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # timm's; mere data
                state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{path} is no safetensors file and no state dict of tensors alone: {_cause(error)}"
        ) from error
    except Exception as error:  # safetensors raises a class of its own that is no subclass
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return _unwrapped(state, path)


def _cause(error: Exception) -> str:
    text = in_one_line(error)
    if held := re.search(r"Unsupported global: GLOBAL (\S+)", text):
        return f"it holds {held[1]}, and reading that could run code; save model.state_dict()"
    return text[:200]


def _unwrapped(state: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(len(WRAPPERS)):  # no endless opening of one that holds itself
        if not isinstance(state, Mapping):
            break
        inner = next((state[k] for k in WRAPPERS if isinstance(state.get(k), Mapping)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no state dict; save model.state_dict()")
    tensors = dict(state)
    while prefix := next((p for p in PREFIXES if tensors and _all_start(tensors, p)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _all_start(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    return all(key.startswith(prefix) for key in tensors)
