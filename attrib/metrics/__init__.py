"""Scores: pure functions and thin accumulators."""

from attrib.metrics.base import METRICS, Metric, at_input, resolve_metric
from attrib.metrics.faithfulness import Deletion, Insertion, curve
from attrib.metrics.infocam import InfoCAMProtocol, infocam_boxes, pairwise_iou
from attrib.metrics.maxboxacc import MaxBoxAcc, best_ious, threshold_boxes
from attrib.metrics.objects import OBJECT_METRICS, ObjectMetric, resolve_score
from attrib.metrics.pointing import PointingGame
from attrib.metrics.pxap import PxAP
from attrib.metrics.randomisation import Randomisation, parameter_randomisation
from attrib.metrics.road import ROAD
from attrib.metrics.sensitivity import Infidelity, MaxSensitivity
from attrib.metrics.sparseness import Sparseness
from attrib.metrics.wsol import PROTOCOLS, wsol_protocols
from attrib.metrics.wsol_batch import ResumableProtocol, WsolBatch, WsolProtocol, score_maps

__all__ = [
    "METRICS",
    "OBJECT_METRICS",
    "PROTOCOLS",
    "ROAD",
    "Deletion",
    "Infidelity",
    "InfoCAMProtocol",
    "Insertion",
    "MaxBoxAcc",
    "MaxSensitivity",
    "Metric",
    "ObjectMetric",
    "PointingGame",
    "PxAP",
    "Randomisation",
    "ResumableProtocol",
    "Sparseness",
    "WsolBatch",
    "WsolProtocol",
    "at_input",
    "best_ious",
    "curve",
    "infocam_boxes",
    "pairwise_iou",
    "parameter_randomisation",
    "resolve_metric",
    "resolve_score",
    "score_maps",
    "threshold_boxes",
    "wsol_protocols",
]
