"""One picture's seed: views, maps over all scales, refinement, label images, boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from attrib import surgery
from attrib.datasets.labelled import LabelledSample
from attrib.errors import InputError
from attrib.images import Decode, Picture, Reader, pixels_on, read_image
from attrib.localize import largest_component
from attrib.localize.pamr import pamr
from attrib.methods import RIB, Method
from attrib.methods.rib import RIBRunner
from attrib.models import SpatialClassifier
from attrib.seeds.formats import Seed
from attrib.seeds.labels import affinity_label, label_map, with_saliency
from attrib.seeds.maps import SeedMaps, aggregate, seed_views
from attrib.seeds.options import SeedOptions
from attrib.transfer import Sent, to_host
from attrib.types import Targets

__all__ = ["SeedMaker", "views_of"]

SCALES = (1.0, 0.5, 1.5, 2.0)
Sums = Callable[[Sequence[Tensor], Bool[Tensor, " c"], str], tuple[list[Tensor], Tensor]]
"""Views, classes and id of a picture to each scale's summed maps `[c, u, v]` and logits `[c]`."""


def views_of(method: Method, options: SeedOptions) -> tuple[tuple[float, ...], bool]:
    """Return at which scales a picture is seen, and whether mirrored too.

    Raises:
        InputError: scales or flips are given for a method that has its own.
    """
    scales, flip = options.scales, options.flip
    if isinstance(method, RIB):
        if (scales, flip) != (None, None):
            raise InputError("rib has scales and flips of its own: rib(scales=..., flip=...)")
        return method.scales, method.flip
    return scales or SCALES, flip is not False


class SeedMaker:
    """Makes seeds of pictures, one by one, with one model and one method.

    Args:
        classifier: The model, split; not changed.
        method: Any; its positive evidence is summed over scales and mirror images.
        options: What to make.
        decode: Who decodes JPEG files.

    Raises:
        InputError: scales or flips are given for a method that has its own.
    """

    def __init__(
        self,
        classifier: SpatialClassifier,
        method: Method,
        options: SeedOptions,
        decode: Decode = "pillow",
    ) -> None:
        self._classifier, self._options = classifier, options
        self._reader = Reader(classifier.device, decode)
        self._scales, self._flip = views_of(method, options)
        if isinstance(method, RIB):
            self._sums = _rib_sums(classifier, method)
        else:
            self._sums = _plain_sums(classifier, method)

    def read(self, sample: LabelledSample) -> tuple[Picture, list[Sent], Tensor | None]:
        """Read a picture and send its views to the model; can be called from other threads.

        Returns:
            The picture, its views, and its saliency mask if there are such masks.
        """
        picture, spec = self._reader.read(sample.picture), self._classifier.spec
        base = spec.input_size if self._options.fit == "squash" else None
        with self._reader.send.aside():
            views = seed_views(picture, spec, self._scales, flip=self._flip, size=base)
        *sent, own = self._reader.send([*views, picture.pixels])
        return replace(picture, sent=own), sent, self._saliency(sample.id, picture)

    def __call__(
        self,
        sample: LabelledSample,
        picture: Picture,
        views: Sequence[Sent],
        salient: Bool[Tensor, "_H _W"] | None = None,
    ) -> Seed:
        """Make the seed of a picture that has been read; only the result leaves the device."""
        classifier, options = self._classifier, self._options
        size = (picture.pixels.shape[1], picture.pixels.shape[2])
        keys = torch.tensor(sample.labels, dtype=torch.int64)
        maps, scores = _nothing(size, classifier.device), torch.zeros(0)
        if len(keys):
            maps, scores = self._maps(sample, picture, views, keys, size)
        label = label_map(maps.high_res, keys, threshold=options.threshold, alpha=options.alpha)
        affinity = affinity_label(
            maps.high_res, keys, foreground=options.foreground, background=options.background
        )
        if salient is not None:
            salient = salient.to(label.device)
            label, affinity = with_saliency(label, salient), with_saliency(affinity, salient)
        return Seed(
            id=sample.id,
            size=size,
            maps=SeedMaps(keys=keys, cam=maps.cam.cpu(), high_res=maps.high_res.cpu()),
            label=label.cpu(),
            affinity=affinity.cpu(),
            scores=tuple(scores.tolist()),
            boxes=_boxes(maps.high_res, options.threshold),
        )

    def _maps(
        self,
        sample: LabelledSample,
        picture: Picture,
        views: Sequence[Sent],
        keys: Int[Tensor, " n"],
        size: tuple[int, int],
    ) -> tuple[SeedMaps, Float[Tensor, " n"]]:
        classifier = self._classifier
        labels = torch.zeros(classifier.num_classes, dtype=torch.bool)
        labels[keys] = True
        kind = surgery.dtype_of(classifier.model)
        sums, logits = self._sums([view.here().to(kind) for view in views], labels, sample.id)
        maps = aggregate(sums, labels, size)
        if self._options.refine == "pamr":
            maps = _refined(maps, picture)
        return maps, classifier.spec.probabilities(logits)[maps.keys]

    def _saliency(self, seed_id: str, picture: Picture) -> Bool[Tensor, "H W"] | None:
        folder = self._options.saliency
        if folder is None:
            return None
        path = Path(folder) / f"{seed_id}.png"
        mask = read_image(path).pixels.amax(0) > 0
        if mask.shape != picture.pixels.shape[1:]:
            raise InputError(
                f"{path} is {tuple(mask.shape)}, the picture {tuple(picture.pixels.shape[1:])}"
            )
        return mask


