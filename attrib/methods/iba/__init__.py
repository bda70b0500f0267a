"""IBA: noise is put on a layer's features wherever the class can do without them."""

from attrib.methods.iba.loop import IBAStep, Loss, iba
from attrib.methods.iba.method import IBA
from attrib.methods.iba.statistics import Statistics, estimate_statistics

__all__ = ["IBA", "IBAStep", "Loss", "Statistics", "estimate_statistics", "iba"]
