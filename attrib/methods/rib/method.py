"""RIB as a method, and as something to run over many pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.errors import SpecError
from attrib.methods.base import METHODS, Method
from attrib.methods.rib.loop import RIBTrace, learner_for, run
from attrib.methods.rib.options import RIBOptions
from attrib.methods.rib.others import PreparedPool
from attrib.models import SpatialClassifier
from attrib.types import Attribution, TargetRule

__all__ = ["RIB", "RIBRunner"]


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class RIB(RIBOptions, Method):
    r"""Maps of a model that is fine-tuned on the picture with nothing to saturate.

    $$\theta_k = \theta_{k-1} - \lambda_k \nabla_\theta \mathcal{L}, \quad
    \mathcal{L} = -\sum_c t_c\, \mathrm{GNDRP}(M_c), \quad
    \mathrm{GNDRP}(M) = \tfrac{1}{|U|}\sum_{u:\, M(u) / \max M < \tau} M(u)$$

    and the answer is the sum of the class maps' positive part over steps, scales and mirror images.
    Lee et al., *Reducing Information Bottleneck for Weakly Supervised Semantic Segmentation*,
    eqs. 3 to 6. `preset="official"` is the authors' code: the loop stops early at the margin or
    when the map explodes, the learning rate decays, raw maps are added before each update, and the
    mean of GNDRP is over the whole grid. `preset="paper"` is the text: the margin clamps each
    logit, the rate is constant, maps are divided by their maximum and also added after the last
    update, and the mean is over the selected cells. Weight decay and momentum are options in both;
    the default momentum of 1e-4 is a slip of the authors' code, where the weight decay lands in
    the momentum's place. Deviations: every class is pooled by GNDRP, where the authors' code pools
    those beyond the twentieth by their plain mean; `others="expected"` is ours.

    The options are those of `RIBOptions`.
    """

    name = "rib"
    per_target = False
    summary = "maps summed while the model is fine-tuned on the picture, without its saturation"
    family = "class maps"

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`; maps are sums over scales, on the largest scale's grid."""
        with surgery.inference(classifier.model):
            logits = classifier.forward(images).logits
            pairs = targets(logits)
            runner = RIBRunner(classifier, self)
            out = []
            for index in range(len(images)):
                label = pairs.label[pairs.image == index]
                if len(label):
                    out.append(self._image(runner, images[index], label, logits.shape[1]))
            if not out:
                largest = _resized(images[:1], max(self.scales))
                out = [images.new_zeros(0, *runner.grid(largest))]
        return self._result(classifier, images, torch.cat(out), pairs, logits)

    def _image(
        self, runner: RIBRunner, image: Float[Tensor, "_ h w"], label: Tensor, classes: int
    ) -> Float[Tensor, "n u v"]:
        views = [_view(_resized(image[None], scale), self.flip) for scale in self.scales]
        labels = torch.zeros(classes, dtype=torch.bool, device=image.device)
        labels[label] = True
        sums = runner(views, labels).sums
        size = max((s.shape[1:] for s in sums), key=lambda s: s[0] * s[1])
        resized = [F.interpolate(s[None, label], size=size, mode="bilinear")[0] for s in sums]
        return torch.stack(resized).sum(0)


class RIBRunner:
    """A copy of the model and, if there are others, their pool: made once for many pictures.

    Args:
        classifier: The model, split; not changed.
        options: RIB's options.

    Raises:
        SpecError: others are wanted of a data set, and there is none.
    """

    def __init__(self, classifier: SpatialClassifier, options: RIBOptions) -> None:
        if isinstance(options.others, str):
            raise SpecError(
                f"others={options.others!r} takes the pictures of the data set that `attrib seeds` "
                "runs over; elsewhere give a Pool, e.g. by attrib.seeds.pool_of, or None"
            )
        self._options = options
        with surgery.inference(classifier.model):
            self._learner = learner_for(classifier, options)
            self.pool: PreparedPool | None = None
            if options.others is not None:
                self.pool = PreparedPool(self._learner, options.others, options)

    def __call__(
        self,
        views: Sequence[Float[Tensor, "_r _ _h _w"]],
        labels: Bool[Tensor, " c"],
        key: str = "",
    ) -> RIBTrace:
        """Run the loop on one picture; the trace holds what the maps depend on.

        Args:
            views: As for `rib`.
            labels: The picture's classes, multi-hot.
            key: Names the picture for the draw of others.
        """
        with surgery.inference(self._learner.classifier.model):
            others = None if self.pool is None else self.pool.others(labels, key)
            prepared = [self._learner.prepare(view) for view in views]
            return run(self._learner, prepared, labels, others, self._options, only_sums=True)

    def grid(self, view: Float[Tensor, "_r _ h w"]) -> tuple[int, int]:
        """Return the size of a view's class maps."""
        u, v = self._learner.class_maps(self._learner.prepare(view)).shape[2:]
        return u, v


def _resized(images: Float[Tensor, "b _ h w"], scale: float) -> Float[Tensor, "b _ _h _w"]:
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    resized = F.interpolate(images.float(), size=size, mode="bicubic", antialias=True)
    return resized.to(images.dtype)


def _view(image: Float[Tensor, "1 _ h w"], flip: bool) -> Float[Tensor, "_r _ h w"]:
    return torch.cat([image, image.flip(3)]) if flip else image
