"""Class activation maps and their information-theoretic contrasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError
from attrib.methods.base import METHODS, Method
from attrib.models import ClassSum, Features, SpatialClassifier
from attrib.registry import AtLeast
from attrib.types import Attribution, TargetRule, Targets

__all__ = ["CAM", "Border", "InfoCAM", "InfoCAMPlus", "Linear", "region_sum"]

Cells = Annotated[int, AtLeast(1)]

Border = Literal["full", "same"]
"""`full` lets a region hang over the edge, which enlarges the map by `region - 1` and, once it is
stretched over the picture, draws its content towards the middle by `u / (u + region - 1)`. `same`
keeps the map's size and place."""

Independent = Literal["raise", "difference"]
"""What a contrast between classes does with a multi-label model, whose outputs do not compete."""


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class CAM(Method):
    r"""Evidence for a class at every cell.

    $$M_y(a,b) = \sum_k w^y_k\, g_k(a,b)$$

    Zhou et al., *Learning Deep Features for Discriminative Localization*; infoCAM, section 5.
    Signed and without bias where the head is linear after average pooling, so that its mean over
    the grid plus the bias is the logit. On other heads the head is applied at each cell.

    Args:
        region: Side of the square of cells that each map value sums over; 1 for none.
        border: What happens to regions at the edge.
    """

    name = "cam"
    summary = "class activation map: the head applied at every cell"
    family = "class maps"
    region: Cells = 1
    border: Border = "full"

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        return _contrast(self, classifier, images, targets)

    def classes(self, logits: Float[Tensor, "b c"], pairs: Targets) -> ClassSum:
        """Say which class maps a pair's map is made of."""
        return ClassSum(label=pairs.label[:, None])


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class InfoCAM(Method):
    r"""Evidence for a class minus the mean evidence for the others, summed over a region.

    $$M_y(R) = \sum_{(a,b)\in R} w^y g(a,b) - \frac{1}{M-1}\sum_{y'\neq y} w^{y'} g(a,b)$$

    Qin et al., *Neural Network Classifier as Mutual Information Estimator*, eq. 14: the difference
    of point-wise mutual information between the class and the rest. The constant factors of the
    paper's average pooling are left out.

    Args:
        region: Side of the region R in cells, 4 in the authors' code; 1 for none.
        border: What happens to regions at the edge; the authors' code has `"full"`.
        multi_label: The contrast is not an information difference when classes do not exclude
            each other: `"raise"` says so, `"difference"` computes it all the same.
    """

    name = "infocam"
    summary = "class evidence minus the mean of all other classes, over regions"
    family = "class maps"
    region: Cells = 4
    border: Border = "full"
    multi_label: Independent = "raise"

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        _check_contrast(self.name, self.multi_label, classifier)
        return _contrast(self, classifier, images, targets)

    def classes(self, logits: Float[Tensor, "b c"], pairs: Targets) -> ClassSum:
        """Say which class maps a pair's map is made of."""
        others = logits.shape[1] - 1
        return ClassSum(label=pairs.label[:, None], factor=(1 + 1 / others,), every=-1 / others)


