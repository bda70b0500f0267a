"""Methods and files against ground truth: what `attrib evaluate` does."""

from attrib.evaluate.seeds import evaluate_seeds
from attrib.evaluate.wsol import evaluate_saved_maps, evaluate_wsol

__all__ = ["evaluate_saved_maps", "evaluate_seeds", "evaluate_wsol"]
