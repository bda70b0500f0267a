"""What people look at: overlays and grids; files written whole or not at all."""

from attrib.report.files import reading, replacing, writing
from attrib.report.overlay import Box, Panel, figure, overlay
from attrib.report.page import Row, page

__all__ = ["Box", "Panel", "Row", "figure", "overlay", "page", "reading", "replacing", "writing"]
