"""The one entry of metadata that says what a safetensors file of ours holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from attrib.errors import WeightsError

__all__ = ["HEADER", "read_header"]

HEADER = "attrib"
"""Key of our entry in a file's metadata; the only one, as the order of several is random."""


def read_header(path: str | Path, kind: str, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file's entry, without its kind, and its tensors.

    Args:
        path: The file.
        kind: That the entry has to name.
        what: That in words, for messages.

    Raises:
        WeightsError: the file cannot be read, or is of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    try:
        header = dict(json.loads(metadata[HEADER]))
        found = header.pop("kind")
    except (KeyError, TypeError, ValueError, RecursionError):
        found = None
    if found != kind:
        raise WeightsError(f"{path} holds no {what} that attrib wrote")
    return header, tensors
