"""A program as one CUDA graph, for one number of images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import ExportError, InputError

__all__ = ["Captured"]

WARM = 3
"""Runs before a graph is captured, in which libraries choose their kernels."""


class Captured:
    """Runs a program by replaying one graph: its kernels are launched together, not one by one.

    A graph reads and writes memory of its own, for as many images as it was captured with. Images
    are copied into it and answers out of it, so that both are the caller's. It is for one thread.

    Args:
        run: What a program does; nothing in it may wait for the GPU.
        example: Images on the GPU, of the shape that the graph will take.

    Raises:
        ExportError: the program cannot be captured.
    """

    def __init__(
        self, run: Callable[[Tensor], tuple[Tensor, ...]], example: Float[Tensor, "b _ h w"]
    ) -> None:
        self._images = example.detach().clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(example.device), torch.no_grad():
            self._warm(run)
            try:
                with torch.cuda.graph(self._graph):
                    self._outputs = run(self._images)
            except RuntimeError as error:
                raise ExportError(
                    f"the program cannot be captured as a CUDA graph ({error}); run it as it is"
                ) from error

    def _warm(self, run: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                run(self._images)
        current.wait_stream(aside)

    def __call__(self, images: Float[Tensor, "b _ h w"]) -> tuple[Tensor, ...]:
        """Return what the program returns for as many images, on the GPU; the host does not wait.

        Raises:
            InputError: images of another number, size or type.
        """
        want = self._images
        if images.shape != want.shape or images.dtype != want.dtype:
            raise InputError(
                f"this graph was captured for {want.dtype} {tuple(want.shape)}, got "
                f"{images.dtype} {tuple(images.shape)}; capture another for that"
            )
        with torch.no_grad():
            want.copy_(images, non_blocking=True)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)
