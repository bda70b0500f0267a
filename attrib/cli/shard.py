"""`--shard`: which part of a data set this process deals with, and on which device."""

from __future__ import annotations

import os
from dataclasses import dataclass

from attrib.errors import InputError

__all__ = ["Part", "part_of"]

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of several processes' share of a job.

    Args:
        index: Of the share, from 1.
        count: Shares in all.
        device: Where to compute; None for the usual place.
        launched: A launcher started this process among others and watches its exit status.
    """

    index: int
    count: int
    device: str | None
    launched: bool = False


def part_of(shard: str, device: str | None) -> Part:
    """Read `--shard` and `--device`.

    Args:
        shard: `i/n`, or `auto` for the share and GPU that torchrun has set in the environment.
        device: As given on the command line; `cuda` is one of its GPUs where torchrun says which.

    Raises:
        InputError: neither, or `auto` without torchrun, or more processes than GPUs.
    """
    if shard == AUTO:
        rank, size, local = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return Part(index=rank + 1, count=size, device=_device(device, local), launched=True)
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise InputError(f"--shard takes i/n such as 1/4, or auto under torchrun, got {shard!r}")
    return Part(index=int(index), count=int(count), device=device)


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise InputError(
            f"--shard auto reads RANK, WORLD_SIZE and LOCAL_RANK, which torchrun sets; {name} is "
            f"{text!r}. Start it as torchrun --nproc-per-node N --no-python attrib ..., or give "
            "--shard i/n"
        )
    return int(text)


def _device(device: str | None, local: int) -> str | None:
    import torch

    if device not in (None, "cuda"):
        return device
    gpus = torch.cuda.device_count()
    if gpus == 0:
        return device
    if local >= gpus:
        raise InputError(
            f"torchrun started process {local + 1} on a machine of {gpus} GPUs; give it "
            f"--nproc-per-node {gpus}, or --device cpu"
        )
    return f"cuda:{local}"
