"""Scores: pure functions and thin accumulators."""

from attrib.metrics.infocam import InfoCAMProtocol, infocam_boxes, pairwise_iou
from attrib.metrics.maxboxacc import MaxBoxAcc, best_ious, threshold_boxes
from attrib.metrics.pointing import PointingGame
from attrib.metrics.pxap import PxAP
from attrib.metrics.wsol import PROTOCOLS, wsol_protocols
from attrib.metrics.wsol_batch import WsolBatch, WsolProtocol, score_maps

__all__ = [
    "PROTOCOLS",
    "InfoCAMProtocol",
    "MaxBoxAcc",
    "PointingGame",
    "PxAP",
    "WsolBatch",
    "WsolProtocol",
    "best_ious",
    "infocam_boxes",
    "pairwise_iou",
    "score_maps",
    "threshold_boxes",
    "wsol_protocols",
]
