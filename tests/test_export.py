"""A model and its explanation as one program: what it returns, and what it refuses.

The ONNX part is skipped where onnx, onnxscript or onnxruntime are not installed.
"""

import importlib.util
import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from attrib.errors import ExportError, InputError, MissingExtraError, SplitError
from attrib.export import OUTPUTS
from attrib.export.formats import runner
from attrib.export.graph import GraphOptions, boxes_of
from attrib.localize import largest_component_batched, largest_component_bounded
from tests.models import SPEC, Everything, MlpHead, images, make
from tests.test_localize import ADVERSARIAL

MISSING = [n for n in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(n) is None]
with_onnx = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
FORMATS = ["torch", pytest.param("onnx", marks=with_onnx)]
METHODS = ["cam", "infocam", "infocam+", "infocam+(region=3, border='same')", "cam(region=2)"]


@pytest.fixture(scope="module")
def demo():
    return attrib.load_model("demo", device="cpu")


def blobs(count, size=(96, 96), seed=5):
    coarse = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size, mode="bicubic")


def literal(logits, grid, weight, spec):
    """Maps of the most likely class in float64, written from the equations, sums and all."""
    maps = []
    for n, g in zip(logits.double(), grid.double(), strict=True):
        own = int(n.argmax())
        others = [m for m in range(len(n)) if m != own]
        evidence = [(weight[m].double()[:, None, None] * g).sum(0) for m in range(len(n))]
        if spec.startswith("infocam+"):
            cells = evidence[own] - evidence[min(others, key=lambda m: float(n[m]))]
        elif spec.startswith("infocam"):
            cells = evidence[own] - sum(evidence[m] for m in others) / len(others)
        else:
            cells = evidence[own]
        maps.append(regions(cells, spec))
    return torch.stack(maps)


def regions(cells, spec):
    side = {"infocam": 4, "infocam+": 4, "cam(region=2)": 2, "cam": 1}.get(spec, 3)
    before, after = (1, 1) if "same" in spec else (side - 1, side - 1)
    u, v = cells.shape
    padded = torch.zeros(u + before + after, v + before + after, dtype=cells.dtype)
    padded[before : before + u, before : before + v] = cells
    rows, columns = (n - side + 1 for n in padded.shape)
    return torch.tensor(
        [[padded[i : i + side, j : j + side].sum() for j in range(columns)] for i in range(rows)]
    )


@pytest.mark.parametrize("spec", METHODS)
def test_a_program_gives_the_maps_of_the_equations(demo, spec):
    given = blobs(3)
    run = runner(attrib.Explainer(demo, spec).export().program, "torch")
    logits, target, maps, boxes, settled = run(given)
    with torch.no_grad():
        grid = demo.features(given)
    assert torch.allclose(logits, demo(given), atol=1e-5)
    assert torch.equal(target, demo(given).argmax(1))
    true = literal(logits, grid, demo.head.weight, spec)
    assert torch.allclose(maps.double(), true, atol=1e-4 * float(true.abs().max()))
    assert boxes.shape == (3, 4)
    assert settled.all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("count", [1, 5])
def test_boxes_are_those_of_localize_for_any_number_of_images(demo, format, count):
    given = blobs(count, seed=count)
    explainer = attrib.Explainer(demo, "infocam+")
    found = dict(zip(OUTPUTS, runner(explainer.export(format=format).program, format)(given), strict=True))
    attribution = explainer(given)
    where = attrib.localize(attribution)
    assert torch.equal(found["target"], attribution.targets.label)
    assert torch.allclose(found["maps"], attribution.maps, rtol=1e-3, atol=1e-3)
    assert (found["boxes"] - where.boxes).abs().max() <= 1
    assert found["boxes"].dtype == torch.int64


def test_all_that_reaches_the_threshold_is_another_box_and_the_metadata_say_which(demo):
    given = blobs(8)
    one, all_ = (
        attrib.Explainer(demo, "cam").export(boxes=boxes, threshold=0.6)
        for boxes in ("largest", "all")
    )
    inner, outer = (runner(p.program, "torch")(given)[3] for p in (one, all_))
    assert (outer[:, :2] <= inner[:, :2]).all()
    assert (outer[:, 2:] >= inner[:, 2:]).all()
    assert not torch.equal(inner, outer)
    assert one.metadata["boxes"]["around"] == "largest component"
    assert one.metadata["boxes"]["rounds"] == 12
    assert all_.metadata["boxes"]["around"] == "all above the threshold"
    assert all_.metadata["boxes"]["threshold"] == 0.6


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_bounded_rounds_find_the_largest_component_or_say_that_they_did_not(name):
    mask = torch.from_numpy(ADVERSARIAL[name])[None]
    true = largest_component_batched(mask).masks
    kept, settled = largest_component_bounded(mask, 40)
    assert settled.all()
    assert torch.equal(kept, true)
    kept, settled = largest_component_bounded(mask, 2)
    assert torch.equal(kept, true) or not settled.any()


