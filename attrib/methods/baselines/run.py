"""What all baselines share: pairs in chunks, references, noise, channels, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attrib import surgery
from attrib.methods.memory import in_steps
from attrib.models import SpatialClassifier
from attrib.randomness import seeded
from attrib.registry import AtLeast
from attrib.types import Attribution, ModelSpec, TargetRule

__all__ = [
    "Aside",
    "Batch",
    "ByColour",
    "Channels",
    "Chunk",
    "Count",
    "Explain",
    "Pictures",
    "Reference",
    "attribute",
    "baseline",
    "by_pixel",
    "explainers",
    "forward_of",
    "in_float",
    "noise_of",
    "reference",
    "without_channels",
]

Batch = Annotated[int, AtLeast(1)]
Count = Annotated[int, AtLeast(1)]

Channels = Literal["sum", "abs-sum", "abs-max", "mean"]
"""How the colours of a pixel become one value: their sum (signed), the sum or the largest of their
magnitudes (never negative), or their mean."""

Reference = Literal["mean", "black", "blur"]
"""What a picture without the class looks like: the data's mean colour, which is 0 once normalised;
black; or the picture blurred by a Gaussian whose deviation is a sixteenth of its shorter side."""

_OVERWRITTEN = "modified by an inplace operation"
"""What autograd says where it cannot go back."""

Pictures = Float[Tensor, "n _ h w"]
Chunk = Callable[[Pictures, Int[Tensor, " n"], int], Tensor]
"""Explains pairs: their pictures, their classes, and how many pictures a forward pass takes. Gives
maps `[n, h, w]`."""
Explain = Callable[[Pictures, Int[Tensor, " n"], int], Pictures]
"""Takes what a `Chunk` takes, and gives a value per colour, `[n, c, h, w]`."""


@runtime_checkable
class ByColour(Protocol):
    """A method that explains each colour of a pixel, before they become one value."""

    def by_colour(self, classifier: SpatialClassifier) -> Explain:
        """Make what explains a few pairs colour by colour, in inference mode."""
        ...


def attribute(
    method: Any,
    classifier: SpatialClassifier,
    images: Float[Tensor, "b _ h w"],
    targets: TargetRule,
    chunk: Chunk,
    *,
    seed: int = 0,
) -> Attribution:
    """Run the model for its logits, then explain the pairs one by one.

    So a picture gets the same noise whatever its batch, and its copies fill a batch as well.

    Args:
        method: Whose `batch` bounds the pictures of one forward pass.
        classifier: The model, split.
        images: See `Method.attribute`.
        targets: See `Method.attribute`.
        chunk: Explains a pair. It gets a picture of its own, in float32 at least.
        seed: Of the noise, for every call anew.
    """
    logits = classifier.predict(images)
    pairs = targets(logits)
    exact, aside = in_float(images), Aside(images.device)

    def step(rows: slice, batch: int) -> Tensor:
        pictures, labels = exact[pairs.image[rows]], pairs.label[rows]

        def explained() -> Tensor:
            with seeded(seed, images.device):
                return chunk(pictures, labels, batch).detach()

        with surgery.inference(classifier.model):
            return aside(explained)

    out = in_steps(len(pairs), method.batch, step, rows=1)
    maps = torch.cat([exact.new_zeros(0, *images.shape[2:]), *out])
    result: Attribution = method._result(classifier, images, maps, pairs, logits)
    return result


def in_float(images: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ h w"]:
    """Bring pictures to float32, unless they are more exact."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


class Aside:
    """Runs what goes back through a model that may write in place over what a layer needs for it.

    That is kept aside from where it turns out to be needed: it costs a tenth of what the network
    does, and torch lets one thread do it at a time, as `seeded` does.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._needed = device, False

    def __call__(self, run: Callable[[], Tensor]) -> Tensor:
        """Run, and once more if something was written over."""
        if not self._needed:
            try:
                return run()
            except RuntimeError as error:
                if _OVERWRITTEN not in str(error):
                    raise
        self._needed = True
        with seeded(0, self._device), torch.autograd.graph.allow_mutation_on_saved_tensors():
            return run()


def explainers() -> Any:
    """Load Captum where it is used: it takes longer than everything else together."""
    import captum.attr

    return captum.attr


def forward_of(
    classifier: SpatialClassifier, *, hooks: bool = False, copy: bool = True
) -> Callable[[Tensor], Tensor]:
    """Make the function that pictures go through: logits, in the pictures' precision.

    Args:
        classifier: The model, split.
        hooks: Let hooks on the model itself see the pictures; they are to see the user's only.
        copy: Whether pictures are used again, or differentiated by; some models write into them.
    """
    model = classifier.model
    dtype, run = surgery.dtype_of(model), model if hooks else model.forward

    def forward(pictures: Tensor) -> Tensor:
        return classifier.logits_of(run(pictures.to(dtype, copy=copy))).to(pictures.dtype)

    return forward


def reference(
    pictures: Float[Tensor, "n _ h w"], kind: Reference, spec: ModelSpec
) -> Float[Tensor, "n _ h w"]:
    """Make the picture without the class that a method compares with; see `Reference`."""
    if kind == "mean":
        return torch.zeros_like(pictures)
    if kind == "black":
        colour = [-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)]
        return torch.ones_like(pictures) * pictures.new_tensor(colour)[:, None, None]
    from torchvision.transforms.functional import gaussian_blur

    sigma = min(pictures.shape[-2:]) / 16
    blurred: Tensor = gaussian_blur(pictures, 2 * round(2 * sigma) + 1, sigma)
    return blurred


def baseline(
    pictures: Float[Tensor, "n _ h w"], kind: Reference, spec: ModelSpec
) -> Float[Tensor, "n _ h w"] | int:
    """Make the same for Captum, which multiplies by it: a plain 0 costs nothing."""
    return 0 if kind == "mean" else reference(pictures, kind, spec)


def noise_of(pictures: Float[Tensor, "n _ h w"], fraction: float) -> float:
    """Return the deviation of noise that is a fraction of a picture's range."""
    return fraction * float(pictures.max() - pictures.min())


def by_pixel(explain: Explain, channels: Channels) -> Chunk:
    """Make one value of a pixel's colours, once they are explained."""
    return lambda *asked: without_channels(explain(*asked), channels)


def without_channels(values: Float[Tensor, "n _ h w"], how: Channels) -> Float[Tensor, "n h w"]:
    """Make one value of the colours of a pixel; see `Channels`."""
    if how == "sum":
        return values.sum(1)
    if how == "abs-sum":
        return values.abs().sum(1)
    return values.abs().amax(1) if how == "abs-max" else values.mean(1)
