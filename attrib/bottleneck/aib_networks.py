"""The networks of the AIB paper, and its attention for any feature grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from attrib.bottleneck.aib_module import AIB, AIBNetwork, Attention
from attrib.bottleneck.aib_quantiser import Quantiser

__all__ = ["cub_vgg16", "pooled_aib", "vgg32", "wrn28_10"]

POOL = 0
"""In a plan of channels: halve the grid by taking maxima."""
POOLED_SIDE = 3
VGG32_FEATURES = (64, 64, 128, 128, 256, 256, 256, POOL)
VGG32_ENCODER = (512, 512, 512, POOL, 512, 512, 512, POOL, 512, POOL, 512, POOL)
VGG16_FEATURES = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512,
                  512)  # fmt: skip


def vgg32(classes: int = 10, *, anchors: int = 0, latent: int = 256) -> AIBNetwork:
    """Build the paper's VGG for 32-pixel pictures, with attention on a 16 x 16 grid.

    Args:
        classes: Number of logits.
        anchors: Of the quantiser, 20 for CIFAR-10 and 50 for CIFAR-100 in the paper; 0 for none.
        latent: Length of the latent vector.
    """
    encode = nn.Sequential(
        *_convolutions(256, VGG32_ENCODER, norm=True),
        nn.Conv2d(512, 512, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 2 * latent),
    )
    aib = AIB(_attention(_scores(256), anchors), encode, _decoder(latent, classes), latent)
    network = AIBNetwork(nn.Sequential(*_convolutions(3, VGG32_FEATURES, norm=True)), aib)
    network.apply(_initialise)
    return network


def wrn28_10(
    classes: int = 10, *, anchors: int = 0, latent: int = 512, dropout: float = 0.3
) -> AIBNetwork:
    """Build the paper's wide residual network for 32-pixel pictures, attention on a 16 x 16 grid.

    Its parameters are those of the paper's table with a latent vector of 512. As in the authors'
    code, no ReLU follows the first normalisation of the attention branch.

    Args:
        classes: Number of logits, and of channels in the attention branch.
        anchors: Of the quantiser, 50 for CIFAR-10 and 20 for CIFAR-100 in the paper; 0 for none.
        latent: Length of the latent vector.
        dropout: Probability, between the two convolutions of a block.
    """
    features = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        _blocks(16, 160, 1, dropout),
        _blocks(160, 320, 2, dropout),
    )
    scores = nn.Sequential(
        _blocks(320, 640, 1, dropout),
        nn.BatchNorm2d(640),
        nn.Conv2d(640, classes, 1, bias=False),
        nn.BatchNorm2d(classes),
        nn.ReLU(),
        nn.Conv2d(classes, 1, 3, padding=1, bias=False),
        nn.BatchNorm2d(1),
        nn.Sigmoid(),
    )
    encode = nn.Sequential(
        _blocks(320, 640, 2, dropout),
        nn.BatchNorm2d(640),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(640, 2 * latent),
    )
    decode = nn.Sequential(nn.ReLU(), nn.Linear(latent, classes))
    network = AIBNetwork(features, AIB(_attention(scores, anchors), encode, decode, latent))
    network.apply(_initialise_wide)
    return network


def cub_vgg16(
    classes: int = 200, *, anchors: int = 0, latent: int = 256, convolutions: int | None = None
) -> AIBNetwork:
    """Build VGG-16 for 224-pixel pictures with attention on its last 14 x 14 grid.

    The weights of torchvision's `vgg16().features` load into `features`; here they are random.

    Args:
        classes: Number of logits.
        anchors: Of the quantiser; 0 for none.
        latent: Length of the latent vector.
        convolutions: With 512 channels, before the scores; by default 3 with a quantiser and 0
            without, as in the authors' code. The paper's table counts 3 in both.
    """
    before = 3 * (anchors > 0) if convolutions is None else convolutions
    aib = pooled_aib(512, classes, anchors=anchors, latent=latent, convolutions=before)
    features = nn.Sequential(*_convolutions(3, VGG16_FEATURES, norm=False))
    features.apply(_initialise)
    return AIBNetwork(features, aib)


def pooled_aib(
    channels: int, classes: int, *, anchors: int = 0, latent: int = 256, convolutions: int = 0
) -> AIB:
    """Build the attention and all that follows it for any feature grid, pooled to 3 x 3.

    Args:
        channels: Of the features.
        classes: Number of logits.
        anchors: Of the quantiser; 0 for none.
        latent: Length of the latent vector.
        convolutions: As many, of as many channels as the features have, before the scores.
    """
    encode = nn.Sequential(
        nn.AdaptiveAvgPool2d(POOLED_SIDE),
        nn.Flatten(),
        nn.Linear(channels * POOLED_SIDE**2, 2 * latent),
    )
    scores = nn.Sequential(
        *_convolutions(channels, (channels,) * convolutions, norm=False), *_scores(channels)
    )
    aib = AIB(_attention(scores, anchors), encode, _decoder(latent, classes), latent)
    aib.apply(_initialise)
    return aib


def _convolutions(channels: int, plan: Sequence[int], *, norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in plan:
        if width == POOL:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.ReLU()]
        channels = width
    return layers


def _scores(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 1, 3, padding=1), nn.Sigmoid())


def _attention(scores: nn.Module, anchors: int) -> Attention:
    return Attention(scores, Quantiser(anchors) if anchors else None)


def _decoder(latent: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(latent, latent), nn.ReLU(), nn.Linear(latent, classes))


class _WideBlock(nn.Module):
    """Two convolutions after normalisations, and a way past them."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.past: nn.Module = nn.Identity()
        if inputs != outputs:
            self.past = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        self.widens = inputs != outputs

    def forward(self, x: Float[Tensor, "b k u v"]) -> Float[Tensor, "b _k _u _v"]:
        entered = self.enter(x)
        out: Tensor = self.past(entered if self.widens else x) + self.body(entered)
        return out


def _blocks(inputs: int, outputs: int, stride: int, dropout: float) -> nn.Sequential:
    """Four blocks: 28 layers are 3 such groups, 2 convolutions a block, and 4 other layers."""
    rest = (_WideBlock(outputs, outputs, 1, dropout) for _ in range(3))
    return nn.Sequential(_WideBlock(inputs, outputs, stride, dropout), *rest)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _initialise_wide(module: nn.Module) -> None:
    """As wide residual networks are; the AIB paper does not say."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
