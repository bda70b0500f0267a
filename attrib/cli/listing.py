"""`attrib methods` and `attrib models`: what there is."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

__all__ = ["methods", "models"]


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List the methods with their options and defaults."""
    from attrib.methods import FAMILIES, METHODS

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "family": METHODS[name].family,
            "summary": METHODS[name].summary,
            "needs_class_maps": METHODS[name].needs_class_maps,
            "options": {f.name: f.default for f in dataclasses.fields(METHODS[name])},  # type: ignore[arg-type]
        }
        for name in METHODS
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for family in FAMILIES:
        _list([row for row in rows if row["family"] == family], family)


def _list(rows: list[dict[str, Any]], family: str) -> None:
    typer.echo(f"{family}:")
    for row in rows:
        options = ", ".join(f"{key}={value!r}" for key, value in row["options"].items())
        typer.echo(f"  {row['name']:22}{row['summary']}")
        typer.echo(f"  {'':22}{options}")


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
