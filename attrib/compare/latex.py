"""A comparison's table as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrib.compare.table import Estimate, MethodRow
from attrib.metrics import resolve_score

if TYPE_CHECKING:
    from attrib.compare.comparison import Comparison

__all__ = ["latex_table"]

SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def latex_table(comparison: Comparison) -> str:
    """Write methods x metrics as a `tabular` of the booktabs package, the best mean in bold.

    A cell is the mean over pictures and the half width of its 95 % interval; a comment above says
    what was run, and at which thresholds where the best ones were taken.
    """
    metrics, rows = comparison.metrics, comparison.rows
    arrows = {m: r"$\uparrow$" if resolve_score(m).better == "higher" else r"$\downarrow$"
              for m in metrics}  # fmt: skip
    heads = ["method", *(f"{_escape(m)} {arrows[m]}" for m in metrics), "s/picture"]
    best = {m: comparison.best(m) for m in metrics}
    lines = [
        f"% {comparison.extent}, {comparison.targets} classes,"
        f" {comparison.model['name']} ({comparison.model['weights']})",
        *(
            f"% {m}, the oracle's threshold: {found}"
            for m in metrics
            if (found := _oracle(rows, m))
        ),
        rf"\begin{{tabular}}{{l{'r' * (len(metrics) + 1)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *(_line(row, metrics, best) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _oracle(rows: Sequence[MethodRow], metric: str) -> str:
    """List the thresholds that are best for these very pictures, by method."""
    found = {row.method: row.scores[metric].oracle for row in rows}
    return "; ".join(f"{m} {' '.join(f'{t:.2f}' for t in at)}" for m, at in found.items() if at)


def _line(row: MethodRow, metrics: tuple[str, ...], best: dict[str, tuple[str, ...]]) -> str:
    cells = [_cell(row.scores[m], bold=row.method in best[m]) for m in metrics]
    seconds = "--" if row.seconds is None else f"{row.seconds:.3g}"
    return " & ".join([_escape(row.method), *cells, seconds]) + r" \\"


def _cell(cell: Estimate, *, bold: bool) -> str:
    if not cell.pictures:
        return "--"
    mean = f"{cell.mean:.3f}"
    spread = f"$\\,\\pm\\,${(cell.high - cell.low) / 2:.3f}" if cell.pictures > 1 else ""
    return (rf"\textbf{{{mean}}}" if bold else mean) + spread


def _escape(text: str) -> str:
    return "".join(SPECIAL.get(c, c) for c in text)
