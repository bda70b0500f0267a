"""Name → class tables, and the spec strings that make configured objects from them.

A spec is a name, optionally with keyword options in Python literals: `"cam"`,
`"infocam+(region=4, border='same')"`. It is parsed, never evaluated, and `format_spec` writes it
back with only the options that differ from their defaults, so it is also an object's provenance.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from types import UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from attrib.errors import SpecError, UnknownNameError, nearest

__all__ = ["AtLeast", "Registry", "check_fields", "format_spec", "parse_spec"]

T = TypeVar("T")
_SPEC = re.compile(r"\s*([^\s()]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


class Registry(Generic[T]):
    """A table of dataclasses under the name each carries as `name`.

    Args:
        kind: What the table holds, in the singular, for error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, cls: type[T]) -> type[T]:
        """Add `cls` under `cls.name`; use as a decorator. A name is taken only once."""
        name: str = cls.name  # type: ignore[attr-defined]
        if name in self._classes:
            raise ValueError(f"{self.kind} {name!r} is already registered")
        self._classes[name] = cls
        return cls

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __getitem__(self, name: str) -> type[T]:
        try:
            return self._classes[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self) from None

    def make(self, spec: str) -> T:
        """Build the object that a spec string describes.

        Raises:
            UnknownNameError: nothing has that name; the nearest names are given.
            SpecError: the options do not parse, or the object does not take them.
        """
        name, options = parse_spec(spec)
        cls = self[name]
        fields = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for key in options:
            if key not in fields:
                known = nearest(key, fields) if fields else "; it takes none"
                raise SpecError(f"{self.kind} {name!r} has no option {key!r}{known}")
        return cls(**options)


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Take `"name(key=literal, ...)"` apart.

    >>> parse_spec("infocam+(region=4, border='same')")
    ('infocam+', {'region': 4, 'border': 'same'})
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise SpecError(f"cannot read spec {spec!r}; write name or name(option=value, ...)")
    name, body = match.groups()
    try:
        call = ast.parse(f"_({body or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
            raise ValueError("options are given by keyword")
        names = [k.arg for k in call.keywords]
        if len(names) > len(set(names)):
            raise ValueError("an option is given twice")
        return name, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    # too deep a nesting is a MemoryError or a RecursionError, an unhashable key a TypeError
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise SpecError(
            f"cannot read the options of {spec!r} ({error}); "
            "write name(option=value, ...) with numbers, True, False, None or quoted text"
        ) from None


def format_spec(instance: Any) -> str:
    """Write a registered dataclass back as the spec that makes it.

    >>> from attrib.methods import InfoCAM
    >>> format_spec(InfoCAM(region=5))
    'infocam(region=5)'
    """
    changed = [
        f"{f.name}={_literal(getattr(instance, f.name))!r}"
        for f in dataclasses.fields(instance)
        if getattr(instance, f.name) != f.default
    ]
    name: str = instance.name
    return name + (f"({', '.join(changed)})" if changed else "")


def _literal(value: Any) -> Any:
    """Write an object that a spec can make as that spec, and anything else as it is."""
    spelled = dataclasses.is_dataclass(value) and isinstance(getattr(value, "name", None), str)
    return format_spec(value) if spelled else value


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """The least value of a numeric field: `Annotated[int, AtLeast(1)]`."""

    least: float


def check_fields(instance: Any) -> None:
    """Check a dataclass's fields against their annotations, for users who run no type checker.

    Knows classes, unions, uniform tuples, dictionaries, `Literal` and
    `Annotated[..., AtLeast(n)]`; a float takes an int.

    Raises:
        SpecError: says the field, what was given and what was expected.
    """
    hints = get_type_hints(type(instance), include_extras=True)
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        expected = _complaint(value, hints[field.name])
        if expected:
            raise SpecError(f"{instance.name}: {field.name} is {expected}, got {value!r}")


def _complaint(value: object, hint: Any) -> str:
    """Say what was expected, or nothing if the value fits."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return "" if value in choices else "one of " + ", ".join(map(repr, choices))
    if get_origin(hint) is Annotated:
        base, *limits = get_args(hint)
        complaint = _complaint(value, base)
        for limit in limits:
            if complaint or value < limit.least:
                return f"{complaint or _NAMES[base]} of at least {limit.least:g}"
        return complaint
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        fits = isinstance(value, tuple) and not any(_complaint(v, inner) for v in value)
        return "" if fits else f"a tuple, each {_complaint(None, inner)}"
    if get_origin(hint) in (UnionType, Union):
        complaints = [_complaint(value, option) for option in get_args(hint)]
        return "" if "" in complaints else " or ".join(complaints)
    if get_origin(hint) is dict:
        return "" if isinstance(value, dict) else "a dictionary"
    types = (int, float) if hint is float else hint
    fits = isinstance(value, types) and (hint is bool or not isinstance(value, bool))
    return "" if fits else _NAMES.get(hint, f"a {hint.__name__}")


_NAMES = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
