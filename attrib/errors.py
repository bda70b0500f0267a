"""Every exception and warning that attrib raises on purpose.

AttribError
├── InputError (ValueError)        an argument that cannot be used as given
│   ├── ImageError                 a picture that cannot be read or has an unusable shape
│   ├── TargetError                a class that the model does not have, or a wrong number of them
│   └── SpecError                  a method spec that does not parse, or an option that is wrong
├── UnknownNameError (LookupError) a name that is not registered; says the nearest ones
├── ModelError (RuntimeError)
│   ├── ExportError                no program of tensor operations that does what the model does
│   ├── SplitError                 no feature map or no head to put class maps on
│   └── WeightsError               weights that cannot be fetched, read or fitted
├── DeadlineError (TimeoutError)   a request that takes longer than it may
├── OutputError (OSError)          a file that cannot be written
└── MissingExtraError (ImportError) an optional dependency; says what to install

AttribWarning (UserWarning)
├── DegenerateMapWarning           a map without a usable maximum
└── MemoryWarning                  memory ran out, and smaller steps are taken
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AttribError",
    "AttribWarning",
    "DeadlineError",
    "DegenerateMapWarning",
    "ExportError",
    "ImageError",
    "InputError",
    "MemoryWarning",
    "MissingExtraError",
    "ModelError",
    "OutputError",
    "SpecError",
    "SplitError",
    "TargetError",
    "UnknownNameError",
    "WeightsError",
]


class AttribError(Exception):
    """Root of the tree: `except AttribError` catches whatever attrib raises on purpose."""


class InputError(AttribError, ValueError):
    """An argument cannot be used as given."""


class ImageError(InputError):
    """A picture cannot be read, or has a shape or type that is no picture."""


class TargetError(InputError):
    """A class that the model does not have, or a wrong number of targets."""


class SpecError(InputError):
    """A method spec such as `"infocam(region=4)"` that does not parse or has a wrong option."""


class UnknownNameError(AttribError, LookupError):
    """A name that nothing is registered under."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        super().__init__(
            f"unknown {kind} {name!r}{nearest(name, self.known)}{hint and f'. {hint}'}"
        )


class ModelError(AttribError, RuntimeError):
    """A model cannot be used as asked."""


class ExportError(ModelError):
    """A model cannot be written as one program, or the program does not do what the model does."""


class SplitError(ModelError):
    """The model cannot be seen as a trunk, a feature map and a head."""


class WeightsError(ModelError):
    """Weights cannot be fetched, read or fitted to the model."""


class DeadlineError(AttribError, TimeoutError):
    """A request takes longer than it may."""


class OutputError(AttribError, OSError):
    """A file that cannot be written."""


class MissingExtraError(AttribError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'attrib[{extra}]'")


class AttribWarning(UserWarning):
    """Root of attrib's warnings."""


class DegenerateMapWarning(AttribWarning):
    """A map without a usable maximum: its localisation is empty and flagged."""


class MemoryWarning(AttribWarning):
    """The device ran out of memory, and the rest is done in smaller steps: same result, slower."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return `"; did you mean 'cam'?"` for the nearest known names, or the whole list if short."""
    names = list(known)
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], count, cutoff=0.5)
    originals = [n for c in close for n in names if n.lower() == c]
    if originals:
        return "; did you mean " + " or ".join(repr(n) for n in dict.fromkeys(originals)) + "?"
    if len(names) <= 40:
        return "; known: " + ", ".join(names)
    return ""


def in_one_line(error: BaseException, most: int | None = None) -> str:
    """Return what an error says, on one line, and no more than its first `most` characters."""
    return " ".join(str(error).split())[:most]
