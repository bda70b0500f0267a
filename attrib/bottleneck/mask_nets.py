"""The IB mask paper's architectures, one line per network, and one for pictures of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from attrib.bottleneck.mask_layers import receptive_field
from attrib.errors import InputError

__all__ = ["ARCHITECTURES", "MaskArchitecture", "any_size"]


@dataclass(frozen=True, kw_only=True)
class MaskArchitecture:
    """The four networks of a mask model, each a line for `LineNet`.

    Channels of the last layers are those of the paper's data; a `MaskModel` puts its own there.

    Args:
        size: Side of the square pictures.
        classifier: Sees the masked picture.
        mask: Sees the picture, answers with one logit per pixel.
        encoder: Sees the masked picture; a linear layer to mean and log variance follows.
        decoder: From the latent vector to a mask logit and a picture.
        latent: Numbers in the latent vector.
        target: Goal for the autoencoder's loss in nats, as the paper chose it.
    """

    size: int
    classifier: str
    mask: str
    encoder: str
    decoder: str
    latent: int
    target: float

    @property
    def field(self) -> int:
        """Side of the square of pixels that one pixel of the mask depends on, at most."""
        return receptive_field(self.mask, self.size)


ARCHITECTURES = {
    "mnist": MaskArchitecture(
        size=28,
        classifier="C114 C324 C118 C328 C1116 C3216 Avg FC2",
        mask="C114 C324 C118 C328 | R12 C1116 Pad1 R28 C1116 C111",
        encoder="C3216 C3216 C3116",
        decoder="FC24 FC49 S7 T3216 T3116 T3216 C112",
        latent=24,
        target=12,
    ),
    "cifar": MaskArchitecture(
        size=32,
        classifier="C118 C3216 C1116 C3232 C1132 C3248 C1148 Avg FC2",
        mask="C118 C3216 C1116 C3232 | Cs3116 R10 Cs3116 R16 Cs318 R32 Cs318 C111",
        encoder="C328 C328 C3216 C3116",
        decoder="FC64 FC128 S8 T3216 T3116 T3216 T314",
        latent=64,
        target=25,
    ),
    "multi-digit": MaskArchitecture(
        size=56,
        classifier="C114 Cs324 C118 C328 C1116 C3216 C1116 C3216 Avg FC10",
        mask="C114 Cs324 C118 C328 | R12 Cs3116 Pad1 R28 Cs3116 R56 C1116 C111",
        encoder="Cs3216 C3216 C3216 C318",
        decoder="FC24 FC49 S7 T3216 T3116 T328 T324 C112",
        latent=24,
        target=50,
    ),
    "svhn": MaskArchitecture(
        size=128,
        classifier="Cs314 Cs324 Cs314 Cs324 Cs314 Cs328 Cs318 Cs328 Cs318 Cs328 Avg FC4",
        mask="Cs314 Cs324 C118 C328 | Cs318 Cs518 R16 Cs518 Cs518 R32 Cs314 C111 R128",
        encoder="Cs328 Cs318 Cs3216 Cs3116 Cs3216 Cs3116 Cs3216 Cs3232 Cs3132",
        decoder="FC64 FC128 S8 T3216 T3116 T3216 T3116 T328 T318 T324",
        latent=64,
        target=2000,
    ),
}
"""Zhmoginov et al., appendix C. SVHN's classifier ends in `Avg FC4`, which the paper leaves out;
latent sizes are not in the paper either."""


def any_size(
    size: int, *, width: int = 16, halvings: int = 2, latent: int = 64, target: float = 2000
) -> MaskArchitecture:
    """Make an architecture in the paper's style for larger pictures.

    Encoder and decoder halve and double the grid down to 8 x 8 or less. The mask network is fully
    convolutional: it also runs on pictures of other sizes, and a pixel of its mask depends on
    `MaskArchitecture.field` pixels in a row: 17, 33, 65 and 129 with 1 to 4 halvings.

    Args:
        size: Side of the square pictures, 16 or more.
        width: Channels at full resolution; they double with each halving up to four times that.
        halvings: Of the mask network's grid, 1 or more; what the mask looks for should fit into
            `field`, and no more, so that the mask cannot tell the class by itself.
        latent: Numbers in the latent vector.
        target: Goal for the autoencoder's loss, in nats.

    Raises:
        InputError: an option out of its range.
    """
    if size < 16 or halvings < 1 or width < 1 or latent < 1:
        raise InputError(
            "size is 16 or more, halvings, width and latent 1 or more; "
            f"got {size}, {halvings}, {width} and {latent}"
        )
    stages = math.ceil(math.log2(size / 8))
    grid = math.ceil(size / 2**stages)
    widths = [width * min(2**stage, 4) for stage in range(max(stages, halvings))]
    down = [f"Cs32{k}" for k in widths[:stages]]
    up = [f"T32{k}" for k in reversed(widths[:stages])]
    seen = " ".join(f"Cs32{k} Cs11{k}" for k in widths[:halvings])
    deepest = widths[halvings - 1]
    return MaskArchitecture(
        size=size,
        classifier=f"{' '.join(f'{step} Cs31{step[4:]}' for step in down)} Avg FC2",
        mask=f"Cs31{width} {seen} | Cs31{deepest} Cs31{deepest} R Cs31{width} C111",
        encoder=f"{' '.join(down)} Cs31{widths[stages - 1]}",
        decoder=f"FC{latent} FC{2 * grid**2} S{grid} {' '.join(up)} R{size} C114",
        latent=latent,
        target=target,
    )
