"""Maps of a data set in files: written beside a score, or made by another tool and scored here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from attrib.datasets.label_files import inside, read_json
from attrib.datasets.samples import BoxDataset, BoxSample
from attrib.errors import InputError
from attrib.files import read_array, read_arrays, reading, replacing
from attrib.images import MAX_PIXELS, read_image
from attrib.metrics import WsolBatch
from attrib.types import Frame

__all__ = ["MapFile", "made_by", "read_map", "write_maps", "write_origin", "written"]

ORIGIN = "maps.json"
SIDE = 224
"""Maps of other tools are taken to lie over their picture squashed to this square."""


class MapFile(NamedTuple):
    """One map with where it lies and how the model ranked its class; -1 if unknown."""

    plane: Float[Tensor, "u v"]
    frame: Frame
    rank: int


def write_maps(folder: Path, batch: WsolBatch) -> None:
    """Write `ID.npz` for each picture: `map` float32 raw, `rank`, and `frame` as ten integers."""
    for i, name in enumerate(batch.ids):
        with replacing(_place(folder, name)) as temporary:
            np.savez_compressed(
                temporary,
                map=batch.maps[i].float().cpu().numpy(),
                rank=np.int64(-1 if batch.rank is None else int(batch.rank[i])),
                frame=np.array(_numbers(batch.frames[i]), np.int64),
            )


def written(folder: Path, ids: Sequence[str]) -> bool:
    """Tell whether the maps of all these pictures are there, none emptied by a power cut."""
    places = [_place(folder, name) for name in ids]
    return all(place.is_file() and place.stat().st_size > 0 for place in places)


def _place(folder: Path, name: str) -> Path:
    return folder / f"{inside(name, folder)}.npz"


def write_origin(folder: Path, origin: dict[str, Any]) -> None:
    """Write down what made the maps of a folder."""
    with replacing(folder / ORIGIN) as temporary:
        temporary.write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")


def made_by(folder: Path, dataset: BoxDataset) -> dict[str, Any]:
    """Read what made the maps of a folder; empty if another tool did.

    Raises:
        InputError: they belong to another data set.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; it holds ID.npz or ID.npy for each picture")
    if not (folder / ORIGIN).is_file():
        return {}
    origin = read_json(folder / ORIGIN)
    if origin.get("dataset") != dataset.name:
        raise InputError(
            f"{folder} holds maps of {origin.get('dataset')}, asked to score {dataset.name}"
        )
    return origin


def read_map(folder: Path, sample: BoxSample) -> MapFile:
    """Read the map of one picture: `ID.npz` or `ID.npy`, with or without the picture's suffix.

    An npz holds what `write_maps` writes, or one array. A bare array is a map over the whole
    picture, of any size; its class has no rank.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    name = PurePosixPath(inside(sample.id, folder))
    stems = dict.fromkeys((str(name), str(name.with_suffix(""))))
    places = [folder / f"{stem}{kind}" for stem in stems for kind in (".npz", ".npy")]
    for path in places:
        if path.is_file():
            with reading(path), open(path, "rb") as stream:
                arrays = read_arrays(stream) if path.suffix == ".npz" else {"": read_array(stream)}
                return _map_file(arrays, sample)
    raise InputError(f"there is no map of picture {sample.id}: looked for {places[0]} and the like")


def _map_file(arrays: dict[str, NDArray[Any]], sample: BoxSample) -> MapFile:
    plane = arrays["map"] if "map" in arrays else next(iter(arrays.values()), np.zeros(0))
    if (
        plane.ndim != 2
        or plane.dtype.kind not in "fiu"
        or ("map" not in arrays and len(arrays) > 1)
    ):
        shapes = {key or "array": value.shape for key, value in arrays.items()}
        raise InputError(f"expected one map [u, v], got {shapes}")
    if "frame" in arrays:
        frame = _frame([int(value) for value in arrays["frame"]])
    else:
        height, width = read_image(sample.picture).pixels.shape[1:]
        frame = Frame(source=(height, width), resized=(SIDE, SIDE), tensor=(SIDE, SIDE))
    return MapFile(torch.from_numpy(plane.astype(np.float64)), frame, int(arrays.get("rank", -1)))


def _numbers(frame: Frame) -> list[int]:
    """Write a frame as its fields in order, pairs as two numbers."""
    fields = (value if isinstance(value, tuple) else (value,) for value in astuple(frame))
    return [int(number) for value in fields for number in value]


def _frame(numbers: list[int]) -> Frame:
    if len(numbers) != 10:
        raise InputError(f"a frame is ten whole numbers, got {len(numbers)}")
    if numbers[0] * numbers[1] > MAX_PIXELS:
        raise InputError(f"its frame is of a picture of more than {MAX_PIXELS} pixels")
    source, resized, offset, tensor = ((numbers[i], numbers[i + 1]) for i in range(0, 8, 2))
    return Frame(
        source=source,
        resized=resized,
        offset=offset,
        tensor=tensor,
        flip=bool(numbers[8]),
        orientation=numbers[9],
    )
