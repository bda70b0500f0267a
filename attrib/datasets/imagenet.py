"""ImageNet and Tiny-ImageNet with boxes, in their original layouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from attrib.datasets.annotation_xml import read_annotation
from attrib.datasets.label_files import few, inside, read_text, refuse_repeats
from attrib.datasets.samples import BoxSample
from attrib.errors import InputError

__all__ = ["ImageNetBoxes", "TinyImageNet", "imagenet_indices"]

IMAGENET_CLASSES = 1000


class _Row(NamedTuple):
    id: str
    picture: Path
    wnid: str
    boxes: list[list[float]]


class TinyImageNet:
    """Tiny-ImageNet: 64 x 64 pixels, 200 classes, one box each.

    The files name the last pixel of a box; here its corner is one further.

    Args:
        root: Folder with `wnids.txt`, `words.txt` and `SPLIT/`: `val_annotations.txt` and `images/`
            for `val`, `WNID/WNID_boxes.txt` and `WNID/images/` for `train`.
        split: `"val"` or `"train"`.
        classes: Class names of the model that is to be scored. If they are ImageNet's 1000, a
            picture's label is its class among those. None, or other names, numbers the 200 classes
            in the order of `wnids.txt`.

    Raises:
        InputError: a list is missing, damaged, or has a class that is not listed.
    """

    def __init__(
        self, root: str | Path, split: str = "val", *, classes: Sequence[str] | None = None
    ) -> None:
        if split not in ("train", "val"):
            raise InputError(f"Tiny-ImageNet has boxes for 'train' and 'val', got {split!r}")
        root = Path(root)
        self.name = f"Tiny-ImageNet {split}"
        wnids, words = read_text(root / "wnids.txt").split(), _words(root / "words.txt")
        rows = list(_validation(root / "val") if split == "val" else _training(root, wnids))
        if not rows:
            raise InputError(f"{root / split} lists no pictures")
        refuse_repeats((row.id for row in rows), root / split)
        self.labels, self._samples = _labelled(rows, wnids, words, classes, root)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> BoxSample:
        return _sample(*self._samples[index])


class ImageNetBoxes:
    """ImageNet pictures that have box annotations, in the 1000 classes of the challenge.

    A picture's class is that of its objects. The corners of boxes are used as the files give them.

    Args:
        root: Folder of pictures: `WNID/NAME.JPEG`, or `NAME.JPEG`.
        annotations: Folder of `NAME.xml`, at any depth.
        classes: The model's 1000 class names, for messages and reports; None for the usual ones.

    Raises:
        InputError: an annotation is damaged, mixes classes or names one that is not among the
            1000, or its picture is missing.
    """

    def __init__(
        self,
        root: str | Path,
        annotations: str | Path,
        *,
        classes: Sequence[str] | None = None,
    ) -> None:
        root, folder = Path(root), Path(annotations)
        self.name = f"ImageNet {root.resolve().name}"
        files = sorted(folder.rglob("*.xml"))
        if not files:
            raise InputError(f"{folder} holds no annotations NAME.xml")
        rows = [_annotated(path, root) for path in files]
        missing = [row.id for row in rows if not row.picture.is_file()]
        if missing:
            raise InputError(f"{root} lacks pictures that {folder} annotates: {few(missing)}")
        refuse_repeats((row.id for row in rows), folder)
        own = _imagenet_names() if classes is None else classes
        if len(own) != IMAGENET_CLASSES:
            raise InputError(f"ImageNet's classes are 1000, got {len(own)} names")
        self.labels, self._samples = _labelled(rows, [], {}, own, folder)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> BoxSample:
        return _sample(*self._samples[index])


def imagenet_indices(wnids: Iterable[str]) -> dict[str, int]:
    """Return the class of each WordNet id among the 1000 of ImageNet-1k, as timm orders them.

    Raises:
        InputError: an id is none of them.
    """
    from timm.data import ImageNetInfo

    known = {wnid: i for i, wnid in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    wanted = list(wnids)
    foreign = sorted({wnid for wnid in wanted if wnid not in known})
    if foreign:
        raise InputError(f"{few(foreign)} is none of ImageNet's 1000 classes")
    return {wnid: known[wnid] for wnid in wanted}


def _imagenet_names() -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_descriptions())


def _labelled(
    rows: list[_Row],
    wnids: list[str],
    words: Mapping[str, str],
    classes: Sequence[str] | None,
    source: Path,
) -> tuple[tuple[str, ...], list[tuple[_Row, int]]]:
    """Number the classes: as the model does if it is one of ImageNet's, else as listed."""
    if classes is not None and len(classes) == IMAGENET_CLASSES:
        index = imagenet_indices(row.wnid for row in rows)
        for wnid, i in index.items():
            if not _same(words.get(wnid, classes[i]), classes[i]):
                raise InputError(
                    f"class {i} of the model is {classes[i]!r}, ImageNet's is {words[wnid]!r} "
                    f"({wnid}); the model's classes are in another order"
                )
        return tuple(classes), [(row, index[row.wnid]) for row in rows]
    index = {wnid: i for i, wnid in enumerate(wnids)}
    foreign = sorted({row.wnid for row in rows} - set(index))
    if foreign:
        raise InputError(f"{source} has pictures of {few(foreign)}, which wnids.txt does not list")
    names = tuple(words.get(wnid, wnid) for wnid in wnids)
    return names, [(row, index[row.wnid]) for row in rows]


