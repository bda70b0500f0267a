"""Scores: pure functions and thin accumulators."""

from attrib.metrics.wsol import InfoCAMProtocol, infocam_boxes, pairwise_iou

__all__ = ["InfoCAMProtocol", "infocam_boxes", "pairwise_iou"]
