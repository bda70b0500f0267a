"""AIB's attention on top of a pretrained classifier, and the file that keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn

from attrib import surgery
from attrib.bottleneck.aib_file import HEADER, read_header
from attrib.bottleneck.aib_module import AIBOutput, Modulation, Noise
from attrib.bottleneck.aib_networks import pooled_aib
from attrib.errors import InputError, WeightsError
from attrib.files import replacing, writing
from attrib.models import SpatialClassifier, fingerprint
from attrib.models.probe import noise as probe_image

__all__ = ["AttachedAIB", "load_attached"]

KIND = "attached-aib"
OPTIONS = {"latent": int, "anchors": int, "layer": str, "modulation": str}


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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
        return self.classifier.grid_at(
            images.clone(), self.layer
        )  # some models rewrite their input

    def save(self, path: str | Path) -> None:
        """Write the trained weights as safetensors, with the fingerprint of the classifier's.

        Raises:
            OutputError: the file cannot be written.
        """
        path = Path(path)
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.aib.state_dict().items()}
        header = {
            "kind": KIND,
            **self.options,
            "model": self.classifier.spec.name,
            "weights": fingerprint(self.classifier.model),
        }
        metadata = {HEADER: json.dumps(header)}  # one entry only: their order is random
        with writing(path.parent), replacing(path) as temporary:
            temporary.write_bytes(save(tensors, metadata=metadata))


def load_attached(path: str | Path, classifier: SpatialClassifier) -> AttachedAIB:
    """Read what `AttachedAIB.save` wrote, for the very classifier that it was trained on.

    Args:
        path: The file.
        classifier: With the weights of that time.

    Raises:
        WeightsError: the file cannot be read, is none of these, or belongs to another classifier.
    """
    header, tensors = _read(Path(path))
    own = fingerprint(classifier.model)
    if header["weights"] != own:
        raise WeightsError(
            f"{path} was trained on {header['model']!r} with weights {header['weights']}; this is "
            f"{classifier.spec.name!r} with weights {own}. Load that model, or train attention "
            "for this one"
        )
    try:
        attached = AttachedAIB(classifier, **{key: header[key] for key in OPTIONS})
        attached.aib.load_state_dict(tensors)
    except (RuntimeError, InputError) as error:
        raise WeightsError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
    return attached


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    header, tensors = read_header(path, KIND)
    header = {"layer": "", "modulation": "residual", **header}  # files had neither at first
    types = {**OPTIONS, "model": str, "weights": str}
    if not all(isinstance(header.get(key), kind) for key, kind in types.items()):
        raise WeightsError(f"{path} holds no attention that AttachedAIB.save wrote")
    return header, tensors
