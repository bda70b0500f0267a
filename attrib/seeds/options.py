"""What can be chosen about seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attrib.errors import InputError, UnknownNameError
from attrib.registry import check_fields
from attrib.seeds.formats import FORMATS

__all__ = ["SeedOptions"]


@dataclass(frozen=True, kw_only=True)
class SeedOptions:
    """How maps are made and what is written of them.

    Args:
        scales: Sizes at which a picture is seen, as fractions; None for a method's own, and
            (1, 0.5, 1.5, 2) for one that has none.
        flip: See the mirror image too; None as for `scales`, and True.
        fit: `"native"` keeps a picture's size and aspect ratio, as the field does; `"squash"`
            brings it to the model's input size first, for models that take no other.
        formats: Names in `FORMATS`.
        threshold: Background value of label images and boxes: a map value in [0, 1].
        alpha: Takes the place of `threshold` in label images: background (1 - max)^alpha.
        foreground: Map value from which affinity labels are confident of a class.
        background: Map value up to which they are confident of background.
        refine: `"pamr"` makes the maps follow the picture's colour edges.
        saliency: Folder of masks `ID.png`, non-zero where the picture's objects are: pixels where
            they and the label disagree are ignored.
    """

    name = "seeds"
    scales: tuple[float, ...] | None = None
    flip: bool | None = None
    fit: Literal["native", "squash"] = "native"
    formats: tuple[str, ...] = ("label",)
    threshold: float = 0.25
    alpha: float | None = None
    foreground: float = 0.30
    background: float = 0.05
    refine: Literal["pamr"] | None = None
    saliency: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.formats:
            raise InputError(f"name at least one format of {', '.join(FORMATS)}")
        for name in self.formats:
            if name not in FORMATS:
                raise UnknownNameError("seed format", name, FORMATS)
        if self.scales is not None and (not self.scales or min(self.scales) <= 0):
            raise InputError(f"scales are positive fractions, got {self.scales}")
        if self.foreground < self.background:
            raise InputError(
                f"foreground {self.foreground} is below background {self.background}; a pixel "
                "could be both"
            )
        if self.alpha is not None and self.alpha <= 0:
            raise InputError(f"alpha is positive, got {self.alpha}")
        if self.saliency is not None and not self.saliency.is_dir():
            raise InputError(f"saliency is a folder of masks ID.png; {self.saliency} is none")
