"""The page for people who know other libraries: both columns name what there is."""

import importlib
import importlib.util
import inspect
import re
from functools import reduce
from pathlib import Path

import pytest

import attrib
from attrib.errors import UnknownNameError
from attrib.methods import METHODS
from attrib.metrics import resolve_score

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text(encoding="utf-8")
PEERS = {
    "pytorch-grad-cam": [
        "pytorch_grad_cam",
        *(f"pytorch_grad_cam.utils.{part}" for part in ("image", "model_targets")),
        *(f"pytorch_grad_cam.metrics.{part}" for part in ("road", "cam_mult_image")),
        "pytorch_grad_cam.metrics.perturbation_confidence",
    ],
    "torchcam": ["torchcam.methods", "torchcam.metrics", "torchcam.utils"],
    "Captum": [
        "captum.attr",
        "captum.attr._utils.visualization",
        "captum.attr._utils.lrp_rules",
        "captum.metrics",
        "captum._utils.models.linear_model",
    ],
}
"""Where what the left column names lives."""
CODE = re.compile(r"`([^`]+)`")
NO_SPEC = {"stdevs", "noise", "attribute"}
"""What the right column names besides methods, metrics and arguments."""
OF_AN_OBJECT = {"model(x)", "extractor(class_idx, scores)"}
"""What the left column calls and no library defines."""


def rows(peer):
    section = PAGE.split(f"\n## {peer}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


ROWS = [(peer, *row) for peer in PEERS for row in rows(peer)]


def is_there(code):
    """Tell whether a span of the right column names something of attrib's; fail if it is wrong."""
    argument = re.match(r"(\w+)=", code)
    if argument:
        parameters = {**inspect.signature(attrib.explain).parameters}
        return argument[1] in parameters
    if code.startswith("e."):
        return hasattr(attrib.Explanation, code[2:].split("(")[0])
    if code.startswith("attrib."):
        return callable(reduce(getattr, code.split("(")[0].split(".")[1:], attrib))
    try:
        METHODS.make(code)
    except UnknownNameError:
        return resolve_score(code) is not None
    return True


def is_ours(code):
    """Tell a span that names something of attrib's from a value or another's."""
    if re.match(r"(e|attrib)\.|(targets|output|multi_label|tta)=", code):
        return True
    return not NO_SPEC & {code} and re.fullmatch(r"[a-z+-]+(\(.*\))?", code)


@pytest.mark.parametrize(("peer", "theirs", "ours"), ROWS)
def test_ours_is_there(peer, theirs, ours):
    found = [code for code in CODE.findall(ours) if is_ours(code)]
    assert found or ours.startswith(("no equivalent", "not needed")), theirs
    for code in found:
        assert is_there(code), code


@pytest.mark.parametrize("peer", PEERS)
def test_theirs_is_there(peer):
    if any(importlib.util.find_spec(home.split(".")[0]) is None for home in PEERS[peer]):
        pytest.skip(f"needs {peer}")
    homes = [importlib.import_module(home) for home in PEERS[peer]]
    missing = [
        code
        for name, theirs, _ in ROWS
        for code in CODE.findall(theirs)
        if not re.match(r"\w+=", code)
        for word in re.findall(r"[A-Z]\w*(?=[(.`]|$)|^[a-z]\w+(?=\()", code)
        if name == peer and not any(hasattr(home, word) for home in homes)
    ]
    assert set(missing) <= OF_AN_OBJECT


def test_every_explainer_of_captum_for_pictures_has_a_row():
    import captum.attr as known

    theirs = " ".join(row[1] for row in ROWS if row[0] == "Captum")
    explain = [
        name
        for name in known.__all__
        if hasattr(getattr(known, name), "attribute")
        and not re.match("Layer|Neuron|LLM|RemoteLLM|Internal|DataLoader|LimeBase", name)
    ]
    assert [name for name in explain if not re.search(rf"\b{name}\b", theirs)] == []
