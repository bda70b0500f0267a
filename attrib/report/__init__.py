"""What people look at: overlays, grids and pages."""

from attrib.report.comparison import comparison_page
from attrib.report.overlay import Box, Panel, figure, overlay
from attrib.report.page import Row, page

__all__ = ["Box", "Panel", "Row", "comparison_page", "figure", "overlay", "page"]
