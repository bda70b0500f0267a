"""One pass through a network and one back, for the logits and for what is handed to the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attrib import surgery
from attrib.methods.baselines.run import (
    Aside,
    Explain,
    Pictures,
    forward_of,
    in_float,
    without_channels,
)
from attrib.methods.gradient import gradients_of, rows_of
from attrib.methods.memory import in_steps
from attrib.models import SpatialClassifier
from attrib.transfer import to_host
from attrib.types import Attribution, TargetRule, Targets

__all__ = ["Back", "attribute_once", "handed_back", "plainly"]

Run = Callable[[Pictures, bool], Float[Tensor, "n c"]]
"""Takes pictures that are differentiated by, and whether hooks on the model are to see them; gives
logits."""
Finish = Callable[[Pictures, Pictures, Float[Tensor, " n"]], Pictures]
"""Makes values per colour of gradients, the pictures, and the class scores."""


def _gradient(gradient: Pictures, _pictures: Pictures, _score: Float[Tensor, " n"]) -> Pictures:
    return gradient


@dataclass(frozen=True, kw_only=True)
class Back:
    """How a method goes back to the picture.

    Args:
        run: The way there.
        finish: What becomes of what came back; the gradient itself if left.
    """

    run: Run
    finish: Finish = _gradient

    def by_colour(self) -> Explain:
        """Explain pictures, each with one class."""

        def explain(pictures: Tensor, labels: Int[Tensor, " n"], _batch: int) -> Tensor:
            owners = list(range(len(labels)))
            pairs = Targets(image=torch.arange(len(labels), device=labels.device), label=labels)
            return self.handed(*self.recorded(pictures, hooks=False), pairs, owners)

        return explain

    def recorded(self, pictures: Pictures, *, hooks: bool) -> tuple[Pictures, Tensor]:
        """Run the model on pictures of its own; gives both."""
        own = pictures.detach().clone().requires_grad_()
        with torch.enable_grad():
            return own, self.run(own, hooks)

    def handed(
        self,
        own: Float[Tensor, "b _ h w"],
        logits: Float[Tensor, "b c"],
        pairs: Targets,
        owners: list[int],
    ) -> Pictures:
        """Go back from what was recorded: a value per colour for each pair.

        Args:
            own: What `recorded` gives, with the logits.
            logits: Those of all pictures.
            pairs: Pictures and classes.
            owners: `pairs.image`, on the host.
        """
        gradient = gradients_of(logits, own, pairs, owners)
        scores = logits.detach()[pairs.image, pairs.label]
        return self.finish(gradient, rows_of(own.detach(), owners), scores)


def plainly(classifier: SpatialClassifier) -> Run:
    """Run the model as it is."""
    return lambda pictures, hooks: forward_of(classifier, hooks=hooks)(pictures)


def attribute_once(
    method: Any,
    classifier: SpatialClassifier,
    images: Float[Tensor, "b _ h w"],
    targets: TargetRule,
    back: Back,
) -> Attribution:
    """Explain a batch in one pass, if it is not larger than `method.batch`; else in several.

    Args:
        method: Whose `batch` bounds the images of one pass, and whose `channels` makes one value
            of a pixel's colours.
        classifier: The model, split.
        images: See `Method.attribute`.
        targets: See `Method.attribute`.
        back: How the method goes back.
    """
    values, pairs, logits = handed_back(classifier, images, targets, back, batch=method.batch)
    maps = without_channels(values, method.channels)
    result: Attribution = method._result(classifier, images, maps, pairs, logits)
    return result


Known = tuple[Targets, Float[Tensor, "b c"]]
"""Pairs and logits."""


def handed_back(
    classifier: SpatialClassifier,
    images: Float[Tensor, "b _ h w"],
    targets: TargetRule,
    back: Back,
    *,
    batch: int,
    known: Known | None = None,
) -> tuple[Pictures, Targets, Float[Tensor, "b c"]]:
    """Give a value per colour for each pair, the pairs and the logits.

    Args:
        classifier: The model, split.
        images: See `Method.attribute`.
        targets: See `Method.attribute`.
        back: How the method goes back.
        batch: Images of one pass. A larger batch is run for its logits first, as is one for which
            memory runs out.
        known: Pairs and logits, if they are known already.
    """
    exact, aside = in_float(images), Aside(images.device)

    def step(rows: slice, _batch: int) -> Tensor:
        nonlocal known
        if known is None and rows.stop - rows.start < len(images):
            logits = classifier.predict(images)
            known = targets(logits), logits
        with surgery.inference(classifier.model):
            return aside(lambda: through(rows))

    def through(rows: slice) -> Tensor:
        nonlocal known
        own, logits = back.recorded(exact[rows], hooks=known is None)
        if known is None:
            plain = logits.detach().to(images.dtype)
            known = targets(plain), plain
        return back.handed(own, logits, *_of_rows(known[0], rows))

    out = in_steps(len(images), min(batch, max(1, len(images))), step)
    if known is None:  # no image at all
        logits = classifier.predict(images)
        known = targets(logits), logits
    return torch.cat([exact.new_zeros(0, *exact.shape[1:]), *out]), *known


def _of_rows(pairs: Targets, rows: slice) -> tuple[Targets, list[int]]:
    """Pick the pairs of some images, counted from the first of them, with the images' numbers."""
    owners: list[int] = to_host(pairs.image)[0].tolist()
    own = [i for i, image in enumerate(owners) if rows.start <= image < rows.stop]
    part = slice(own[0], own[-1] + 1) if own else slice(0, 0)  # images are in ascending order
    picked = Targets(image=pairs.image[part] - rows.start, label=pairs.label[part])
    return picked, [image - rows.start for image in owners[part]]
