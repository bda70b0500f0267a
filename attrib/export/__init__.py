"""Explanations for services: a model and its explanation as one program of tensor operations."""

from attrib.export.capture import Captured
from attrib.export.check import Deviation
from attrib.export.formats import Format
from attrib.export.graph import OUTPUTS, BoxKind, Graph, GraphOptions
from attrib.export.program import Program, export_program

__all__ = [
    "OUTPUTS",
    "BoxKind",
    "Captured",
    "Deviation",
    "Format",
    "Graph",
    "GraphOptions",
    "Program",
    "export_program",
]
