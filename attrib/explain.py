"""`attrib.explain` and `attrib.Explainer`: from a picture and a model to an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from attrib.errors import InputError
from attrib.explanation import Explanation, explanations
from attrib.export import BoxKind, Format, GraphOptions, Program, export_program
from attrib.images import Decode, Picture, PictureLike, Reader, as_batch, preprocess
from attrib.images.reader import picture_of
from attrib.localize import localize
from attrib.localize.heatmap import Resize
from attrib.localize.threshold import Rule
from attrib.methods import TTA, Method, Smooth, check_autocast, resolve
from attrib.models import (
    ModelLike,
    ModelRecord,
    Need,
    Output,
    Precision,
    as_classifier,
    under_autocast,
)
from attrib.progress import progress_bar
from attrib.registry import format_spec
from attrib.surgery import dtype_of
from attrib.targets import TargetsLike, classes_per_picture, resolve_targets
from attrib.types import Attribution, Fit, Localization, ModelSpec, Normalize

__all__ = ["Explainer", "explain"]

PROGRESS_FROM = 8
"""A progress bar is shown for more pictures than this."""


class Explainer:
    """A model and a method, wrapped once and used for many pictures.

    May be used from several threads at once, as may several that share a model: each thread gets
    what it would get alone. Methods that look at perturbed or noisy pictures wait for each
    other, as they need torch's random state for themselves; all others run side by side.

    Args:
        model: A timm, torchvision or custom module, a name that `attrib.load_model` takes, or a
            `SpatialClassifier` that `attrib.split` made. A module stays where it is and as it is.
        method: A spec string such as `"infocam+(region=4)"`, or a `Method`.
        spec: How to feed the model; by default what it carries.
        fit: Overrides how pictures are brought to the model's size: `"crop"` (what lies outside
            is not seen and stays 0 in the heatmap), `"squash"` or `"pad"`.
        multi_label: True for a model with independent (sigmoid) outputs.
        tta: Average the maps over three scales and their mirror images: the method inside
            `tta(...)`, which as a spec takes other scales. A model that takes pictures of one size
            only raises an error that says how to leave scales out.
        smooth: Average the maps over noisy copies: the method inside `smooth(...)`.
        autocast: `"bfloat16"` or `"float16"` runs the network under autocast; features are brought
            back to the weights' type before maps are made of them, and the maps are not `exact`.
            For CAM, infoCAM and infoCAM+, plain or inside `tta`.
        output: Where the logits are in what the model returns, if it does not return them as they
            are: `"logits"` for a key or an attribute, `0` for the first of a tuple, or a function
            that takes all of it and gives them.
        decode: Who decodes JPEG files: `"pillow"`, or `"device"` for torchvision where the model
            is, by nvJPEG on a GPU, whose pixels may differ by rounding.

    Raises:
        InputError: `decode` where torchvision cannot, or `autocast` with a method that does not
            take it or weights of half precision.
        ModelError: the model is spread over devices by DataParallel or DistributedDataParallel.
        SplitError: the method needs class maps and the model has none, or `output` leads nowhere.
        UnknownNameError: no such method or model.
    """

    def __init__(
        self,
        model: ModelLike,
        method: str | Method = "infocam+",
        *,
        spec: ModelSpec | None = None,
        fit: Fit | None = None,
        multi_label: bool | None = None,
        tta: bool = False,
        smooth: bool = False,
        autocast: Precision | None = None,
        output: Output | None = None,
        decode: Decode = "pillow",
    ) -> None:
        inner = Smooth(method=method) if smooth else resolve(method)
        self.method = TTA(method=inner) if tta else inner
        need: Need = "class_maps" if self.method.needs_class_maps else "features"
        self.classifier = as_classifier(model, spec, multi_label, output, need=need)
        if autocast is not None:
            check_autocast(self.method)
            self.classifier = under_autocast(self.classifier, autocast)
        self.fit: Fit = fit or self.classifier.spec.fit
        self.decode: Decode = decode
        self.reader()  # finds out whether that can be done
        self._record = ModelRecord(self.classifier, self.fit, decode)

    def __repr__(self) -> str:
        return f"Explainer({self.classifier.spec.name!r}, {format_spec(self.method)!r})"

    def __call__(
        self, images: Float[Tensor, "b _ h w"], targets: TargetsLike = None
    ) -> Attribution:
        """Explain a batch of tensors: tensors in, tensors out, on the model's device.

        Args:
            images: Normalised as the model's spec says. Not changed.
            targets: None for the most likely class of each image; a class for all; one class or a
                list of classes per image; a multi-hot matrix; or `Targets`.

        Raises:
            InputError: the images have not the shape the model takes.
            TargetError: a wrong number of targets, or one that is no class.
        """
        channels = len(self.classifier.spec.mean)
        if images.ndim != 4 or images.shape[1] != channels or not images.is_floating_point():
            raise InputError(
                f"images are normalised floats [b, {channels}, h, w], got {images.dtype} "
                f"{tuple(images.shape)}; explain() takes pictures of any kind"
            )
        rule = resolve_targets(targets, len(images), self.classifier.spec.labels)
        device, dtype = self.classifier.device, dtype_of(self.classifier.model)
        ahead = device.type == "cuda"  # the copy is queued, not awaited
        own = images.detach().to(device, dtype, copy=True, non_blocking=ahead)
        return self.method.attribute(self.classifier, own, rule)

    def explain(
        self,
        pictures: PictureLike | Iterable[PictureLike],
        targets: TargetsLike = None,
        *,
        threshold: float | Sequence[float] = 0.2,
        rule: Rule = "fraction",
        normalize: Normalize | None = None,
        resize: Resize = "bilinear",
        batch_size: int = 16,
        progress: bool | None = None,
    ) -> Explanation | list[Explanation]:
        """Explain one picture, or a list of them batch by batch; the next batch is read meanwhile.

        Args:
            pictures: Paths, PIL images, arrays or tensors; see `attrib.read_image`.
            targets: As for a call; a flat list of classes is read per image, and for a single
                picture as its classes.
            threshold: Where heatmaps are cut, see `attrib.localize`.
            rule: How a threshold is read.
            normalize: `"minmax"` or `"max"`; None for what suits the method.
            resize: `"bilinear"`, `"bicubic"` or `"nearest"`.
            batch_size: Pictures per forward pass.
            progress: Show a bar; by default for more than a few pictures, on a terminal.

        Returns:
            One `Explanation` for one picture, a list for a list.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is 1 or more, got {batch_size}")
        items, single = as_batch(pictures)
        labels = self.classifier.spec.labels
        per_picture = classes_per_picture(targets, len(items), labels, single=single)
        cut = partial(localize, threshold=threshold, rule=rule, normalize=normalize, resize=resize)
        readers, picture = 0 if single else None, itemgetter(1)
        reads = self.reader().ahead(enumerate(items), picture, readers=readers, depth=batch_size)
        done: list[Explanation] = []
        with progress_bar(len(items), progress, from_left=PROGRESS_FROM + 1) as bar:
            while batch := [picture_of(*read, single) for read in islice(reads, batch_size)]:
                part = None if per_picture is None else per_picture[len(done) :][: len(batch)]
                done += self._batch(batch, part, cut)
                bar.update(len(batch))
        return done[0] if single else done

    def reader(self) -> Reader:
        """Return what reads pictures for the model, where it is now."""
        return Reader(self.classifier.device, self.decode)

    def export(
        self,
        path: str | Path | None = None,
        *,
        format: Format | None = None,
        image_size: tuple[int, int] | None = None,
        threshold: float = 0.2,
        normalize: Normalize = "minmax",
        boxes: BoxKind = "largest",
        rounds: int = GraphOptions.rounds,
        images: Float[Tensor, "b _ h w"] | None = None,
        tolerance: float = 1e-4,
    ) -> Program:
        """Make one program that predicts and explains, for `cam`, `infocam` and `infocam+`.

        It takes normalised images `[b, channels, h, w]`, any number of them, and returns logits,
        the most likely class, its raw map, its box and whether the box is sure; see
        `attrib.export.Graph.forward`. It is compared with the model before it is returned.

        Args:
            path: File to write, .pt2 or .onnx, whole or not at all.
            format: `"torch"` for `torch.export`, or `"onnx"`; if left as `path` ends, else torch.
            image_size: `(h, w)` that it takes; by default the model's.
            threshold: Fraction of the normalised map at and above which a pixel counts.
            normalize: `"minmax"` or `"max"`.
            boxes: `"largest"`: around the largest component; `"all"`: around all that reaches the
                threshold.
            rounds: In which labels spread through components; see `attrib.export.GraphOptions`.
            images: Two or more to compare on, normalised; soft noise if left.
            tolerance: By how much logits and maps may deviate, over their largest magnitude.

        Raises:
            InputError: another method, or an option that cannot be used.
            ExportError: the model cannot be traced, or the program deviates from it.
            MissingExtraError: ONNX was asked for and its packages are not installed.
        """
        size = tuple(image_size or self.classifier.spec.input_size)
        options = GraphOptions(
            image_size=size, threshold=threshold, normalize=normalize, boxes=boxes, rounds=rounds
        )
        return export_program(
            self.classifier,
            self.method,
            options,
            None if path is None else Path(path),
            format=format,
            fit=self.fit,
            images=images,
            tolerance=tolerance,
        )

    def _batch(
        self,
        pictures: list[Picture],
        targets: list[list[int]] | None,
        cut: Callable[[Attribution], Localization],
    ) -> list[Explanation]:
        classifier = self.classifier
        images, frames = preprocess(
            pictures,
            classifier.spec,
            fit=self.fit,
            device=classifier.device,
            dtype=dtype_of(classifier.model),
        )
        attribution = replace(self(images, targets), frames=frames)
        return explanations(pictures, attribution, cut(attribution), self._record)


