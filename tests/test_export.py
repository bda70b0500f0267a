"""A model and its explanation as one program: what it returns, and what it refuses.

The ONNX part is skipped without onnx, onnxscript and onnxruntime, but not in `make test`.
"""

import json
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from attrib.errors import ExportError, InputError, MissingExtraError, SplitError
from attrib.export import OUTPUTS
from attrib.export.capture import Captured
from attrib.export.formats import format_for, runner
from attrib.export.graph import Graph, GraphOptions, boxes_of
from attrib.localize import largest_component_batched, largest_component_bounded
from attrib.methods import resolve
from attrib.types import Attribution, Targets
from tests.extras import missing
from tests.models import SPEC, Everything, MlpHead, images, make
from tests.test_localize import ADVERSARIAL

MISSING = missing("onnx", "onnxscript", "onnxruntime")
with_onnx = pytest.mark.skipif(bool(MISSING), reason=MISSING)
FORMATS = ["torch", pytest.param("onnx", marks=with_onnx)]
METHODS = ["cam", "infocam", "infocam+", "infocam+(region=3, border='same')", "cam(region=2)"]


@pytest.fixture(scope="module")
def demo():
    return attrib.load_model("demo", device="cpu")


@pytest.fixture(scope="module", params=FORMATS)
def program(demo, request):
    return attrib.Explainer(demo, "infocam+").export(format=request.param)


def run(program, given):
    return runner(program.program, program.metadata["format"])(given)


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
def test_a_graph_gives_the_maps_of_the_equations(spec):
    model = attrib.load_model("demo", device="cpu").double()
    given = blobs(3).double()
    graph = Graph(attrib.split(model), resolve(spec), GraphOptions(image_size=(96, 96)))
    with torch.no_grad():
        logits, target, maps, boxes, settled = graph(given)
        true = literal(model(given), model.features(given), model.head.weight, spec)
        assert torch.allclose(logits, model(given))
    assert torch.equal(target, logits.argmax(1))
    assert torch.allclose(maps, true)
    assert boxes.shape == (3, 4)
    assert settled.all()


@pytest.mark.parametrize("count", [1, 5])
def test_a_program_gives_what_eager_code_gives_for_any_number_of_images(demo, program, count):
    given = blobs(count, seed=count)
    found = dict(zip(OUTPUTS, run(program, given), strict=True))
    attribution = attrib.Explainer(demo, "infocam+")(given)
    where = attrib.localize(attribution)
    assert torch.equal(found["target"], attribution.targets.label)
    for name, true in (("logits", attribution.logits), ("maps", attribution.maps)):
        assert torch.allclose(found[name], true, rtol=0, atol=1e-4 * float(true.abs().max()))
    apart = 0 if program.metadata["format"] == "torch" else 1  # onnxruntime adds in another order
    assert (found["boxes"] - where.boxes).abs().max() <= apart
    assert found["boxes"].dtype == torch.int64


def test_all_that_reaches_the_threshold_is_another_box_and_the_metadata_say_which(demo, program):
    given = blobs(8)
    all_ = attrib.Explainer(demo, "cam").export(boxes="all", threshold=0.6)
    _, _, maps, outer, settled = run(all_, given)
    inner, _ = boxes_of(maps, GraphOptions(image_size=(96, 96), threshold=0.6))
    assert (outer[:, :2] <= inner[:, :2]).all()
    assert (outer[:, 2:] >= inner[:, 2:]).all()
    assert not torch.equal(inner, outer)
    assert settled.all()
    assert all_.metadata["boxes"]["around"] == "all above the threshold"
    assert all_.metadata["boxes"]["threshold"] == 0.6
    assert program.metadata["boxes"]["around"] == "largest component"
    assert program.metadata["boxes"]["rounds"] == 8


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_bounded_rounds_find_the_largest_component_or_say_that_they_did_not(name):
    mask = torch.from_numpy(ADVERSARIAL[name])[None]
    true = largest_component_batched(mask).masks
    kept, settled = largest_component_bounded(mask, 40)
    assert settled.all()
    assert torch.equal(kept, true)
    kept, settled = largest_component_bounded(mask, 2)
    assert torch.equal(kept, true) or not settled.any()


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 100])
def test_boxes_are_those_of_localize_also_where_values_tie_at_the_threshold(threshold, steps):
    generator = torch.Generator().manual_seed(1)
    for grid, size in (((7, 7), (96, 96)), ((3, 5), (60, 97)), ((14, 14), (56, 56))):
        maps = (torch.randn(10, *grid, generator=generator) * steps).round()
        rows = torch.arange(10)
        attribution = Attribution(
            maps=maps,
            targets=Targets(image=rows, label=torch.zeros_like(rows)),
            logits=torch.zeros(10, 1),
            method="cam",
            unit="logits",
            exact=True,
            input_size=size,
        )
        where = attrib.localize(attribution, threshold=threshold)
        found, settled = boxes_of(maps, GraphOptions(image_size=size, threshold=threshold))
        assert settled.all()
        assert torch.equal(found, where.boxes)


def test_maps_without_a_place_have_an_empty_box():
    maps = torch.stack([torch.zeros(4, 4), -torch.rand(4, 4) - 1, torch.full((4, 4), math.nan)])
    for boxes in ("largest", "all"):
        found, settled = boxes_of(maps, GraphOptions(image_size=(8, 8), boxes=boxes))
        assert found.tolist() == [[0, 0, 0, 0]] * 3
        assert settled.all()


