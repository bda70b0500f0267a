"""PASCAL VOC's annotation files, which ImageNet uses too."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from attrib.datasets.label_files import read_text
from attrib.errors import InputError

__all__ = ["object_names", "read_annotation"]

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def object_names(path: Path) -> list[str]:
    """Read the class of every object.

    Raises:
        InputError: the file is missing or damaged.
    """
    return [item.findtext("name", "").strip() for item in _objects(path)]


def read_annotation(path: Path) -> list[tuple[str, list[float]]]:
    """Read class and `xmin ymin xmax ymax` of every object, as they stand in the file.

    Raises:
        InputError: the file is missing or damaged, or an object has no box.
    """
    names, found = object_names(path), []
    for name, item in zip(names, _objects(path), strict=True):
        try:
            corners = [float(item.findtext(f"bndbox/{corner}", "")) for corner in CORNERS]
        except ValueError:
            raise InputError(f"{path}: object {name!r} has no box of 4 numbers") from None
        found.append((name, corners))
    return found


def _objects(path: Path) -> list[ElementTree.Element]:
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can be made to expand without end
        raise InputError(f"{path} declares a document type; VOC's annotations have none, remove it")
    try:
        annotation = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if annotation.tag != "annotation":
        raise InputError(f"{path} holds <{annotation.tag}>; expected VOC's <annotation>")
    return annotation.findall("object")
