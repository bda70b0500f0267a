"""What a picture is without what it shows: references that pixels give way to."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError

__all__ = ["Reference", "reference_of"]

Reference = Literal["zero", "mean", "blur"]
"""`zero` is 0 after normalisation, the mean colour of what the model was trained on; `mean` the
picture's own mean colour; `blur` the picture after a Gaussian of 11 pixels and deviation 5, as in
the code of RISE, but mirrored at the edge where that has zeros."""

BLUR_SIZE, BLUR_SIGMA = 11, 5.0


def reference_of(images: Float[Tensor, "b _ h w"], kind: Reference) -> Float[Tensor, "b _ h w"]:
    """Make the reference of each picture.

    Raises:
        InputError: an unknown kind, or pictures too small to blur.
    """
    if kind == "zero":
        return torch.zeros_like(images)
    if kind == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if kind != "blur":
        raise InputError(f"reference is 'zero', 'mean' or 'blur', got {kind!r}")
    if min(images.shape[-2:]) <= BLUR_SIZE // 2:
        raise InputError(
            f"pictures of {tuple(images.shape[-2:])} pixels are too small for a blur of "
            f"{BLUR_SIZE}; take reference='mean'"
        )
    from torchvision.transforms.functional import gaussian_blur

    blurred: Tensor = gaussian_blur(images, [BLUR_SIZE] * 2, [BLUR_SIGMA] * 2)
    return blurred
