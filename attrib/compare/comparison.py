"""The answer of a comparison: a table, pictures, and the files they are saved to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrib.compare.latex import latex_table
from attrib.compare.record import PictureRecord, Shown
from attrib.compare.table import MethodRow, row_of
from attrib.errors import InputError
from attrib.files import replacing
from attrib.localize import largest_component
from attrib.metrics import resolve_score
from attrib.report import Panel, comparison_page, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison"]

SCHEMA = "attrib.comparison/1"
SHOWN_IN_FIGURE = 6
PICTURES = "pictures"
"""Name of what is no data set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Methods side by side: scores, seconds and memory, and their maps of some pictures.

    Args:
        name: Of the data set, or `"pictures"`.
        methods: Their specs.
        metrics: Their specs.
        pictures: What was measured, picture by picture.
        failed: Pictures that could not be read, and why.
        targets: Which classes were explained: `"predicted"`, `"true"` or `"given"`.
        threshold: Fraction of a map's range at which boxes are cut until a reader moves it.
        model: Name, weights hash, preprocessing and versions.
    """

    name: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    pictures: tuple[PictureRecord, ...]
    failed: Mapping[str, str]
    targets: str
    threshold: float
    model: Mapping[str, Any]

    @property
    def extent(self) -> str:
        """How much was compared on, in words: `"24 pictures of CUB test"`, or `"1 picture"`."""
        count = f"{len(self.pictures)} picture{'' if len(self.pictures) == 1 else 's'}"
        return count if self.name == PICTURES else f"{count} of {self.name}"

    @cached_property
    def rows(self) -> tuple[MethodRow, ...]:
        """One per method, in the order given."""
        return tuple(row_of(method, self.metrics, self.pictures) for method in self.methods)

    def best(self, metric: str) -> tuple[str, ...]:
        """Name the methods with the best mean; none where no method has one."""
        means = {row.method: row.scores[metric].mean for row in self.rows}
        known = [mean for mean in means.values() if mean == mean]
        if not known:
            return ()
        best = max(known) if resolve_score(metric).better == "higher" else min(known)
        return tuple(method for method, mean in means.items() if mean == best)

    def to_dict(self) -> dict[str, Any]:
        """Return what `save("x.json")` writes; the field names are documented and stable."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "pictures": len(self.pictures),
            "failed": dict(self.failed),
            "targets": self.targets,
            "metrics": [_metric(spec) for spec in self.metrics],
            "methods": [row.to_dict() for row in self.rows],
            "model": dict(self.model),
        }

    def plot(self) -> Figure:
        """Draw some pictures with the maps of every method, on one colour scale."""
        shown = [r.shown for r in self.pictures if r.shown is not None][:SHOWN_IN_FIGURE]
        if not shown:
            raise InputError(
                "this comparison holds no pictures to plot; make it with shown=1 or more"
            )
        rows = [self._panels(one, first=i == 0) for i, one in enumerate(shown)]
        return figure(rows, size=1.8, colorbar="fraction of the map's range")

    def _panels(self, shown: Shown, *, first: bool) -> list[Panel]:
        size = (shown.pixels.shape[1], shown.pixels.shape[2])
        row = [Panel(image=shown.pixels, title=shown.target.split(",")[0])]
        for method in self.methods:
            title = method if first else ""
            if method not in shown.maps:
                row.append(Panel(image=shown.pixels // 4 + 160, title=f"{title} (none)".strip()))
                continue
            heat = shown.maps[method].heatmap(size)
            found = largest_component(heat[None] >= self.threshold)
            usable = bool(heat.any()) and int(found.areas[0]) > 0
            x0, y0, x1, y1 = found.boxes[0].tolist()
            box = (x0, y0, x1, y1) if usable else None
            row.append(Panel(image=shown.pixels, heatmap=heat, box=box, title=title))
        return row

    def save(self, path: str | Path) -> Path:
        """Write a file, whole or not at all; its suffix says which.

        `.html` one page that needs no other file, `.png` and `.pdf` the figure of `plot`, `.json`
        the numbers, `.tex` the table for a paper that loads booktabs.
        """
        path = Path(path)
        writers = {
            ".html": self._save_html,
            ".png": self._save_figure,
            ".pdf": self._save_figure,
            ".json": self._save_json,
            ".tex": self._save_tex,
        }
        if path.suffix.lower() not in writers:
            raise InputError(
                f"cannot save a comparison as {path.name!r}; end the name in {', '.join(writers)}"
            )
        with replacing(path) as temporary:
            writers[path.suffix.lower()](temporary)
        return path

    def _save_html(self, path: Path) -> None:
        path.write_text(comparison_page(self._view()), encoding="utf-8")

    def _save_figure(self, path: Path) -> None:
        self.plot().savefig(path, dpi=200)

    def _save_json(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def _save_tex(self, path: Path) -> None:
        path.write_text(latex_table(self), encoding="utf-8")

    def _view(self) -> dict[str, Any]:
        """Return the numbers, which methods are best, and what the page shows of pictures."""
        shown = [{"id": r.id, **r.to_dict()} for r in self.pictures if r.shown is not None]
        for outcome in (o for r in shown for o in r["outcomes"].values()):
            del outcome["rows"]  # which a reader has no use for
        best = {spec: list(self.best(spec)) for spec in self.metrics}
        own = {"extent": self.extent, "threshold": self.threshold}
        return self.to_dict() | {"best": best, "shown": shown} | own

    def __repr__(self) -> str:
        return (
            f"<Comparison of {len(self.methods)} methods on {self.extent} by "
            f"{', '.join(self.metrics) or 'no metric'}>"
        )


def _metric(spec: str) -> dict[str, str]:
    metric = resolve_score(spec)
    return {"metric": spec, "summary": metric.summary, "better": metric.better}