def _same(words: str, name: str) -> bool:
    """Tell whether two lists of synonyms between commas share one, or the whole."""
    ours, theirs = ({part.strip().lower() for part in text.split(",")} for text in (words, name))
    return bool(ours & theirs)


def _sample(row: _Row, label: int) -> BoxSample:
    return BoxSample(id=row.id, picture=row.picture, label=label, boxes=torch.tensor(row.boxes))


def _words(path: Path) -> dict[str, str]:
    lines = (line.split("\t", 1) for line in read_text(path).splitlines() if line.strip())
    return {line[0]: line[-1] for line in lines}


def _validation(folder: Path) -> Iterable[_Row]:
    path = folder / "val_annotations.txt"
    for line in read_text(path).splitlines():
        match line.split():
            case [name, wnid, *corners] if len(corners) == 4:
                picture = folder / "images" / inside(name, path)
                yield _Row(name, picture, wnid, [_closed(corners, path)])
            case [_, *_]:
                raise InputError(f"{path} has the line {line!r}; expected name, class, 4 corners")


def _training(root: Path, wnids: list[str]) -> Iterable[_Row]:
    for wnid in wnids:
        folder = root / "train" / inside(wnid, root / "wnids.txt")
        path = folder / f"{wnid}_boxes.txt"
        for line in read_text(path).splitlines():
            match line.split():
                case [name, *corners] if len(corners) == 4:
                    picture = folder / "images" / inside(name, path)
                    yield _Row(f"{wnid}/{name}", picture, wnid, [_closed(corners, path)])
                case [_, *_]:
                    raise InputError(f"{path} has the line {line!r}; expected name, 4 corners")


def _closed(corners: list[str], source: Path) -> list[float]:
    try:
        x0, y0, x1, y1 = (float(value) for value in corners)
    except ValueError:
        raise InputError(f"{source}: a box is 4 numbers, got {' '.join(corners)!r}") from None
    return [x0, y0, x1 + 1, y1 + 1]


def _annotated(path: Path, root: Path) -> _Row:
    objects = read_annotation(path)
    wnids = sorted({name for name, _ in objects})
    if len(wnids) != 1:
        raise InputError(f"{path} has objects of {few(wnids) or 'no class'}; expected one class")
    places = [root / wnids[0] / f"{path.stem}.JPEG", root / f"{path.stem}.JPEG"]
    picture = next((place for place in places if place.is_file()), places[0])
    return _Row(path.stem, picture, wnids[0], [box for _, box in objects])
