"""The protocols of weakly supervised localisation, by name."""

from __future__ import annotations

from collections.abc import Callable

from attrib.errors import InputError, UnknownNameError
from attrib.metrics.infocam import InfoCAMProtocol
from attrib.metrics.maxboxacc import MaxBoxAcc
from attrib.metrics.pointing import PointingGame
from attrib.metrics.pxap import PxAP
from attrib.metrics.wsol_batch import WsolProtocol

__all__ = ["PROTOCOLS", "wsol_protocols"]

PROTOCOLS: dict[str, Callable[..., WsolProtocol]] = {
    "infocam": InfoCAMProtocol,
    "maxboxacc": MaxBoxAcc,
    "maxboxaccv2": MaxBoxAcc.v2,
    "pointing": PointingGame,
    "pxap": PxAP,
}
"""What makes each."""
OPTIONS = {
    "infocam": {"threshold", "resize"},
    "maxboxacc": {"threshold", "interval", "resize"},
    "maxboxaccv2": {"threshold", "interval", "resize"},
    "pointing": {"tolerance", "resize"},
    "pxap": {"threshold", "interval", "resize"},
}


def wsol_protocols(
    names: str,
    *,
    boxes: bool = True,
    masks: bool = True,
    **options: float | str | None,
) -> list[WsolProtocol]:
    """Make protocols, fresh and ready to be fed.

    Args:
        names: Separated by commas; `"all"` for every one that the ground truth allows.
        boxes: Whether there are true boxes.
        masks: Whether there are true masks.
        options: `threshold`, `interval`, `resize`, `tolerance`; each goes to the protocols that
            have it, and None leaves their default.

    Raises:
        UnknownNameError: no such protocol.
        InputError: an option that none of them has.
    """
    possible = [
        name for name in PROTOCOLS if (masks if name == "pxap" else boxes or name == "pointing")
    ]
    wanted = possible if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in PROTOCOLS:
            raise UnknownNameError("protocol", name, [*PROTOCOLS, "all"])
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if not any(key in OPTIONS[name] for name in wanted):
            raise InputError(f"{key} is no option of the protocol {' or '.join(wanted)}")
    return [
        PROTOCOLS[name](**{key: value for key, value in given.items() if key in OPTIONS[name]})
        for name in wanted
    ]
