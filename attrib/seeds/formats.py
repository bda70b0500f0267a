"""Seeds as files that segmentation pipelines read: label PNG, IRN's npy, npz, COCO RLE, boxes."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from attrib.datasets.label_png import label_image
from attrib.errors import InputError, MissingExtraError
from attrib.files import Stored, array_header, contents_of, read_arrays, reading, replacing
from attrib.seeds.maps import SeedMaps

__all__ = ["BOX_COLUMNS", "FORMATS", "Format", "Naming", "Seed"]

ARRAYS = ("keys", "cam", "high_res")
BOX_COLUMNS = ("id", "label", "score", "x0", "y0", "x1", "y1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Seed:
    """All that is known of one picture, on the CPU.

    Args:
        id: Of the picture, unique in its data set.
        size: `(H, W)` of the picture.
        maps: The classes and their maps.
        label: 0 background, the class + 1, 255 ignored.
        affinity: 0 confident background, the class + 1, 255 uncertain.
        scores: Per class of `maps.keys`, its probability.
        boxes: Per class, half-open `x0 y0 x1 y1` in source pixels, or None without a box.
    """

    id: str
    size: tuple[int, int]
    maps: SeedMaps
    label: UInt8[Tensor, "_H _W"]
    affinity: UInt8[Tensor, "_H _W"]
    scores: tuple[float, ...]
    boxes: tuple[tuple[float, float, float, float] | None, ...]

    def __post_init__(self) -> None:
        n, planes = len(self.maps.keys), (self.label, self.affinity, *self.maps.high_res)
        if {tuple(plane.shape) for plane in planes} != {self.size}:
            raise InputError(f"maps and label images of {self.id} are not all of size {self.size}")
        if not n == len(self.scores) == len(self.boxes):
            raise InputError(
                f"{self.id} has {n} classes, {len(self.scores)} scores and {len(self.boxes)} "
                "boxes; give each class a score, and a box or None"
            )
        numbers = (*self.scores, *(side for box in self.boxes if box for side in box))
        if not all(map(math.isfinite, numbers)):
            raise InputError(f"scores and boxes of {self.id} are finite, got {numbers}")


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What classes are called in files, by class index.

    Args:
        labels: Names, for `boxes`.
        category_ids: The data set's own numbers, for `rle`: COCO numbers its 80 classes up to 90.
    """

    labels: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file, one per picture. The same seed always gives the same bytes.

    Args:
        name: As in `FORMATS`.
        suffix: Of its files, with the dot.
        encode: Gives the contents of a file.
        decode: Takes the maps from an open file; None where they are not in it.
        pickled: True if reading a file can run code in it.
    """

    name: str
    suffix: str
    encode: Callable[[Seed, Naming], bytes]
    decode: Callable[[io.BufferedIOBase], SeedMaps] | None = None
    pickled: bool = False

    def write(self, seed: Seed, path: str | Path, naming: Naming | None = None) -> None:
        """Write a file whole or not at all, making its folder.

        Raises:
            InputError: `naming` lacks a class of the seed, or the maps do not fit the format.
        """
        contents = self.encode(seed, naming or Naming())
        with replacing(path) as temporary:
            temporary.write_bytes(contents)

    def read(self, path: str | Path | Stored, *, allow_pickle: bool = False) -> SeedMaps:
        """Read the maps of a file, also in a shard, on the CPU in single precision.

        Raises:
            InputError: the file is missing, damaged or pickled without `allow_pickle`, or the
                format holds no maps.
        """
        if self.decode is None:
            raise InputError(f"the format {self.name!r} holds no maps; write 'irn' or 'npz' too")
        if self.pickled and not allow_pickle:
            raise InputError(
                f"{path} is a pickle, which can run any code; pass allow_pickle=True if you trust "
                "its maker, or use the format 'npz'"
            )
        with reading(str(path)):
            return self.decode(io.BytesIO(contents_of(path)))


# Writing


def _label(seed: Seed, naming: Naming) -> bytes:
    return _png(seed.label)


def _affinity(seed: Seed, naming: Naming) -> bytes:
    return _png(seed.affinity)


def _png(label: UInt8[Tensor, "H W"]) -> bytes:
    buffer = io.BytesIO()
    label_image(label).save(buffer, format="PNG")
    return buffer.getvalue()


def _irn(seed: Seed, naming: Naming) -> bytes:
    """What `numpy.save` makes of IRN's dictionary, by names that old and new versions know.

    A pickled tensor would hold its address, which differs each time.
    """
    record = {
        "keys": seed.maps.keys.long(),
        "cam": seed.maps.cam.float(),
        "high_res": seed.maps.high_res.float().numpy(),
    }
    buffer = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(buffer, header)
    pickler = pickle.Pickler(buffer, protocol=4)
    pickler.dispatch_table = {np.ndarray: _reduced_array, Tensor: _reduced_tensor}
    pickler.dump(np.array(record, dtype=object))
    return buffer.getvalue()


def _reduced_array(array: NDArray[Any]) -> tuple[Any, tuple[Any, ...]]:
    if array.dtype == object:
        return np.array, (array.item(),)
    return np.ndarray, (array.shape, array.dtype.str, bytearray(array.tobytes()))


def _reduced_tensor(tensor: Tensor) -> tuple[Any, tuple[Any, ...]]:
    kind = torch.LongTensor if tensor.dtype == torch.int64 else torch.FloatTensor
    return kind, (tensor.numpy(),)


def _npz(seed: Seed, naming: Naming) -> bytes:
    cam, high_res = seed.maps.cam.half(), seed.maps.high_res.half()
    if not (cam.isfinite().all() and high_res.isfinite().all()):
        raise InputError(
            f"the maps of {seed.id} have no finite half-precision values; divide each by its "
            "maximum, or write the format 'irn'"
        )
    buffer = io.BytesIO()
    keys = seed.maps.keys.long().numpy()
    np.savez_compressed(buffer, keys=keys, cam=cam.numpy(), high_res=high_res.numpy())
    return buffer.getvalue()


def _rle(seed: Seed, naming: Naming) -> bytes:
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise MissingExtraError("pycocotools", "coco") from None
    entries = []
    for key, score in zip(seed.maps.keys.tolist(), seed.scores, strict=True):
        category = _named(naming.category_ids, key, "category_ids")
        mask = (seed.label == key + 1).numpy()
        if mask.any():
            code = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
            segmentation = {"size": list(seed.size), "counts": code["counts"].decode("ascii")}
            entries.append(
                {
                    "image_id": _image_id(seed.id),
                    "category_id": category,
                    "segmentation": segmentation,
                    "score": score,
                }
            )
    return json.dumps(entries).encode()


def _image_id(seed_id: str) -> int | str:
    """COCO numbers its pictures; their file names end in the number, with 12 digits."""
    match = re.fullmatch(r"(?:COCO_\w+_)?(\d{12})", seed_id)
    return int(match[1]) if match else seed_id


def _boxes(seed: Seed, naming: Naming) -> bytes:
    entries = []
    for key, score, box in zip(seed.maps.keys.tolist(), seed.scores, seed.boxes, strict=True):
        label = _named(naming.labels, key, "labels")
        if box is not None:
            entries.append(dict(zip(BOX_COLUMNS, (seed.id, label, score, *box), strict=True)))
    return json.dumps(entries).encode()


def _named(names: Sequence[Any], key: int, what: str) -> Any:
    if key >= len(names):
        raise InputError(f"naming.{what} has {len(names)} entries and none for class {key}")
    return names[key]


# Reading


def _from_npz(stream: io.BufferedIOBase) -> SeedMaps:
    arrays = read_arrays(stream, ARRAYS)
    return _maps(*(arrays[name] for name in ARRAYS))


def _from_irn(stream: io.BufferedIOBase) -> SeedMaps:
    if not array_header(stream)[1].hasobject:
        raise InputError("it holds a plain array, not IRN's dictionary")
    record = pickle.load(stream).item()
    if not isinstance(record, dict) or not record.keys() >= set(ARRAYS):
        raise InputError(f"IRN's dictionary has the entries {', '.join(ARRAYS)}")
    return _maps(*(np.asarray(record[name]) for name in ARRAYS))


def _maps(keys: NDArray[Any], cam: NDArray[Any], high_res: NDArray[Any]) -> SeedMaps:
    if keys.dtype.kind not in "iu" or keys.ndim != 1 or (keys.astype(np.int64) < 0).any():
        raise InputError(f"keys are class indices [n], got {keys.dtype} {keys.shape}")
    for name, maps in (("cam", cam), ("high_res", high_res)):
        if maps.dtype.kind != "f" or maps.ndim != 3 or len(maps) != len(keys):
            raise InputError(
                f"{name} holds {len(keys)} floating point maps like keys, got {maps.dtype} "
                f"{maps.shape}"
            )
    return SeedMaps(
        keys=torch.from_numpy(keys.astype(np.int64)),
        cam=torch.from_numpy(cam.astype(np.float32, order="C")),
        high_res=torch.from_numpy(high_res.astype(np.float32, order="C")),
    )


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(name="label", suffix=".png", encode=_label),
        Format(name="affinity", suffix=".png", encode=_affinity),
        Format(name="irn", suffix=".npy", encode=_irn, decode=_from_irn, pickled=True),
        Format(name="npz", suffix=".npz", encode=_npz, decode=_from_npz),
        Format(name="rle", suffix=".json", encode=_rle),
        Format(name="boxes", suffix=".json", encode=_boxes),
    )
}
"""Every format by its name."""