def _rib_sums(classifier: SpatialClassifier, method: RIB) -> Sums:
    runner = RIBRunner(classifier, method)

    def sums(
        views: Sequence[Tensor], labels: Bool[Tensor, " c"], key: str
    ) -> tuple[list[Tensor], Tensor]:
        logits = classifier.forward(views[0][:1]).logits[0]
        there = labels.to(logits.device, non_blocking=True)
        return list(runner(views, there, key).sums), logits

    return sums


def _plain_sums(classifier: SpatialClassifier, method: Method) -> Sums:
    def sums(
        views: Sequence[Tensor], labels: Bool[Tensor, " c"], key: str
    ) -> tuple[list[Tensor], Tensor]:
        keys = labels.nonzero().flatten()
        out, logits = [], None
        for view in views:
            rows = torch.arange(len(view)).repeat_interleave(len(keys))
            pairs = Targets(image=rows, label=keys.repeat(len(view)))
            found = method.attribute(classifier, view, pairs)
            logits = found.logits[0] if logits is None else logits
            maps = found.maps.relu().unflatten(0, (len(view), len(keys)))
            total = maps[0] + maps[1].flip(2) if len(maps) == 2 else maps[0]
            every = total.new_zeros(len(labels), *total.shape[1:])
            out.append(every.index_copy(0, keys.to(total.device, non_blocking=True), total))
        if logits is None:
            raise InputError("a picture needs one view at least")
        return out, logits

    return sums


def _nothing(size: tuple[int, int], device: torch.device) -> SeedMaps:
    no_class = torch.zeros(1, dtype=torch.bool)
    return aggregate([torch.zeros(1, 1, 1, device=device)], no_class, size)


def _refined(maps: SeedMaps, picture: Picture) -> SeedMaps:
    image = pixels_on(picture, maps.high_res.device)[None].to(maps.high_res.dtype)
    high_res = pamr(image, maps.high_res[None])
    cam = F.interpolate(high_res, size=maps.cam.shape[1:], mode="bilinear", antialias=True)
    return SeedMaps(keys=maps.keys, cam=cam[0], high_res=high_res[0])


def _boxes(
    maps: Float[Tensor, "n H W"], threshold: float
) -> tuple[tuple[float, float, float, float] | None, ...]:
    found = largest_component(maps > threshold)
    boxes, areas = to_host(found.boxes, found.areas)
    rows = zip(boxes.tolist(), areas.tolist(), strict=True)
    return tuple(
        (float(a), float(b), float(c), float(d)) if n else None for (a, b, c, d), n in rows
    )
