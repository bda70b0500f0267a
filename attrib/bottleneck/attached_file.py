"""The file of what was trained on top of a classifier, and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from safetensors.torch import save
from torch import Tensor, nn

from attrib.bottleneck.weights_file import HEADER, read_header
from attrib.errors import InputError, WeightsError
from attrib.files import replacing, writing
from attrib.models import SpatialClassifier, identity, imprint

__all__ = ["Loaded", "damage_named", "read_attached", "save_attached"]

Held = TypeVar("Held")


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


class Loaded(Generic[Held]):
    """What files hold for classifiers: read once, and again when file or weights have changed.

    It is forgotten with the classifier, to which it must not refer.

    Args:
        read: Reads a file for a classifier, and refuses one of other weights.
    """

    def __init__(self, read: Callable[[str, SpatialClassifier], Held]) -> None:
        self._read = read
        self._held: WeakKeyDictionary[SpatialClassifier, dict[str, tuple[Hashable, Held]]]
        self._held = WeakKeyDictionary()

    def __call__(self, path: str, classifier: SpatialClassifier) -> Held:
        """Return what the file holds now.

        Raises:
            WeightsError: the file cannot be read, or does not belong to the classifier.
        """
        of_classifier = self._held.setdefault(classifier, {})
        state = _stamp(path), imprint(classifier.model)
        known = of_classifier.get(path)
        if known is None or known[0] != state:
            known = of_classifier[path] = state, self._read(path, classifier)
        return known[1]


def _stamp(path: str) -> Hashable:
    """Say which file it is and when it changed; None if there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


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