@METHODS.register
@final
@dataclass(frozen=True, kw_only=True)
class InfoCAMPlus(Method):
    r"""Evidence for a class minus the evidence for the class found least likely, over a region.

    $$M^{+}_y(R) = \sum_{(a,b)\in R} w^{y} g(a,b) - w^{y'} g(a,b), \quad y' = \arg\min_m n(x)_m$$

    Qin et al., eq. 15. Deviation: y' is the image's least likely class by its logits, bias
    included, as in the authors' code; `contrast="region"` takes the paper's argmin, per region
    and without bias. The class itself is never its own contrast, where the authors' code gives a
    map of zeros.

    Args:
        region: Side of the region R in cells, 4 in the authors' code; 1 for none.
        border: What happens to regions at the edge; the authors' code has `"full"`.
        contrast: Whether y' is chosen once per image or anew for each region.
        multi_label: As for `InfoCAM`.
    """

    name = "infocam+"
    summary = "class evidence minus that of the least likely class, over regions"
    family = "class maps"
    region: Cells = 4
    border: Border = "full"
    contrast: Literal["image", "region"] = "image"
    multi_label: Independent = "raise"

    def attribute(
        self, classifier: SpatialClassifier, images: Float[Tensor, "b _ h w"], targets: TargetRule
    ) -> Attribution:
        """See `Method.attribute`."""
        _check_contrast(self.name, self.multi_label, classifier)
        if self.contrast == "image":
            return _contrast(self, classifier, images, targets)
        features = classifier.forward(images)
        pairs = targets(features.logits)
        maps = self._regional(classifier, features, pairs)
        return self._result(classifier, images, maps, pairs, features.logits)

    def classes(self, logits: Float[Tensor, "b c"], pairs: Targets) -> ClassSum:
        """Say which class maps a pair's map is made of, for `contrast="image"`."""
        own = pairs.label[:, None]
        least = logits[pairs.image].scatter(1, own, torch.inf).argmin(1, keepdim=True)
        return ClassSum(label=torch.cat([own, least], 1), factor=(1, -1))

    def _regional(
        self, classifier: SpatialClassifier, features: Features, pairs: Targets
    ) -> Float[Tensor, "n u v"]:
        out = []
        for image, label in zip(pairs.image.split(1), pairs.label.split(1), strict=True):
            maps = classifier.class_maps(features.grid[image])[0]
            maps = region_sum(maps, self.region, self.border)
            rest = maps.index_fill(0, label, torch.inf)
            out.append(maps[label] - rest.amin(0))
        return torch.cat(out) if len(pairs) else _no_maps(features, self.region, self.border)


Linear = CAM | InfoCAM | InfoCAMPlus
"""Methods whose map is a sum of class maps, summed over regions."""


def _contrast(
    method: Linear, classifier: SpatialClassifier, images: Tensor, targets: TargetRule
) -> Attribution:
    """Combine class maps linearly: one forward pass, and one row of class weights per target."""
    features = classifier.forward(images)
    pairs = targets(features.logits)
    classes = method.classes(features.logits, pairs)
    cells = classifier.evidence(features.grid, pairs.image, classes)
    maps = region_sum(cells, method.region, method.border)
    return method._result(classifier, images, maps, pairs, features.logits)


def region_sum(
    maps: Float[Tensor, "n u v"], region: int, border: Border
) -> Float[Tensor, "n _u _v"]:
    """Sum over every `region x region` square of cells, with zeros beyond the edge.

    Returns:
        Maps enlarged by `region - 1` with `border="full"`, of the same size with `"same"`.
    """
    if region == 1 or (border == "same" and maps.shape[0] == 0):
        return maps
    before, after = (region - 1,) * 2 if border == "full" else ((region - 1) // 2, region // 2)
    padded = F.pad(maps, (before, after, before, after))
    # Not with divisor_override=1, which is lost on the way to ONNX.
    return F.avg_pool2d(padded[:, None], region, stride=1)[:, 0] * region**2


def _no_maps(features: Features, region: int, border: Border) -> Float[Tensor, "0 u v"]:
    grow = region - 1 if border == "full" else 0
    u, v = features.grid.shape[2:]
    return features.grid.new_empty(0, u + grow, v + grow)


def _check_contrast(name: str, multi_label: Independent, classifier: SpatialClassifier) -> None:
    if classifier.num_classes < 2:
        raise InputError(f"{name} contrasts classes, and {classifier.spec.name} has only one")
    if classifier.spec.multi_label and multi_label == "raise":
        raise InputError(
            f"{name} is a difference of mutual information between classes that exclude each "
            f"other; {classifier.spec.name} is multi-label. Use 'cam', or "
            f"\"{name}(multi_label='difference')\" for the bare difference of evidence"
        )
