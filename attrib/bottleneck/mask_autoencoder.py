"""The variational autoencoders that put a price on what a mask shows."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib.bottleneck.mask_layers import LineNet
from attrib.bottleneck.mask_nets import MaskArchitecture
from attrib.bottleneck.mask_terms import prior_kl
from attrib.errors import InputError

__all__ = ["Autoencoder"]


class Autoencoder(nn.Module):
    """A variational autoencoder, on request told the class, the mask or both.

    The class joins the encoder's input as constant planes and the latent vector as one-hot
    numbers; the mask joins the input of every convolution of the decoder. The paper says only that
    the models are conditioned.

    Args:
        architecture: Names encoder, decoder and the size of the latent vector.
        seen: Channels of the encoder's input.
        decoded: Channels of the decoder's output.
        classes: Told to it; 0 for none.
        told_mask: The decoder is told the mask.
    """

    def __init__(
        self,
        architecture: MaskArchitecture,
        seen: int,
        decoded: int,
        *,
        classes: int = 0,
        told_mask: bool = False,
    ) -> None:
        super().__init__()
        self.classes, latent = classes, architecture.latent
        grid = (architecture.size, architecture.size)
        self.encoder = LineNet(architecture.encoder, (seen + classes, *grid), rectify_last=True)
        self.code = nn.Linear(torch.Size(self.encoder.shape).numel(), 2 * latent)
        self.decoder = LineNet(
            architecture.decoder, (latent + classes,), outputs=decoded, beside=int(told_mask)
        )
        if self.decoder.shape != (decoded, *grid):
            raise InputError(
                f"the decoder {architecture.decoder!r} makes {self.decoder.shape}, not "
                f"{(decoded, *grid)}"
            )

    def forward(
        self,
        x: Float[Tensor, "b _k h w"],
        z: Float[Tensor, "b d"],
        labels: Int[Tensor, " b"],
        mask: Float[Tensor, "b 1 h w"] | None = None,
    ) -> tuple[Float[Tensor, "b _j h w"], Float[Tensor, " b"]]:
        """Encode, draw and decode; return the decoded channels and the cost of the code."""
        told = x.new_zeros(len(x), 0)
        if self.classes:
            told = F.one_hot(labels, self.classes).to(x)
        planes = told[:, :, None, None].expand(-1, -1, *x.shape[2:])
        code = self.code(self.encoder(torch.cat([x, planes], 1)).flatten(1))
        mean, logvar = code.chunk(2, 1)
        drawn = mean + (logvar / 2).exp() * z
        return self.decoder(torch.cat([drawn, told], 1), mask), prior_kl(mean, logvar)
