"""What people look at: overlays, grids and pages."""

from attrib.report.overlay import Box, Panel, figure, overlay
from attrib.report.page import Row, page

__all__ = ["Box", "Panel", "Row", "figure", "overlay", "page"]
