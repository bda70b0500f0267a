"""The page of a comparison: one HTML file that needs no other, and no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from attrib.report.overlay import COLORMAP, STRENGTH

__all__ = ["comparison_page"]

ASSETS = resources.files("attrib.report") / "assets"


def comparison_page(view: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        view: What `Comparison.to_dict` returns, with `extent`, `best` (methods by metric),
            `threshold`, and `shown`: per picture its id, outcomes, and what is shown of it, as in
            the journal.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_asset("comparison.html"))
    data = {key: view[key] for key in ("shown", "threshold", "methods", "metrics")}
    return template.render(
        view=view,
        facts=_facts(view),
        data=_embedded(data | {"colours": _colours(), "strength": STRENGTH}),
        style=_asset("comparison.css"),
        script=_asset("comparison.js"),
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _embedded(data: object) -> str:
    """Write JSON that no text in it can end the script element of."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _colours() -> list[list[int]]:
    """Return the colour scale of all figures, as 256 RGB triples."""
    from matplotlib import colormaps

    table = colormaps[COLORMAP](range(256), bytes=True)[:, :3]
    colours: list[list[int]] = table.tolist()
    return colours


def _facts(view: Mapping[str, Any]) -> dict[str, str]:
    """What made the page, for people."""
    model = view["model"]
    preprocessing, versions = model["preprocessing"], model["versions"]
    listed = {key: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
              for key, value in preprocessing.items()}  # fmt: skip
    return {
        "model": model["name"],
        "weights": model["weights"],
        "outputs": "independent (sigmoid)" if model["multi_label"] else "exclusive (softmax)",
        "preprocessing": "; ".join(f"{key} {value}" for key, value in listed.items()),
        "pictures": f"{view['extent']}, {len(view['failed'])} left out",
        "classes explained": view["targets"],
        "methods": "; ".join(row["method"] for row in view["methods"]),
        "metrics": "; ".join(column["metric"] for column in view["metrics"]),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
