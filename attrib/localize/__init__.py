"""Raw maps to heatmaps, masks and boxes: pure functions, batched, on the maps' device."""

from attrib.localize.components import (
    Components,
    component_engine,
    label_components,
    largest_component,
    largest_component_batched,
    largest_component_bounded,
    tight_boxes,
)
from attrib.localize.heatmap import covered, normalize, status_of, to_source, usable
from attrib.localize.localize import localize
from attrib.localize.threshold import cut_values, otsu

__all__ = [
    "Components",
    "component_engine",
    "covered",
    "cut_values",
    "label_components",
    "largest_component",
    "largest_component_batched",
    "largest_component_bounded",
    "localize",
    "normalize",
    "otsu",
    "status_of",
    "tight_boxes",
    "to_source",
    "usable",
]
