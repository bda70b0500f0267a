"""What people look at: overlays and grids; files written whole or not at all."""

from attrib.report.files import replacing
from attrib.report.overlay import Box, Panel, figure, overlay

__all__ = ["Box", "Panel", "figure", "overlay", "replacing"]
