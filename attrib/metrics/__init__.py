"""Scores: pure functions and thin accumulators."""

from attrib.metrics.base import METRICS, Metric, at_input, resolve_metric
from attrib.metrics.faithfulness import Deletion, Insertion, curve
from attrib.metrics.randomisation import Randomisation, parameter_randomisation
from attrib.metrics.road import ROAD
from attrib.metrics.sensitivity import Infidelity, MaxSensitivity
from attrib.metrics.sparseness import Sparseness
from attrib.metrics.wsol import InfoCAMProtocol, infocam_boxes, pairwise_iou

__all__ = [
    "METRICS",
    "ROAD",
    "Deletion",
    "Infidelity",
    "InfoCAMProtocol",
    "Insertion",
    "MaxSensitivity",
    "Metric",
    "Randomisation",
    "Sparseness",
    "at_input",
    "curve",
    "infocam_boxes",
    "pairwise_iou",
    "parameter_randomisation",
    "resolve_metric",
]
