"""What the labelled data sets read alike: label lists, names of pictures."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from attrib.datasets.labelled import IGNORE
from attrib.errors import InputError, nearest

__all__ = [
    "MOST_CLASSES",
    "Label",
    "class_indices",
    "class_number",
    "few",
    "inside",
    "read_json",
    "read_label_vectors",
    "read_labels",
    "read_table",
    "read_text",
    "refuse_repeats",
]

Label = str | int
"""A class by its name, or by its index from 0."""

MOST_CLASSES = IGNORE - 1
"""As many as a mask can tell apart."""


def read_text(path: Path) -> str:
    """Read a UTF-8 file; `InputError` if there is none or it is something else."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save it as such") from None
    except ValueError as error:
        raise InputError(f"no file can be named {str(path)!r}: {error}") from None


def read_json(
    path: Path, pairs: Callable[[list[tuple[str, Any]]], object] | None = None
) -> dict[str, Any]:
    """Read a file that holds one JSON object; `pairs` makes every object in it."""
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:  # also numbers too long and lists too deep
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold one JSON object, got a {type(content).__name__}")
    return content


def read_labels(
    path: Path, *, columns: Sequence[str], separator: str = r"\s*;\s*"
) -> dict[str, list[Label]]:
    """Read the labels of each picture from a `.csv` or `.json` file.

    Args:
        path: CSV with a header, or JSON `{picture: [labels]}` with names and integers.
        columns: Header of the CSV's column that names the picture; the first that occurs is meant.
        separator: Pattern between several labels in the CSV's column `label` or `labels`.

    Returns:
        In the order of the file; labels of a CSV are strings.

    Raises:
        InputError: a file that cannot be read, is damaged or has a picture twice.
    """
    if path.suffix.lower() == ".json":
        rows = read_json(path, lambda pairs: _without_repeats(pairs, path))
        for picture, labels in rows.items():
            if not isinstance(labels, list) or not all(_is_label(label) for label in labels):
                raise InputError(
                    f"{path}: {picture!r} needs a list of names or integers, got {labels!r}"
                )
        return rows
    if path.suffix.lower() == ".csv":
        return _read_csv(path, columns, separator)
    raise InputError(f"a label file ends in .csv or .json, got {path}")


