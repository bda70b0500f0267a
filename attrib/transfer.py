"""What goes to a device without being awaited, and what comes back in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Sender", "Sent", "to_device", "to_host"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sent:
    """A tensor on its way to a device; only `here` gives it away.

    Args:
        tensor: On the device.
        event: Comes to pass when it is there; None where there is nothing to wait for.
    """

    tensor: Tensor
    event: torch.cuda.Event | None = None

    def here(self) -> Tensor:
        """Return it for use in the current stream, which waits for it; the host does not."""
        if self.event is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.event)
            self.tensor.record_stream(stream)  # so that its memory is not reused before its use
        return self.tensor


class Sender:
    """Brings tensors to a GPU in a stream of its own, beside what the GPU computes.

    Threads that read call it, from pinned memory; whoever computes calls `Sent.here`. For any other
    device it hands tensors on as they are.

    Args:
        device: Where to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Do what is sent afterwards in the stream of its own."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield

    def __call__(self, tensors: Sequence[Tensor]) -> list[Sent]:
        """Queue the copies; tensors that `aside` made on the device are not copied."""
        if self._stream is None:
            return [Sent(tensor=tensor) for tensor in tensors]
        with self.aside():
            pinned = [t if t.is_cuda else t.pin_memory() for t in tensors]
            there = [t.to(self._device, non_blocking=True) for t in pinned]
            event = self._stream.record_event()
        return [Sent(tensor=tensor, event=event) for tensor in there]


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