def explain(
    model: ModelLike,
    pictures: PictureLike | Iterable[PictureLike],
    targets: TargetsLike = None,
    *,
    method: str | Method = "infocam+",
    spec: ModelSpec | None = None,
    fit: Fit | None = None,
    multi_label: bool | None = None,
    tta: bool = False,
    smooth: bool = False,
    autocast: Precision | None = None,
    output: Output | None = None,
    decode: Decode = "pillow",
    **options: Any,
) -> Explanation | list[Explanation]:
    """Tell where a classifier looked, in one call.

    Args:
        model: A timm, torchvision or custom module, or a model name; see `Explainer`.
        pictures: One picture or a list; see `Explainer.explain`.
        targets: None for the most likely class; see `Explainer.explain`.
        method: A spec string such as `"infocam+(region=4)"`, or a `Method`.
        spec: How to feed the model; by default what it carries.
        fit: Overrides how pictures are brought to the model's size.
        multi_label: True for a model with independent (sigmoid) outputs.
        tta: Average the maps over scales and mirror images; see `Explainer`.
        smooth: Average the maps over noisy copies; see `Explainer`.
        autocast: Run the network in half precision; see `Explainer`.
        output: Where the logits are in what the model returns; see `Explainer`.
        decode: Who decodes JPEG files; see `Explainer`.
        options: `threshold`, `rule`, `normalize`, `resize`, `batch_size` and `progress` of
            `Explainer.explain`.

    Returns:
        One `Explanation` for one picture, a list for a list.
    """
    explainer = Explainer(
        model,
        method,
        spec=spec,
        fit=fit,
        multi_label=multi_label,
        tta=tta,
        smooth=smooth,
        autocast=autocast,
        output=output,
        decode=decode,
    )
    return explainer.explain(pictures, targets, **options)
