"""AIB's attention on top of a pretrained classifier, and the file that keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib import surgery
from attrib.bottleneck.aib_module import AIBOutput, Modulation, Noise
from attrib.bottleneck.aib_networks import pooled_aib
from attrib.bottleneck.attached_file import damage_named, read_attached, save_attached
from attrib.errors import InputError
from attrib.models import SpatialClassifier
from attrib.models.probe import noise as probe_image
from attrib.randomness import seeded

__all__ = ["AttachedAIB", "load_attached"]

KIND = "attached-aib"


@final
class AttachedAIB(nn.Module):
    """Attention, encoder and decoder on a grid of features of a classifier that stays as it is.

    The grid is the classifier's feature map, or what any module before it returns; encoder and
    decoder take the place of all that follows. The classifier always runs in evaluation mode and
    without gradients. It is no part of this module: `parameters()` and `state_dict()` hold what is
    trained, and no more.

    Args:
        classifier: Any, of pictures of any size.
        latent: Length of the latent vector.
        anchors: Of the quantiser; 0 for continuous attention.
        layer: Path of the module that makes the grid; the feature map itself if left.
        modulation: `"residual"`, or `"gate"`; see `AIB`.
        seed: Of the initial weights; torch's own random state is not touched.

    Raises:
        InputError: less than one latent number or seed.
        SplitError: the classifier has no feature map, or no such layer.
    """

    def __init__(
        self,
        classifier: SpatialClassifier,
        *,
        latent: int = 256,
        anchors: int = 0,
        layer: str = "",
        modulation: Modulation = "residual",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if latent < 1 or anchors < 0 or seed < 0:
            raise InputError(
                "latent is 1 or more, anchors and seed are 0 or more, got "
                f"{latent}, {anchors} and {seed}"
            )
        self.classifier = classifier
        self.layer = layer
        self.options = {
            "latent": latent, "anchors": anchors, "layer": layer, "modulation": modulation
        }  # fmt: skip
        image = probe_image(classifier.model, classifier.spec)
        channels = classifier.grid_at(image, layer).shape[1]
        with seeded(seed, torch.device("cpu")):
            aib = pooled_aib(
                channels,
                classifier.num_classes,
                anchors=anchors,
                latent=latent,
                modulation=modulation,
            )
        self.aib = aib.to(classifier.device, surgery.dtype_of(classifier.model))

    def forward(
        self,
        images: Float[Tensor, "b _ h w"],
        noise: Noise | tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> AIBOutput:
        """Classify images by what the attention leaves; arguments as for `AIB.forward`."""
        output: AIBOutput = self.aib(self._grid(images), noise, generator)
        return output

    def attention_map(self, images: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b u v"]:
        """Return the mean attention, rounded to anchors where there are any; no randomness."""
        return self.aib.attention.map(self._grid(images))

    def _grid(self, images: Tensor) -> Tensor:
        # a copy, since some models rewrite their input
        return self.classifier.grid_at(images.clone(), self.layer)

    def save(self, path: str | Path) -> None:
        """Write the trained weights as safetensors, with the fingerprint of the classifier's.

        Raises:
            OutputError: the file cannot be written.
        """
        save_attached(path, KIND, self.aib, self.options, self.classifier)


def load_attached(path: str | Path, classifier: SpatialClassifier) -> AttachedAIB:
    """Read what `AttachedAIB.save` wrote, for the very classifier that it was trained on.

    Args:
        path: The file.
        classifier: With the weights of that time.

    Raises:
        WeightsError: the file cannot be read, is none of these, or belongs to another classifier.
    """
    options, tensors = read_attached(path, KIND, "attention", classifier)
    with damage_named(path):
        attached = AttachedAIB(classifier, **options)
        attached.aib.load_state_dict(tensors)
    return attached
