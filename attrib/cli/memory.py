"""How a process that runs networks on the CPU should hold on to its memory."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Numbers of mallopt(3)'s parameters in glibc."""


def keep_freed_memory() -> bool:
    """Let glibc keep the memory that it is given back, for the next layer to use.

    As it comes, it maps every large activation anew and pays for it page by page, which takes up
    to 40 % of a forward pass at the size of a photograph. Of the whole process, so only for those
    that we start. Does nothing where the user has set a MALLOC_ variable, or elsewhere than on
    Linux.

    Returns:
        Whether all was set.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 1 << 26), (MMAP_MAX, 0))
    return 0 not in [mallopt(parameter, value) for parameter, value in wanted]
