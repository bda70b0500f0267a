"""What a classifier's logits say, in nats, of the information between pictures and labels."""

from attrib.information.estimates import MutualInformation, estimate, mutual_information, pmi
from attrib.information.gaussians import gaussian_log_densities, gaussian_mixture, true_mi
from attrib.information.pc_softmax import pc_cross_entropy, pc_log_softmax

__all__ = [
    "MutualInformation",
    "estimate",
    "gaussian_log_densities",
    "gaussian_mixture",
    "mutual_information",
    "pc_cross_entropy",
    "pc_log_softmax",
    "pmi",
    "true_mi",
]
