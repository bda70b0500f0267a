"""Which models have class maps: one architecture of every timm family, all of torchvision.

`python benchmarks/coverage.py` builds each with random weights, takes it apart, makes maps by
three methods and writes the table in docs/coverage.md. The tests run the same check.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import attrib
from attrib.errors import SplitError
from attrib.models import SpatialClassifier, fingerprint, spec_of, split
from attrib.models.probe import noise

FAMILIES: dict[str, str] = json.loads(
    (Path(__file__).parent / "timm_families.json").read_text(encoding="utf-8")
)
"""The smallest architecture of each of timm's model families."""

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
CLASSES = 12


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found out about one model.

    Args:
        name: Family or builder.
        model: Architecture that stood for it.
        kind: `"exact"`, `"approximate"` or `"refused"`.
        grid: Rows and columns of its class maps, at its own input size.
        note: Why it is not exact.
        gradcam: Grid of its Grad-CAM map.
    """

    name: str
    model: str
    kind: str
    grid: str
    note: str
    gradcam: str


def timm_model(architecture: str) -> nn.Module:
    """Build a timm model with random weights everywhere, also where its own start at zero."""
    import timm

    return randomised(timm.create_model(architecture, num_classes=CLASSES))


def torchvision_names() -> list[str]:
    """List torchvision's classification builders."""
    from torchvision import models

    return models.list_models(module=models)


def torchvision_model(name: str) -> nn.Module:
    """Build a torchvision model with random weights."""
    from torchvision import models

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return randomised(models.get_model(name, num_classes=CLASSES, **options))


def randomised(model: nn.Module) -> nn.Module:
    """Give heads that start at zero or near it some weight; a zero head explains nothing."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim >= 2 and parameter.detach().abs().max() < 0.02:
            noise_ = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.05 * noise_)
    return model


def check(name: str, model_name: str, build: Callable[[str], nn.Module]) -> Row:
    """Build a model and check every promise on it; raises AssertionError where one is broken."""
    model = build(model_name)
    before, modes = fingerprint(model), [m.training for m in model.modules()]
    spec = replace(spec_of(model), labels=())
    images = noise(model, spec)
    gradcam = _map(attrib.Explainer(model, "gradcam(relu=False)", spec=spec), images)
    try:
        classifier = split(model, spec=spec)
    except SplitError as error:
        kind, grid, note = "refused", "", re.split(r"[;.] ", str(error))[0]
    else:
        kind, note = ("exact", "") if classifier.exact else ("approximate", classifier.note)
        grid = _map(attrib.Explainer(classifier, "cam"), images)
        _map(attrib.Explainer(classifier, "infocam+"), images)
        _check_identity(classifier, images)
    assert fingerprint(model) == before, "weights changed"
    assert [m.training for m in model.modules()] == modes, "modes changed"
    assert not any(m._forward_hooks for m in model.modules()), "a hook was left"
    assert all(p.grad is None for p in model.parameters()), "gradients were left"
    return Row(name=name, model=model_name, kind=kind, grid=grid, note=note, gradcam=gradcam)


def _map(explainer: attrib.Explainer, images: torch.Tensor) -> str:
    found = explainer(images)
    (map_,) = found.maps
    assert map_.isfinite().all(), f"{found.method} is not finite"
    assert map_.max() > map_.min(), f"{found.method} is constant"
    assert map_.numel() > 1
    return f"{map_.shape[0]}×{map_.shape[1]}"


def _check_identity(classifier: SpatialClassifier, images: torch.Tensor) -> None:
    """Where exactness is claimed, the mean of the class maps over the grid is the logits."""
    if not classifier.exact:
        return
    features = classifier.forward(images)
    mean = classifier.class_maps(features.grid).mean((2, 3))
    if classifier.linear is not None:
        bias = classifier.model.get_submodule(classifier.linear).bias
        mean = mean if bias is None else mean + bias
    error = (mean - features.logits).abs().max() / features.logits.abs().max()
    assert error < 1e-4, f"CAM identity is off by {error:.1e}"


def run(names: list[str]) -> list[Row]:
    """Check the named families and builders, all of them if none is named."""
    todo: list[tuple[str, str, Callable[[str], nn.Module]]] = [
        *((f"timm {family}", model, timm_model) for family, model in FAMILIES.items()),
        *((f"torchvision {name}", name, torchvision_model) for name in torchvision_names()),
    ]
    rows = []
    for name, model, build in todo:
        if names and name.split()[1] not in names:
            continue
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(check(name, model, build))
        print(f"{name:36}{rows[-1].kind:12}{time.perf_counter() - started:6.1f} s", flush=True)
    return rows


def page(rows: list[Row]) -> str:
    """Write the documentation page."""
    import timm
    import torchvision

    lines = [
        "# Which models have class maps",
        "",
        "Written by `python benchmarks/coverage.py` with random weights, "
        f"timm {timm.__version__} and torchvision {torchvision.__version__}.",
        "",
        "*Exact*: the mean of the class maps over the grid is the logits, checked to 1e-4. "
        "*Approximate*: the head is applied at each cell, and results are marked `exact=False`. "
        "*Refused*: `cam`, `infocam` and `infocam+` raise an error that says what to do; gradient "
        "methods work on every model below.",
    ]
    for library in ("timm", "torchvision"):
        own = [row for row in rows if row.name.startswith(library)]
        if own:
            lines += ["", f"## {library}", "", _summary(own), "", *_table(own)]
    return "\n".join(lines) + "\n"


def _summary(rows: list[Row]) -> str:
    counts = {k: sum(r.kind == k for r in rows) for k in ("exact", "approximate", "refused")}
    covered = counts["exact"] + counts["approximate"]
    return (
        f"{len(rows)} checked: {counts['exact']} exact, {counts['approximate']} approximate, "
        f"{counts['refused']} refused; class maps on {covered / len(rows):.1%}, "
        "gradient methods on all."
    )


def _table(rows: list[Row]) -> list[str]:
    lines = ["| family | checked on | class maps | grid | Grad-CAM grid | why |", "|" + "---|" * 6]
    for row in rows:
        family = row.name.split()[1]
        cells = (family, row.model, row.kind, row.grid, row.gradcam, row.note)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="families or builders; all of them if none")
    arguments = parser.parse_args()
    rows = run(arguments.names)
    if not arguments.names:
        PAGE.write_text(page(rows), encoding="utf-8")
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
