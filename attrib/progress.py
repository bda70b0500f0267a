"""How far something has come, for people."""

from __future__ import annotations

from typing import Any

__all__ = ["progress_bar"]


def progress_bar(
    total: int,
    progress: bool | None,
    *,
    initial: int = 0,
    unit: str = "picture",
    from_left: int = 0,
) -> Any:
    """Return a tqdm bar, to be entered and updated; it goes when all is done.

    Args:
        total: Of what there is to do, with what is done already.
        progress: Show it or not; None for a bar on terminals only, where that many are left.
        initial: How many are done already.
        unit: What is counted.
        from_left: With so many left or more, None shows a bar.
    """
    from tqdm import tqdm

    if progress is None and total - initial < from_left:
        progress = False
    disable = None if progress is None else not progress  # None: off but on terminals
    return tqdm(total=total, initial=initial, disable=disable, unit=unit, leave=False)
