"""Any other explainer of Captum's, or of its making, as a method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from attrib.errors import SpecError, UnknownNameError, nearest
from attrib.methods.base import METHODS, Method
from attrib.methods.baselines.modular import Modular
from attrib.methods.baselines.run import (
    Batch,
    Channels,
    attribute,
    explainers,
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
    keep memory bounded and say what they cannot explain. Pairs are explained one by one. Refused
    are explainers of layers and of neurons, those that go around another one, those that hook a
    model's modules, DeepLIFT's apart, and those that change pictures with each other. What Captum
    warns of is warned of here too: DeepLIFT's hooks, for one, which are set on a copy of the model.

    Args:
        explainer: Name of a class in `captum.attr`, or any class that is used alike.
        options: Of its constructor and of its `attribute`, by name; None for their defaults.
        seed: Of what it draws, on the CPU, the model's device and NumPy.
        channels: How the colours of a pixel become one value.
        batch: Always 1: how many pictures a forward pass takes is an option of the explainer.

    Raises:
        SpecError: the class does not explain a class of a picture, or an option is none of its
            own or is missing.
        UnknownNameError: Captum has no such class.
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

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        _taken_apart(self.explainer, self.options or {})

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`.

        Raises:
            SpecError: the explainer gives something else than values of pixels.
        """
        make, options = _taken_apart(self.explainer, self.options or {})

        def chunk(pictures: Tensor, labels: Tensor, _batch: int) -> Tensor:
            explainer = make(classifier, pictures)
            if isinstance(explainer, explainers().GradientAttribution):
                pictures.requires_grad_()  # or Captum does, with a warning
            found = explainer.attribute(pictures, target=labels, **options)
            return without_channels(_checked(found, pictures, explainer), self.channels)

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

    Raises:
        SpecError: see `Captum`.
        UnknownNameError: Captum has no such class.

    >>> from attrib.registry import format_spec
    >>> format_spec(captum("IntegratedGradients", n_steps=8))
    "captum(explainer='IntegratedGradients', options={'n_steps': 8})"
    """
    import captum.attr as known

    name = explainer if isinstance(explainer, str) else getattr(explainer, "__name__", "")
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
    kind = _kind_of(explainer)
    reason = _unfit(kind)
    if reason:
        raise SpecError(f"captum: {kind.__name__} {reason}")
    model, *made_with = inspect.signature(kind).parameters.values()
    _check_options(kind, options, [*made_with, *_called_with(kind)])
    own = {p.name: options[p.name] for p in made_with if p.name in options}

    def make(classifier: SpatialClassifier, pictures: Tensor) -> Any:
        hooked = model.name == "model"
        given = Modular(classifier, pictures) if hooked else forward_of(classifier)
        return kind(given, **own)

    return make, {key: value for key, value in options.items() if key not in own}


def _kind_of(explainer: str | type) -> Any:
    import captum.attr as known

    if not isinstance(explainer, str):
        return explainer
    kind = getattr(known, explainer, None)
    if not inspect.isclass(kind):
        raise UnknownNameError("explainer of captum.attr", explainer, known.__all__)
    return kind


def _called_with(kind: Any) -> list[inspect.Parameter]:
    """List what `attribute` takes after the pictures."""
    return list(inspect.signature(kind.attribute).parameters.values())[2:]


UNFIT = {
    "NoiseTunnel": "goes around another explainer; use 'smoothgrad(of=...)', which does the same, "
    "or 'smooth(method=...)' around any method",
    "DataLoaderAttribution": "goes over a data set and not over one picture",
    "LLMAttribution": "is for language models",
    "LLMGradientAttribution": "is for language models",
    "LayerAttribution": "explains the cells of a layer and not the pixels of a picture; 'gradcam', "
    "'layercam' and their kin take layer=",
    "NeuronAttribution": "explains a neuron and not a class",
    "FeaturePermutation": "swaps parts between the pictures of a batch, and pairs are explained "
    "one by one; use 'feature-ablation' or 'occlusion'",
}
"""Explainers of Captum's that give no map of a picture, with all that are made of them, and why."""


def _unfit(kind: Any) -> str:
    """Say why an explainer cannot tell where a class is in a picture, or nothing."""
    import captum.attr as known

    if not callable(getattr(kind, "attribute", None)):
        return "explains nothing: it has no `attribute`"
    for name, reason in UNFIT.items():
        if hasattr(known, name) and issubclass(kind, getattr(known, name)):
            return reason
    first = next(iter(inspect.signature(kind).parameters), None)
    if first is None:
        return "takes neither a model nor a forward function"
    if first == "model" and not issubclass(kind, known.DeepLift):
        return (
            "looks into the modules of a model; 'guided-backprop', 'deconvolution', "
            "'guided-gradcam' and 'lrp' are methods of their own"
        )
    takes = {p.name for p in _called_with(kind) if p.kind is not p.VAR_KEYWORD}
    return "" if "target" in takes else "takes no target, so that it explains no class"


GIVEN = {
    "inputs": "attrib gives the pictures",
    "target": "attrib gives the classes",
    "additional_forward_args": "models are called with pictures alone",
}
"""Parameters that are no options, and why."""


def _check_options(
    kind: Any, options: Mapping[str, Any], parameters: Sequence[inspect.Parameter]
) -> None:
    """Raise `SpecError` for an option that nothing takes, and for one that is missing."""
    import captum.attr as known

    named = {p.name: p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    # what feature ablation takes by any name it does not use
    takes_more = len(named) < len(parameters) and not issubclass(kind, known.FeatureAblation)
    usable = [name for name in named if name not in GIVEN]
    for key in options:
        if key in GIVEN or (key not in named and not takes_more):
            why = f": {GIVEN[key]}" if key in GIVEN else nearest(key, usable)
            raise SpecError(f"captum: {kind.__name__} has no option {key!r} here{why}")
    missing = [
        n for n in usable if named[n].default is inspect.Parameter.empty and n not in options
    ]
    if missing:
        given = ", ".join(f"{name}=..." for name in missing)
        raise SpecError(f"captum: give {kind.__name__} what it needs: {given}")


def _checked(found: Any, pictures: Tensor, explainer: Any) -> Float[Tensor, "n _ h w"]:
    """Raise `SpecError` for what is not a value per colour, or per pixel."""
    shape = tuple(found.shape) if isinstance(found, Tensor) else ()
    if len(shape) == 4 and (shape[0], *shape[2:]) == (len(pictures), *pictures.shape[2:]):
        return found.detach()  # type: ignore[no-any-return]
    raise SpecError(
        f"captum: {type(explainer).__name__} gives {shape or type(found).__name__} for pictures "
        f"{tuple(pictures.shape)}, expected a value per colour and pixel; leave out options that "
        "make it return something else"
    )
