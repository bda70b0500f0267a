"""Methods side by side: one picture, several, or a data set."""

from attrib.compare.comparison import Comparison
from attrib.compare.record import Outcome, PictureRecord, Shown
from attrib.compare.run import compare
from attrib.compare.table import Estimate, MethodRow, estimate

__all__ = [
    "Comparison",
    "Estimate",
    "MethodRow",
    "Outcome",
    "PictureRecord",
    "Shown",
    "compare",
    "estimate",
]
