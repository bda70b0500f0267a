"""The networks of the AIB paper, and its attention for any feature grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from attrib.bottleneck.aib_module import AIB, AIBNetwork, Attention, Modulation
from attrib.bottleneck.aib_quantiser import Quantiser
from attrib.errors import InputError

__all__ = ["cub_vgg16", "pooled_aib", "scaled", "vgg32", "wrn28_10"]

POOL = 0
"""In a plan of channels: halve the grid by taking maxima."""
POOLED_SIDE = 3
VGG32_FEATURES = (64, 64, 128, 128, 256, 256, 256, POOL)
VGG32_ENCODER = (512, 512, 512, POOL, 512, 512, 512, POOL, 512, POOL, 512, POOL)
VGG16_FEATURES = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512,
                  512)  # fmt: skip


def vgg32(
    classes: int = 10, *, anchors: int = 0, latent: int = 256, width: float = 1.0
) -> AIBNetwork:
    """Build the paper's VGG for 32-pixel pictures, with attention on a 16 x 16 grid.

    Args:
        classes: Number of logits.
        anchors: Of the quantiser, 20 for CIFAR-10 and 50 for CIFAR-100 in the paper; 0 for none.
        latent: Length of the latent vector.
        width: Factor on the channels of every convolution.
    """
    features, encoder = scaled(VGG32_FEATURES, width), scaled(VGG32_ENCODER, width)
    attended, (encoded,) = max(features), scaled([512], width)
    encode = nn.Sequential(
        *_convolutions(attended, encoder, norm=True),
        nn.Conv2d(encoded, encoded, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(encoded, 2 * latent),
    )
    aib = AIB(_attention(_scores(attended), anchors), encode, _decoder(latent, classes), latent)
    network = AIBNetwork(nn.Sequential(*_convolutions(3, features, norm=True)), aib)
    network.apply(_initialise)
    return network


def wrn28_10(
    classes: int = 10,
    *,
    anchors: int = 0,
    latent: int = 512,
    dropout: float = 0.3,
    width: float = 1.0,
) -> AIBNetwork:
    """Build the paper's wide residual network for 32-pixel pictures, attention on a 16 x 16 grid.

    Its parameters are those of the paper's table with a latent vector of 512. As in the authors'
    code, no ReLU follows the first normalisation of the attention branch.

    Args:
        classes: Number of logits, and of channels in the attention branch.
        anchors: Of the quantiser, 50 for CIFAR-10 and 20 for CIFAR-100 in the paper; 0 for none.
        latent: Length of the latent vector.
        dropout: Probability, between the two convolutions of a block.
        width: Factor on the channels of the three groups of blocks; at 1 the network is 10 times
            as wide as a ResNet.
    """
    first, second, third = scaled([160, 320, 640], width)
    features = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        _blocks(16, first, 1, dropout),
        _blocks(first, second, 2, dropout),
    )
    scores = nn.Sequential(
        _blocks(second, third, 1, dropout),
        nn.BatchNorm2d(third),
        nn.Conv2d(third, classes, 1, bias=False),
        nn.BatchNorm2d(classes),
        nn.ReLU(),
        nn.Conv2d(classes, 1, 3, padding=1, bias=False),
        nn.BatchNorm2d(1),
        nn.Sigmoid(),
    )
    encode = nn.Sequential(
        _blocks(second, third, 2, dropout),
        nn.BatchNorm2d(third),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(third, 2 * latent),
    )
    decode = nn.Sequential(nn.ReLU(), nn.Linear(latent, classes))
    network = AIBNetwork(features, AIB(_attention(scores, anchors), encode, decode, latent))
    network.apply(_initialise_wide)
    return network


def cub_vgg16(
    classes: int = 200,
    *,
    anchors: int = 0,
    latent: int = 256,
    convolutions: int | None = None,
    width: float = 1.0,
) -> AIBNetwork:
    """Build VGG-16 for 224-pixel pictures with attention on its last 14 x 14 grid.

    The weights of torchvision's `vgg16().features` load into `features`; here they are random.

    Args:
        classes: Number of logits.
        anchors: Of the quantiser; 0 for none.
        latent: Length of the latent vector.
        convolutions: With 512 channels, before the scores; by default 3 with a quantiser and 0
            without, as in the authors' code. The paper's table counts 3 in both.
        width: Factor on the channels of every convolution.
    """
    before = 3 * (anchors > 0) if convolutions is None else convolutions
    plan = scaled(VGG16_FEATURES, width)
    aib = pooled_aib(max(plan), classes, anchors=anchors, latent=latent, convolutions=before)
    features = nn.Sequential(*_convolutions(3, plan, norm=False))
    features.apply(_initialise)
    return AIBNetwork(features, aib)


def pooled_aib(
    channels: int,
    classes: int,
    *,
    anchors: int = 0,
    latent: int = 256,
    convolutions: int = 0,
    modulation: Modulation = "residual",
) -> AIB:
    """Build the attention and all that follows it for any feature grid, pooled to 3 x 3.

    Args:
        channels: Of the features.
        classes: Number of logits.
        anchors: Of the quantiser; 0 for none.
        latent: Length of the latent vector.
        convolutions: As many, of as many channels as the features have, before the scores.
        modulation: See `AIB`.
    """
    encode = nn.Sequential(
        nn.AdaptiveAvgPool2d(POOLED_SIDE),
        nn.Flatten(),
        nn.Linear(channels * POOLED_SIDE**2, 2 * latent),
    )
    scores = nn.Sequential(
        *_convolutions(channels, (channels,) * convolutions, norm=False), *_scores(channels)
    )
    attention, decode = _attention(scores, anchors), _decoder(latent, classes)
    aib = AIB(attention, encode, decode, latent, modulation)
    aib.apply(_initialise)
    return aib


def scaled(plan: Sequence[int], width: float) -> tuple[int, ...]:
    """Multiply numbers of channels, to 1 or more; where the grid is halved stays.

    Raises:
        InputError: the factor is not positive.
    """
    if not width > 0:
        raise InputError(f"width is a positive factor on the channels, got {width}")
    return tuple(channels and max(1, round(channels * width)) for channels in plan)


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
