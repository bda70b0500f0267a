"""`attrib methods` and `attrib models`: what there is."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

__all__ = ["methods", "models"]


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List the methods with their options and defaults."""
    from attrib import METHODS

    rows = [
        {
            "name": name,
            "summary": METHODS[name].summary,
            "needs_class_maps": METHODS[name].needs_class_maps,
            "options": {f.name: f.default for f in dataclasses.fields(METHODS[name])},  # type: ignore[arg-type]
        }
        for name in METHODS
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        options = ", ".join(f"{key}={value!r}" for key, value in dict(row["options"]).items())  # type: ignore[call-overload]
        typer.echo(f"{row['name']:12}{row['summary']}")
        typer.echo(f"{'':12}{options}")


def models(
    pattern: Annotated[str, typer.Argument(help="Part of the name.")] = "",
) -> None:
    """List the model names that --model takes, besides local-dir:FOLDER and hf-hub:REPO."""
    from attrib.errors import UnknownNameError
    from attrib.models import model_names

    names = list(model_names())
    found = [name for name in names if pattern.lower() in name.lower()]
    if not found:
        raise UnknownNameError("model", pattern, names)
    for name in found:
        typer.echo(name)
