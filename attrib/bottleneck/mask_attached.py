"""A mask network on top of a pretrained classifier, and the file that keeps it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib import surgery
from attrib.bottleneck.attached_file import damage_named, read_attached, save_attached
from attrib.bottleneck.mask_network import MaskNetwork, MaskNetworkOptions, Reads
from attrib.errors import InputError
from attrib.models import Features, SpatialClassifier
from attrib.models.probe import noise as probe_image
from attrib.randomness import seeded

__all__ = ["AttachedMask", "load_mask", "look"]

KIND = "attached-mask"


def look(classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], reads: Reads) -> Features:
    """Run a classifier on whole pictures, as it is: what a mask network reads, and the logits.

    Raises:
        SplitError: features are read and the classifier has no feature map.
    """
    if reads == "features":
        return classifier.forward(images.clone())  # some models rewrite their input
    return Features(grid=images, logits=classifier.predict(images))


@final
class AttachedMask(nn.Module):
    """A mask network for a classifier that stays as it is.

    The classifier always runs in evaluation mode and without gradients. It is no part of this
    module: `parameters()` and `state_dict()` hold the mask network, and no more.

    Args:
        classifier: Any, of pictures of any size; reading pixels it needs no feature map.
        options: Of the network.
        seed: Of the initial weights; torch's own random state is not touched.

    Raises:
        InputError: a negative seed.
        SplitError: features are read and the classifier has no feature map.
    """

    def __init__(
        self,
        classifier: SpatialClassifier,
        *,
        options: MaskNetworkOptions | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if seed < 0:
            raise InputError(f"seed is 0 or more, got {seed}")
        self.classifier = classifier
        self.options = options = options or MaskNetworkOptions()
        seen = look(classifier, probe_image(classifier.model, classifier.spec), options.reads)
        with seeded(seed, torch.device("cpu")):
            network = MaskNetwork(options, seen.grid.shape[1], classifier.num_classes)
        self.network = network.to(classifier.device, surgery.dtype_of(classifier.model))

    def save(self, path: str | Path) -> None:
        """Write the network as safetensors, with the fingerprint of the classifier's weights.

        Raises:
            OutputError: the file cannot be written.
        """
        save_attached(path, KIND, self.network, asdict(self.options), self.classifier)


def load_mask(path: str | Path, classifier: SpatialClassifier) -> AttachedMask:
    """Read what `AttachedMask.save` wrote, for the very classifier that it was trained on.

    Args:
        path: The file.
        classifier: With the weights of that time.

    Raises:
        WeightsError: the file cannot be read, is none of these, or belongs to another classifier.
    """
    options, tensors = read_attached(path, KIND, "mask network", classifier)
    with damage_named(path):
        attached = AttachedMask(classifier, options=MaskNetworkOptions(**options))
        attached.network.load_state_dict(tensors)
    return attached
