"""The rows of the AIB paper's table: one network with attention, without, and without noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib.bottleneck.aib_module import AIBNetwork, NoAttention
from attrib.bottleneck.aib_networks import cub_vgg16, vgg32, wrn28_10
from attrib.errors import UnknownNameError

__all__ = ["NETWORKS", "NetworkName", "PlainNetwork", "Variant", "make_network",
           "published_anchors"]  # fmt: skip

NetworkName = Literal["vgg32", "wrn28_10", "cub_vgg16"]
Variant = Literal["plain", "dvib", "aib", "aib-qt"]
"""No bottleneck; one without attention; with continuous attention; with quantised attention."""

NETWORKS: dict[str, Callable[..., AIBNetwork]] = {
    "vgg32": vgg32,
    "wrn28_10": wrn28_10,
    "cub_vgg16": cub_vgg16,
}
ANCHORS = {"vgg32": (20, 50), "wrn28_10": (50, 20), "cub_vgg16": (20, 20)}
"""Up to 10 classes, and more; of CUB the paper's text has the VGG's 20."""


@final
class PlainNetwork(nn.Module):
    """A network without attention and without noise, trained by the cross-entropy alone.

    Ours, for a comparison at equal size: the layers are those of the network with attention, but
    for its attention branch and the half of the encoder's last layer that makes deviations.

    Args:
        features: Makes features of images.
        encode: Makes the latent vector of features.
        decode: Makes logits of it.
    """

    def __init__(self, features: nn.Module, encode: nn.Module, decode: nn.Module) -> None:
        super().__init__()
        self.features, self.encode, self.decode = features, encode, decode

    def forward(self, images: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c"]:
        """Return logits."""
        logits: Tensor = self.decode(self.encode(self.features(images)))
        return logits


def make_network(
    network: str = "vgg32",
    variant: str = "aib",
    classes: int = 10,
    *,
    width: float = 1.0,
    latent: int | None = None,
    anchors: int | None = None,
    seed: int = 0,
) -> AIBNetwork | PlainNetwork:
    """Build one of the paper's networks, in one of its variants, with new weights.

    Where two variants have a layer in common, they begin with the same weights.

    Args:
        network: `"vgg32"`, `"wrn28_10"` or `"cub_vgg16"`.
        variant: `"plain"`, `"dvib"`, `"aib"` or `"aib-qt"`.
        classes: Number of logits.
        width: Factor on the channels; 1 for the published numbers of parameters.
        latent: Length of the latent vector; the network's own if left.
        anchors: Of the quantiser of `"aib-qt"`; the published number if left.
        seed: Of the weights; torch's own random state is not touched.

    Raises:
        UnknownNameError: no such network or variant.
        InputError: a factor that is not positive, or fewer than 2 anchors.
    """
    if network not in NETWORKS:
        raise UnknownNameError("network", network, NETWORKS)
    if variant not in get_args(Variant):
        raise UnknownNameError("variant", variant, get_args(Variant))
    options: dict[str, int] = {} if latent is None else {"latent": latent}
    if variant == "aib-qt":
        options["anchors"] = published_anchors(network, classes) if anchors is None else anchors
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = NETWORKS[network](classes, width=width, **options)
    if variant == "plain":
        return _plain(made)
    if variant == "dvib":
        made.aib.attention = NoAttention()
    return made


def published_anchors(network: str, classes: int) -> int:
    """Return how many anchors the authors' code has for a network and a number of classes."""
    few, many = ANCHORS[network]
    return few if classes <= 10 else many


def _plain(network: AIBNetwork) -> PlainNetwork:
    aib = network.aib
    *layers, last = aib.encode.children()
    mean = nn.Linear(last.in_features, aib.latent)  # type: ignore[arg-type]
    mean.load_state_dict({key: t[: aib.latent] for key, t in last.state_dict().items()})
    return PlainNetwork(network.features, nn.Sequential(*layers, mean), aib.decode)
