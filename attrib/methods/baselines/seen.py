"""Class scores of pictures that are seen in part: once for all classes of a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attrib import surgery
from attrib.methods.baselines.run import forward_of, in_float, reference
from attrib.methods.memory import in_steps
from attrib.models import SpatialClassifier
from attrib.transfer import to_device, to_host
from attrib.types import Attribution, TargetRule, Targets

__all__ = ["Seen", "attribute_seen", "rows_of_images"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """A picture to be seen in part.

    Args:
        classifier: The model, split.
        picture: In float32 at least.
        hidden: What is seen in the place of what is hidden.
        label: Classes that are explained.
        whole: Their scores where nothing is hidden.
        batch: Pictures per forward pass.
    """

    classifier: SpatialClassifier
    picture: Float[Tensor, "c h w"]
    hidden: Float[Tensor, "c h w"]
    label: Int[Tensor, " n"]
    whole: Float[Tensor, " n"]
    batch: int

    def scores(
        self, count: int, seen: Callable[[slice], Bool[Tensor, "s h w"]]
    ) -> Float[Tensor, "count n"]:
        """Score the picture so many times.

        Args:
            count: How often.
            seen: Says what is seen some of the times, on the picture's device.
        """
        forward = forward_of(self.classifier, copy=False)

        def step(times: slice, _batch: int) -> Tensor:
            pictures = torch.where(seen(times)[:, None], self.picture, self.hidden)
            return forward(pictures)[:, self.label]

        none = self.whole.new_zeros(0, len(self.label))
        return torch.cat([none, *in_steps(count, self.batch, step)])

    def scores_of_sets(
        self, parts: Int[Tensor, "h w"], kept: Bool[Tensor, "s p"]
    ) -> Float[Tensor, "s n"]:
        """Score sets of parts; both are on the CPU."""
        device = self.picture.device
        parts, kept = (x.to(device, non_blocking=True) for x in (parts, kept))
        return self.scores(len(kept), lambda sets: kept[sets][:, parts])


Explain = Callable[[Seen], Float[Tensor, "n h w"]]
"""Makes a map for each of the classes."""


def attribute_seen(
    method: Any,
    classifier: SpatialClassifier,
    images: Float[Tensor, "b _ h w"],
    targets: TargetRule,
    explain: Explain,
) -> Attribution:
    """Run the model for its logits, then explain picture by picture.

    So a picture gets the same sets whatever its batch, and each serves for all of its classes.

    Args:
        method: Has a `batch`, and the `reference` that hides.
        classifier: The model, split.
        images: See `Method.attribute`.
        targets: See `Method.attribute`.
        explain: Explains a picture, in inference mode.
    """
    exact = in_float(images)
    with surgery.inference(classifier.model):
        logits = classifier.predict(images)
        pairs, scores = targets(logits), logits.to(exact.dtype)
        maps = exact.new_zeros(len(pairs), *images.shape[2:])
        for i, rows in rows_of_images(pairs).items():
            label = pairs.label[rows]
            one = Seen(
                classifier=classifier,
                picture=exact[i],
                hidden=reference(exact[i : i + 1], method.reference, classifier.spec)[0],
                label=label,
                whole=scores[i, label],
                batch=method.batch,
            )
            maps[rows] = explain(one).to(maps)
    result: Attribution = method._result(classifier, images, maps, pairs, logits)
    return result


def rows_of_images(pairs: Targets) -> dict[int, Int[Tensor, " m"]]:
    """Group pairs by their image; a GPU is awaited once for all of them."""
    rows: dict[int, list[int]] = {}
    for row, image in enumerate(to_host(pairs.image)[0].tolist()):
        rows.setdefault(image, []).append(row)
    return {image: to_device(own, pairs.image.device) for image, own in rows.items()}
