"""Any other explainer of Captum's, or of its making, as a method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from attrib.errors import SpecError, UnknownNameError
from attrib.methods.base import METHODS, Method
from attrib.methods.baselines.modular import Modular
from attrib.methods.baselines.rules import DEEPLIFT
from attrib.methods.baselines.run import (
    Batch,
    Channels,
    attribute,
    forward_of,
    without_channels,
)
from attrib.models import SpatialClassifier
from attrib.types import Attribution, TargetRule

__all__ = ["Captum", "captum"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class Captum(Method):
    r"""What an explainer of Captum's gives for the picture and the class.

    $$M_y(p) = \sum_c \texttt{Explainer(forward).attribute(x, target=y)}_c(p)$$

    The explainers that have a name of their own here are better used by it: they know a reference,
    keep memory bounded and say what they cannot explain. Pairs are explained one by one.

    Args:
        explainer: Name of a class in `captum.attr`, or any class that is used alike.
        options: Of its constructor and of its `attribute`, by name; None for their defaults.
        seed: Of what it draws, on the CPU, the model's device and NumPy.
        channels: How the colours of a pixel become one value.
        batch: Always 1: how many pictures a forward pass takes is an option of the explainer.
    """

    name = "captum"
    summary = "any other explainer of Captum's, by the name of its class"
    family = "other"
    normalize = "max"
    needs_class_maps = False
    explainer: str | type = "Saliency"
    options: dict[str, Any] | None = None
    seed: int = 0
    channels: Channels = "sum"
    batch: Batch = 1

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`.

        Raises:
            SpecError: the class does not explain a picture, or takes something that is not given.
            UnknownNameError: Captum has no such class.
        """
        make, options = _taken_apart(self.explainer, self.options or {})

        def chunk(pictures: Tensor, labels: Tensor, _batch: int) -> Tensor:
            explainer = make(classifier, pictures)
            values = explainer.attribute(pictures, target=labels, **options)
            return without_channels(values.detach(), self.channels)

        return attribute(self, classifier, images, targets, chunk, seed=self.seed)


def captum(
    explainer: type | str, *, channels: Channels = "sum", seed: int = 0, **options: Any
) -> Captum:
    """Make a method of any explainer that Captum has or that is used like one of Captum's.

    Args:
        explainer: A class such as `captum.attr.DeepLiftShap`, or its name.
        channels: How the colours of a pixel become one value.
        seed: Of what it draws.
        options: Of its constructor and of its `attribute`.

    >>> from attrib.registry import format_spec
    >>> format_spec(captum("IntegratedGradients", n_steps=8))
    "captum(explainer='IntegratedGradients', options={'n_steps': 8})"
    """
    import captum.attr as known

    name = explainer if isinstance(explainer, str) else explainer.__name__
    known_here = getattr(known, name, None) is explainer
    return Captum(
        explainer=name if known_here else explainer,
        options=options or None,
        channels=channels,
        seed=seed,
    )


def _taken_apart(
    explainer: str | type, options: Mapping[str, Any]
) -> tuple[Callable[[SpatialClassifier, Tensor], Any], dict[str, Any]]:
    """Tell how to make the explainer, and which options are for its `attribute`."""
    import captum.attr as known

    kind: Any = explainer
    if isinstance(explainer, str):
        kind = getattr(known, explainer, None)
        if kind is None:
            raise UnknownNameError("explainer of captum.attr", explainer, known.__all__)
    first, *rest = inspect.signature(kind).parameters.values()
    own = {p.name: options[p.name] for p in rest if p.name in options}
    missing = [p.name for p in rest if p.default is p.empty and p.name not in own]
    listens = first.name == "model" and not issubclass(kind, known.DeepLift)
    if missing or listens or not hasattr(kind, "attribute"):
        reason = (
            f"takes {', '.join(missing)} too" if missing else "looks into the modules of a model"
        )
        raise SpecError(
            f"captum: {kind.__name__} {reason}; it can be an explainer that is made of a forward "
            "function, and 'guided-backprop', 'deconvolution', 'guided-gradcam', 'lrp' and "
            "'smoothgrad' are methods of their own"
        )

    def make(classifier: SpatialClassifier, pictures: Tensor) -> Any:
        hooked = first.name == "model"
        model = Modular(classifier, pictures, DEEPLIFT) if hooked else forward_of(classifier)
        return kind(model, **own)

    return make, {key: value for key, value in options.items() if key not in own}
