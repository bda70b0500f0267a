"""Where the logits are in what a model returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from attrib.errors import SplitError

__all__ = ["Output", "logits_of", "spelled"]

Output = str | int | Callable[[Any], Any]
"""The key or attribute that holds the logits, the index of them, or a function that takes what the
model returns and gives them."""


def logits_of(returned: object, output: Output | None = None) -> Float[Tensor, "b c"]:
    """Take the logits out of what a model returned.

    Args:
        returned: Logits, or a tuple, a mapping or an object that holds them.
        output: Where they are; None if the model returns them as they are.

    Raises:
        SplitError: there is nothing of that name, or what is there are no logits; says what the
            model returns and where they may be.
    """
    found = returned if output is None else _taken(returned, output)
    if isinstance(found, Tensor) and found.ndim == 2:
        return found
    what = "the model returns" if output is None else f"output={output!r} gives"
    raise SplitError(
        f"{what} {_described(found)}, expected logits of shape [b, c]; {_advice(returned)}"
    )


def _taken(returned: object, output: Output) -> object:
    if callable(output):
        return output(returned)
    try:
        if isinstance(output, str) and not isinstance(returned, Mapping):
            return getattr(returned, output)
        return returned[output]  # type: ignore[index]
    except (LookupError, AttributeError, TypeError):
        raise SplitError(
            f"the model returns {_described(returned)}, without {output!r}; {_advice(returned)}"
        ) from None


def _advice(returned: object) -> str:
    if _may_be_logits(returned):
        return "leave output= out"
    places = [name for name, value in _parts(returned).items() if _may_be_logits(value)]
    if places:
        return "say where they are: " + " or ".join(f"output={name!r}" for name in places)
    return "say how to get them, output=lambda returned: ..."


def _may_be_logits(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    kind, names = type(value).__name__, ", ".join(map(str, _parts(value)))
    return f"{kind} with {names}" if names else kind


def _parts(value: object) -> dict[Any, object]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return dict(enumerate(value))
    return {name: part for name, part in _attributes(value).items() if not name.startswith("_")}


def _attributes(value: object) -> dict[str, object]:
    return {} if isinstance(value, Tensor) else getattr(value, "__dict__", {})


def spelled(output: Output | None) -> str | int | None:
    """Write down in a file where the logits were; a function by its name.

    >>> spelled("logits"), spelled(spelled)
    ('logits', 'attrib.models.output.spelled')
    """
    if not callable(output):
        return output
    name = getattr(output, "__qualname__", type(output).__qualname__)
    return f"{getattr(output, '__module__', type(output).__module__)}.{name}"
