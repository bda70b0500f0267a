"""What a method is: a frozen dataclass of options with one operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError
from attrib.models import SpatialClassifier
from attrib.registry import Registry, check_fields, format_spec
from attrib.types import Attribution, Normalize, TargetRule, Targets

__all__ = ["FAMILIES", "METHODS", "Method", "resolve", "untrained"]


class Method(ABC):
    """Abstract; every method is final. Its fields are its options, its command line and its spec.

    A method makes raw maps on the feature grid. It never normalises them, resizes them to the
    picture or draws them.
    """

    name: ClassVar[str]
    """As in spec strings and on the command line."""
    summary: ClassVar[str]
    """One line for `attrib methods`."""
    family: ClassVar[str] = "other"
    """Under which `attrib methods` lists it, one of `FAMILIES`."""
    unit: ClassVar[str] = "logits"
    normalize: ClassVar[Normalize] = "minmax"
    """`"max"` for methods in whose maps 0 says that a place does nothing; see `Attribution`."""
    needs_class_maps: ClassVar[bool] = True
    """False for methods that work on any differentiable model."""
    needs_weights: ClassVar[bool] = False
    """True for methods that explain with something trained, given as `weights`."""
    needs_attention: ClassVar[bool] = False
    """True for methods that read the attention of a transformer."""
    per_target: ClassVar[bool] = True
    """False for methods whose map of a class depends on the other classes explained with it."""

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """Explain a batch in one forward pass.

        Args:
            classifier: The model, split.
            images: Normalised as `classifier.spec` says, on its device; not changed.
            targets: Called with the logits, gives the (image, class) pairs to explain.
        """

    def _result(
        self,
        classifier: SpatialClassifier,
        images: Tensor,
        maps: Float[Tensor, "n u v"],
        targets: Targets,
        logits: Tensor,
    ) -> Attribution:
        return Attribution(
            maps=maps,
            targets=targets,
            logits=logits,
            method=format_spec(self),
            unit=self.unit,
            exact=classifier.exact or not self.needs_class_maps,
            input_size=(images.shape[-2], images.shape[-1]),
            normalize=self.normalize,
        )


METHODS: Registry[Method] = Registry("method")
"""Every method by name."""

FAMILIES = (
    "class maps",
    "features and their gradients",
    "features, tried one by one",
    "bottlenecks",
    "attention",
    "gradients of pixels",
    "perturbed pictures",
    "around another method",
    "other",
)
"""What methods look at, in the order in which they are listed."""


def untrained() -> list[str]:
    """List the methods that work on any model as they are, transformer or not."""
    return [
        name
        for name in METHODS
        if not METHODS[name].needs_weights and not METHODS[name].needs_attention
    ]


def resolve(method: str | Method) -> Method:
    """Return a method as it is, or build it from its spec string."""
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        return METHODS.make(method)
    raise InputError(
        f"a method is a spec string such as 'infocam+(region=4)' or a Method, got {method!r}"
    )