def _without_repeats(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    refuse_repeats((key for key, _ in pairs), path)
    return dict(pairs)


def _is_label(label: object) -> bool:
    number = isinstance(label, int) and not isinstance(label, bool)
    return number or (isinstance(label, str) and bool(label.strip()))


def _read_csv(path: Path, columns: Sequence[str], separator: str) -> dict[str, list[Label]]:
    header, *lines = _csv_lines(path)
    named = [header.index(column) for column in columns if column in header]
    labelled = [i for i, cell in enumerate(header) if cell in ("label", "labels")]
    if not named or len(labelled) != 1:
        raise InputError(
            f"{path} needs a header with {' or '.join(columns)}, and with either label or labels; "
            f"its first line is {','.join(header)!r}"
        )
    refuse_repeats((line[named[0]] for line in lines), path)
    return {
        line[named[0]]: [label for label in re.split(separator, line[labelled[0]]) if label]
        for line in lines
    }


def read_table(path: Path, columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Read some columns of a CSV file with a header.

    Args:
        path: The file.
        columns: Per column wanted, the names it may have; the first that occurs is meant.

    Raises:
        InputError: a column is missing, or the file cannot be read or is damaged.
    """
    header, *lines = _csv_lines(path)
    places = []
    for names in columns:
        found = [header.index(name) for name in names if name in header]
        if not found:
            raise InputError(
                f"{path} has no column {' or '.join(names)}; its first line is {','.join(header)!r}"
            )
        places.append(found[0])
    return [[line[place] for place in places] for line in lines]


def _csv_lines(path: Path) -> list[list[str]]:
    """Read the stripped cells of all lines that are not blank: one or more, all of one length."""
    stream = io.StringIO(read_text(path), newline="")
    try:
        lines = [[cell.strip() for cell in line] for line in csv.reader(stream, strict=True)]
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: {error}") from None
    lines = [line for line in lines if any(line)]
    if not lines:
        raise InputError(f"{path} is empty; a label file starts with a header")
    for line in lines:
        if len(line) != len(lines[0]):
            raise InputError(
                f"{path}: {','.join(line)!r} has {len(line)} cells under a header of "
                f"{len(lines[0])}; quote cells that hold a comma"
            )
    return lines


def read_label_vectors(path: Path, classes: int, *, allow_pickle: bool) -> dict[str, list[Label]]:
    """Read IRN's `cls_labels.npy`, a pickled dict of one multi-hot vector per picture.

    Pictures are named by their id, or by its digits as one number: 2007000032 for 2007_000032.

    Args:
        path: The file.
        classes: Length of each vector.
        allow_pickle: Must be true, since a pickle can run any code when it is read.

    Raises:
        InputError: pickles are not allowed, or the file holds something else.
    """
    if not allow_pickle:
        raise InputError(
            f"{path} is a pickle, which can run any code when it is read; pass allow_pickle=True "
            "if you trust it, or write the labels as .csv or .json"
        )
    try:
        vectors = np.load(path, allow_pickle=True).item()
        rows = {_voc_id(key): np.asarray(vector, float) for key, vector in vectors.items()}
    except Exception as error:  # unpickling raises whatever the file leads to
        raise InputError(f"{path} holds no pickled dict of vectors: {error}") from None
    for key, vector in rows.items():
        if vector.shape != (classes,) or not np.isin(vector, (0, 1)).all():
            raise InputError(f"{path}: {key} needs {classes} values, 0 or 1, got {vector.tolist()}")
    return {key: list(map(int, np.flatnonzero(vector))) for key, vector in rows.items()}


def _voc_id(key: object) -> str:
    digits = str(key)
    return f"{digits[:4]}_{digits[4:]}" if digits.isdecimal() else digits


def class_indices(
    rows: Mapping[str, Iterable[Label]],
    names: Sequence[str],
    source: str | Path,
    whose: str = "the data set",
) -> dict[str, tuple[int, ...]]:
    """Look labels up: a name first, else an index from 0. Ascending, without repeats.

    Args:
        rows: Labels of each picture.
        names: The classes in order.
        source: Where the labels come from, for error messages.
        whose: What has the classes, likewise.

    Raises:
        InputError: a label is no class, or a name that several classes have.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)

    def index(label: Label, picture: str) -> int:
        found = places.get(label, []) if isinstance(label, str) else []
        if len(found) > 1:
            raise InputError(
                f"{source}: {label!r} of {picture} names the classes {found}; give the index"
            )
        if found:
            return found[0]
        number = class_number(label) if isinstance(label, str) else label
        if number is None:
            raise InputError(
                f"{source}: {label!r} of {picture} is no class of {whose}; give one of its "
                f"{len(names)} by name, such as {names[0]!r}, or by index from 0"
                f"{nearest(str(label), places)}"
            )
        if not 0 <= number < len(names):
            raise InputError(
                f"{source}: {label} of {picture} is no class; they are 0 to {len(names) - 1}"
            )
        return number

    return {
        picture: tuple(sorted({index(label, picture) for label in labels}))
        for picture, labels in rows.items()
    }


def class_number(text: str) -> int | None:
    """Read a class's index from 0; None if the text is no number that a class can have."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


def inside(name: str, source: str | Path) -> str:
    """Return a relative path with `/`; `InputError` if it is absolute or leads upwards."""
    path = PureWindowsPath(name)  # knows backslashes and drives besides what POSIX has
    if path.anchor or ".." in path.parts or not path.parts:
        raise InputError(
            f"{source} names the picture {name!r}; expected a path within the data set's folder"
        )
    return path.as_posix()


def refuse_repeats(ids: Iterable[str], source: str | Path) -> None:
    """Raise `InputError` if a name occurs twice."""
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise InputError(
            f"{source} lists {few(repeated)} more than once; a file's suffix makes no difference"
        )


def few(names: Sequence[str], shown: int = 3) -> str:
    """Return `"a, b, c and 7 more"`."""
    more = len(names) - shown
    return ", ".join(islice(names, shown)) + (f" and {more} more" if more > 0 else "")