def test_a_model_that_works_in_place_is_exported_and_left_as_it_was():
    model = make("in-place")
    before = Everything(model)
    program = attrib.Explainer(model, "infocam", spec=SPEC).export()
    before.assert_same(model)
    given = images(3)
    kept = given.clone()
    found = run(program, given)
    assert torch.equal(given, kept)
    assert torch.allclose(found[2], attrib.Explainer(model, "infocam", spec=SPEC)(given).maps)


def test_a_head_that_is_not_linear_is_applied_at_every_cell():
    model = MlpHead().eval()
    classifier = attrib.split(model, features="body", head="top", spec=SPEC)
    explainer = attrib.Explainer(classifier, "infocam+")
    program = explainer.export()
    assert program.metadata["exact"] is False
    given = images(2)
    assert torch.allclose(run(program, given)[2], explainer(given).maps, atol=1e-6)


def test_a_file_says_what_it_is_and_runs_without_attrib(demo, program, tmp_path):
    format = program.metadata["format"]
    path = program.save(tmp_path / ("a.pt2" if format == "torch" else "a.onnx"))
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
    assert written["labels"] == list(attrib.split(demo).spec.labels)
    for there, here in zip(found, run(program, given), strict=True):
        assert torch.equal(there, here)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("gradcam", {}, "'gradcam' cannot be exported; 'cam', 'infocam'"),
        ("infocam+(contrast='region')", {}, "cannot be exported"),
        ("infocam", {"multi_label": True}, "is multi-label"),
        ("cam", {"threshold": 1.5}, "threshold lies in"),
        ("cam", {"rounds": 0}, "rounds is a whole number of at least 1"),
        ("cam", {"image_size": (0, 4)}, "image_size is positive"),
        ("cam", {"path": "a.bin", "format": "torch"}, "ends in .pt2"),
        ("cam", {"path": "a.bin"}, "ends in .pt2"),
        ("cam", {"path": "a.pt2", "format": "onnx"}, "ends in .pt2"),
        ("cam", {"images": torch.zeros(2, 3, 8, 8)}, "two or more"),
    ],
)
def test_what_cannot_be_exported_is_refused(demo, method, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = dict(options)
    explainer = attrib.Explainer(demo, method, multi_label=given.pop("multi_label", None))
    with pytest.raises(InputError, match=message):
        explainer.export(**given)
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="'torch' or 'onnx', got 'tf'"):
        format_for(None, "tf")


class Branching(nn.Module):
    """Decides by what it sees, which one graph cannot."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, stride=4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        maps = self.features(x)
        if float(maps.detach().mean()) > 0:
            maps = maps * 2
        return self.fc(maps.mean((2, 3)))


def test_a_model_that_cannot_be_traced_is_named(tmp_path):
    classifier = attrib.split(Branching(), features="features", head="fc", spec=SPEC)
    explainer = attrib.Explainer(classifier, "cam")
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


class Summing(nn.Module):
    """Pools with a divisor of its own, which the ONNX exporter drops."""

    def __init__(self):
        super().__init__()
        pool = nn.AvgPool2d(2, divisor_override=1)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), pool)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


@with_onnx
def test_what_the_format_loses_is_found():
    explainer = attrib.Explainer(Summing().eval(), "infocam+", spec=SPEC)
    explainer.export()
    with pytest.raises(ExportError, match="deviates from the model: logits by"):
        explainer.export(format="onnx")


@pytest.mark.parametrize("spec", ["cam(region=3)", "infocam", "infocam+(border='same')"])
def test_no_part_of_the_explanation_is_what_the_format_loses(demo, spec):
    program = attrib.Explainer(demo, spec).export().program
    pools = [n for n in program.graph.nodes if n.target == torch.ops.aten.avg_pool2d.default]
    assert pools
    assert all(len(n.args) < 7 and "divisor_override" not in n.kwargs for n in pools)


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


def test_the_command_refuses_what_python_refuses_of_a_multi_label_model(tmp_path):
    out = tmp_path / "demo.pt2"
    options = ["export", "--model", "demo", "--out", str(out), "--multi-label"]
    done = CliRunner().invoke(app, [*options, "--method", "infocam+"])
    assert isinstance(done.exception, InputError)
    assert "is multi-label" in str(done.exception)
    assert not out.exists()
    done = CliRunner().invoke(app, [*options, "--method", "cam"])
    assert done.exit_code == 0, done.output
    assert out.exists()


def test_a_model_without_class_maps_has_no_program():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(SplitError):
        attrib.Explainer(model, "cam", spec=SPEC).export()


class FakeGraph:
    """Stands in for a CUDA graph: what is run while it is captured, it runs again."""

    def replay(self):
        for mine, new in zip(self.outputs, self.run(), strict=True):
            mine.copy_(new)


def test_a_graph_reads_and_writes_memory_of_its_own(monkeypatch):
    runs = []

    def run(images):
        runs.append(len(images))
        return (images.sum((1, 2, 3)),)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", nullcontext)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: SimpleNamespace(wait_stream=lambda _: None))
    captured = Captured(run, images(2))
    assert len(runs) > 1  # warm, then captured
    captured._graph.outputs = captured._outputs
    captured._graph.run = lambda: run(captured._images)
    given, other = images(2, seed=1), images(2, seed=2)
    first, kept = captured(given)[0], given.clone()
    second = captured(other)[0]
    assert torch.equal(first, given.sum((1, 2, 3)))
    assert torch.equal(second, other.sum((1, 2, 3)))
    assert torch.equal(given, kept)
    with pytest.raises(InputError, match=r"captured for torch.float32 \(2, 3, .*capture another"):
        captured(images(3))


def test_a_program_of_the_cpu_is_not_captured(demo):
    program = attrib.Explainer(demo, "cam").export()
    with pytest.raises(InputError, match="exported with format='torch' on a GPU; got 1 images and"):
        program.captured(1)
