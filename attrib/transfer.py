"""What goes to a device without being awaited, and what comes back in one go."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["to_device", "to_host"]


def to_device(
    values: Sequence[object], device: torch.device | str, dtype: torch.dtype = torch.int64
) -> Tensor:
    """Make a tensor on a device; the copy is queued behind what the device has yet to do."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Bring tensors of one device to the CPU by a single copy, for which the host waits once.

    Args:
        tensors: Of any shapes, and of types whose values double precision holds.
    """
    if all(tensor.device.type in ("cpu", "mps") for tensor in tensors):  # MPS has no doubles
        return [tensor.detach().cpu() for tensor in tensors]
    together = torch.cat([tensor.detach().flatten().double() for tensor in tensors]).cpu()
    parts = together.split([tensor.numel() for tensor in tensors])
    return [
        part.to(tensor.dtype).view(tensor.shape)
        for part, tensor in zip(parts, tensors, strict=True)
    ]