def test_maps_without_a_place_have_an_empty_box():
    maps = torch.stack([torch.zeros(4, 4), -torch.rand(4, 4) - 1, torch.full((4, 4), math.nan)])
    for boxes in ("largest", "all"):
        found, settled = boxes_of(maps, GraphOptions(image_size=(8, 8), boxes=boxes))
        assert found.tolist() == [[0, 0, 0, 0]] * 3
        assert settled.all()


@pytest.mark.parametrize("name", ["plain", "in-place", "stubborn", "shared-relu"])
def test_awkward_models_are_exported_and_left_as_they_were(name):
    model = make(name)
    before = Everything(model)
    program = attrib.Explainer(model, "infocam", spec=SPEC).export()
    before.assert_same(model)
    given = images(3)
    kept = given.clone()
    found = runner(program.program, "torch")(given)
    assert torch.equal(given, kept)
    assert torch.allclose(found[2], attrib.Explainer(model, "infocam", spec=SPEC)(given).maps)


def test_a_head_that_is_not_linear_is_applied_at_every_cell():
    model = MlpHead().eval()
    classifier = attrib.split(model, features="body", head="top", spec=SPEC)
    explainer = attrib.Explainer(classifier, "infocam+")
    program = explainer.export()
    assert program.metadata["exact"] is False
    given = images(2)
    assert torch.allclose(runner(program.program, "torch")(given)[2], explainer(given).maps)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_says_what_it_is_and_runs_without_attrib(demo, format, tmp_path):
    path = tmp_path / ("a.pt2" if format == "torch" else "a.onnx")
    program = attrib.Explainer(demo, "infocam+").export(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    given = blobs(2)
    if format == "torch":
        extra = {"attrib.json": ""}
        found = torch.export.load(path, extra_files=extra).module()(given)
        written = json.loads(extra["attrib.json"])
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        found = [torch.from_numpy(x) for x in session.run(None, {"images": given.numpy()})]
        written = json.loads(session.get_modelmeta().custom_metadata_map["attrib.json"])
    assert written == program.metadata
    assert written["format"] == format
    assert written["labels"] == list(attrib.split(demo).spec.labels)
    for there, here in zip(found, runner(program.program, format)(given), strict=True):
        assert torch.equal(there, here)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("gradcam", {}, "'gradcam' cannot be exported; 'cam', 'infocam'"),
        ("infocam+(contrast='region')", {}, "cannot be exported"),
        ("cam", {"threshold": 1.5}, "threshold lies in"),
        ("cam", {"boxes": "some"}, "boxes is one of 'largest', 'all'"),
        ("cam", {"rounds": 0}, "rounds is a whole number of at least 1"),
        ("cam", {"image_size": (0, 4)}, "image_size is positive"),
        ("cam", {"format": "tf"}, "format is 'torch' or 'onnx'"),
        ("cam", {"path": "a.bin"}, "ends in .pt2"),
        ("cam", {"path": "a.pt2", "format": "onnx"}, "ends in .pt2"),
        ("cam", {"images": torch.zeros(2, 3, 8, 8)}, "two or more"),
    ],
)
def test_what_cannot_be_exported_is_refused(demo, method, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        attrib.Explainer(demo, method).export(**options)
    assert not list(tmp_path.iterdir())


class Branching(nn.Module):
    """Decides by what it sees, which one graph cannot."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, stride=4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        maps = self.features(x)
        if float(maps.mean()) > 0:
            maps = maps * 2
        return self.fc(maps.mean((2, 3)))


def test_a_model_that_cannot_be_traced_is_named(tmp_path):
    explainer = attrib.Explainer(Branching(), "cam", spec=SPEC)
    with pytest.raises(ExportError, match=r"Branching cannot be traced by torch\.export"):
        explainer.export(tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


class Drifting(nn.Module):
    """Gives other logits in every call: counts on the side, which a graph does not."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, stride=4)
        self.fc = nn.Linear(4, 3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.fc(self.features(x).mean((2, 3))) * self.calls


def test_a_program_that_deviates_is_not_written(tmp_path):
    explainer = attrib.Explainer(Drifting(), "cam", spec=SPEC)
    with pytest.raises(ExportError, match=r"deviates from the model: .*logits by"):
        explainer.export(tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(demo, monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr("attrib.export.formats.importlib.import_module", refuse)
    with pytest.raises(MissingExtraError, match=r"attrib\[export\]"):
        attrib.Explainer(demo, "cam").export(format="onnx")


def test_the_command_writes_a_program(tmp_path):
    out = tmp_path / "demo.pt2"
    options = ["--model", "demo", "--method", "cam", "--boxes", "all", "--out", str(out)]
    done = CliRunner().invoke(app, ["export", *options])
    assert done.exit_code == 0, done.output
    assert "box around all above the threshold" in done.output
    assert out.exists()


def test_a_model_without_class_maps_has_no_program():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(SplitError):
        attrib.Explainer(model, "cam", spec=SPEC).export()
