"""The file of what was trained on top of a classifier, and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from attrib.bottleneck.weights_file import HEADER, read_header
from attrib.errors import InputError, WeightsError
from attrib.files import replacing, writing
from attrib.models import SpatialClassifier, identity

__all__ = ["damage_named", "read_attached", "save_attached"]


def save_attached(
    path: str | Path,
    kind: str,
    module: nn.Module,
    options: Mapping[str, Any],
    classifier: SpatialClassifier,
) -> None:
    """Write weights as safetensors, with the fingerprint of the classifier's.

    Args:
        path: File to write.
        kind: What it holds, for the reader.
        module: Whose weights are written.
        options: What the module was built with, by name.
        classifier: That it was trained on.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    header = {"kind": kind, **options, **identity(classifier)}
    metadata = {HEADER: json.dumps(header)}  # one entry only: their order is random
    with writing(path.parent), replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=metadata))


def read_attached(
    path: str | Path, kind: str, what: str, classifier: SpatialClassifier
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read options and weights that `save_attached` wrote, for this very classifier.

    Args:
        path: The file.
        kind: What it has to hold.
        what: That in words, for messages.
        classifier: With the weights of that time.

    Raises:
        WeightsError: the file cannot be read, is of another kind, or belongs to another classifier.
    """
    options, tensors = read_header(path, kind, what)
    own = identity(classifier)
    told = {key: options.pop(key, None) for key in ("model", "weights", "output")}
    if any(told[key] != own.get(key) for key in ("weights", "output")):
        raise WeightsError(
            f"{path} was trained on {_worded(told)}; this is {_worded(own)}. Load that model, or "
            f"train {what} for this one"
        )
    return options, tensors


def _worded(identity: Mapping[str, Any]) -> str:
    output = identity.get("output")
    where = "" if output is None else f", output={output!r}"
    return f"{identity['model']!r} with weights {identity['weights']}{where}"


@contextmanager
def damage_named(path: str | Path) -> Iterator[None]:
    """Say which file is damaged when what it holds does not fit together.

    Raises:
        WeightsError: options that nothing is built with, or tensors of other names or shapes.
    """
    try:
        yield
    except (RuntimeError, TypeError, InputError) as error:
        raise WeightsError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
