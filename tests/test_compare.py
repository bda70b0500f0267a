"""Methods by metrics: the table beside a literal one, refusals, resuming, and what is saved."""

import json
import math
import re
import statistics
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from attrib.cli.compare import _specs
from attrib.compare import PictureRecord, estimate
from attrib.datasets import Folder, Scenes
from attrib.datasets.scenes import CLASSES
from attrib.errors import InputError, UnknownNameError
from attrib.images import preprocess, read_image
from attrib.methods import resolve
from attrib.metrics import at_input, resolve_metric
from attrib.models.recall import Recall
from attrib.types import Targets
from tests.models import SPEC, Everything, Flat, Pooled, images, make

METHODS = ["cam", "infocam+", "gradcam"]
METRICS = ["deletion(steps=4)", "sparseness", "max-sensitivity(samples=2)"]
COUNT = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    rows = ["path,labels"]
    for i in range(COUNT):
        scene = Scenes(length=COUNT, size=(64 + 8 * i, 80), seed=3)[i]
        Image.fromarray(scene.image.permute(1, 2, 0).numpy()).save(root / f"p{i}.png")
        rows.append(f"p{i}.png,{CLASSES[scene.label]}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def paths(root):
    return [root / f"p{i}.png" for i in range(COUNT)]


@pytest.fixture(scope="module")
def found(paths):
    refused = "gradcam(layer='stage9')"
    return attrib.compare("demo", paths, [*METHODS, refused], metrics=METRICS, batch_size=2)


def test_scores_are_those_of_each_method_and_metric_alone(found, paths):
    explainer = {name: attrib.Explainer("demo", name) for name in METHODS}
    for name in METHODS:
        classifier, method = explainer[name].classifier, explainer[name].method

        def explain(seen, batch, pairs, method=method):
            return at_input(method.attribute(seen, batch.clone(), pairs).maps, batch)

        for spec in METRICS:
            want = []
            for path in paths:
                batch, _ = preprocess([read_image(path)], classifier.spec)
                label = classifier.forward(batch).logits.argmax(1)
                pairs = Targets(image=torch.tensor([0]), label=label)
                maps = explain(classifier, batch, pairs)
                want.append(float(resolve_metric(spec)(classifier, batch, maps, pairs, explain)))
            got = [record.outcomes[name].scores[spec] for record in found.pictures]
            assert got == pytest.approx(want, rel=1e-3, abs=1e-5)
            (row,) = (row for row in found.rows if row.method == name)
            assert row.scores[spec].mean == pytest.approx(statistics.mean(want), rel=1e-3, abs=1e-5)
            assert row.scores[spec].low <= row.scores[spec].mean <= row.scores[spec].high
            assert row.scores[spec].pictures == COUNT
            assert row.seconds > 0


def test_a_method_that_refuses_is_a_row_with_its_reason(found):
    row = found.rows[-1]
    assert (row.pictures, row.failures) == (0, COUNT)
    assert row.error.startswith("SplitError: no module 'stage9'")
    assert row.seconds is None
    assert all(math.isnan(cell.mean) for cell in row.scores.values())
    flat = attrib.compare(Flat(), images(1)[0].sigmoid(), ["cam", "gradcam"], spec=SPEC)
    assert "cannot tell where Flat keeps its feature map" in flat.rows[0].error
    assert flat.rows[1].pictures == 1


def test_a_metric_that_refuses_leaves_the_others(paths):
    class Scaled(Pooled):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    found = attrib.compare(
        Scaled(), paths[:1], ["cam"], metrics=["sparseness", "randomisation"], spec=SPEC
    )
    (row,) = found.rows
    assert row.scores["sparseness"].pictures == 1
    assert "has no initialisation" in row.notes["randomisation"]
    assert found.best("randomisation") == ()


def test_a_mistake_in_the_call_is_an_error(paths):
    with pytest.raises(UnknownNameError, match="did you mean 'gradcam'"):
        attrib.compare("demo", paths, ["gradcm"])
    with pytest.raises(InputError, match="given once each"):
        attrib.compare("demo", paths, ["cam", "cam(region=1)"])
    with pytest.raises(InputError, match="there is no method to compare"):
        attrib.compare("demo", paths, [])
    with pytest.raises(InputError, match=r"write \['cam'\]"):
        attrib.compare("demo", paths, "cam")
    with pytest.raises(InputError, match="there is no picture"):
        attrib.compare("demo", [], ["cam"])
    with pytest.raises(InputError, match="a picture is given twice"):
        attrib.compare("demo", [paths[0], paths[0]], ["cam"])
    with pytest.raises(InputError, match="targets='true' is for data sets"):
        attrib.compare("demo", paths, ["cam"], "true")
    with pytest.raises(InputError, match="pictures have no paths"):
        attrib.compare("demo", torch.rand(3, 64, 64), ["cam"], work="somewhere")
    with pytest.raises(InputError, match="are 1 or more"):
        attrib.compare("demo", paths, ["cam"], every=0)


def test_the_forward_pass_is_shared_and_the_model_left_alone(paths):
    model = make("in-place")
    before = Everything(model)
    calls = []
    split = attrib.split(model, spec=SPEC)
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    found = attrib.compare(split, paths[:2], ["cam", "infocam", "infocam+"], metrics=["sparseness"])
    handle.remove()
    assert len(calls) == 1
    before.assert_same(model)
    alone = attrib.compare(split, paths[:2], ["infocam+"], metrics=["sparseness"])
    assert found.pictures[1].outcomes["infocam+"].scores == pytest.approx(
        alone.pictures[1].outcomes["infocam+"].scores
    )


BY_GRADIENT = ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam"]


@pytest.mark.parametrize(
    ("kind", "layer"), [("in-place", ""), ("plain", ""), ("plain", "features.2")]
)
def test_features_and_gradients_are_shared_to_the_bit(kind, layer):
    split = attrib.split(make(kind), spec=SPEC)
    assert split.gradient_layer == ""  # found out by passes of its own
    batch = images(3)
    twice = Targets(image=torch.tensor([0, 1, 1, 2]), label=torch.tensor([2, 0, 3, 1]))
    option = f"(layer={layer!r})" if layer else ""
    methods = [resolve(name + option) for name in BY_GRADIENT] + [resolve("infocam+")]
    calls, recall, passes = [], Recall(), 2 if layer else 1
    alone = [method.attribute(split, batch.clone(), twice) for method in methods]
    remembering = split.remembering(recall)
    vars(remembering)["gradient_layer"] = ""
    handle = split.model.register_forward_hook(lambda *_: calls.append(1))
    for order in (methods, methods[::-1]):
        recall.forget()
        calls.clear()
        found = {m: m.attribute(remembering, batch.clone(), twice) for m in order}
        assert len(calls) == passes  # one without gradients, for infocam+
        for method, want in zip(methods, alone, strict=True):
            assert torch.equal(found[method].maps, want.maps)
            assert torch.equal(found[method].logits, want.logits)
    other = Targets(image=torch.tensor([0, 2]), label=torch.tensor([1, 1]))
    again = methods[0].attribute(remembering, batch.clone(), other)
    handle.remove()
    assert len(calls) == passes
    assert torch.equal(again.maps, methods[0].attribute(split, batch.clone(), other).maps)


@pytest.mark.parametrize(("options", "passes"), [("", 1), ("(layer='features.5')", 2)])
def test_a_comparison_makes_few_passes_and_keeps_nothing(options, passes, paths, monkeypatch):
    model, calls, recalls = make("in-place"), [], []
    split = attrib.split(model, spec=SPEC)
    begin = Recall.__init__
    monkeypatch.setattr(
        Recall, "__init__", lambda self, *a, **k: recalls.append(self) or begin(self, *a, **k)
    )
    model.register_forward_hook(lambda *_: calls.append(1))
    methods = ["cam", "infocam", "infocam+", *(method + options for method in BY_GRADIENT)]
    attrib.compare(split, paths[:2], methods, metrics=[])
    assert len(calls) == passes
    calls.clear()
    attrib.compare(split, paths[:4], methods, metrics=[], batch_size=2)
    assert len(calls) == 2 * passes
    calls.clear()
    attrib.compare(split, paths[:2], ["cam", "gradcam" + options], metrics=[])
    assert len(calls) == passes
    assert len(recalls) == 3
    assert all(recall._last is None for recall in recalls)


def test_what_is_recalled_is_of_the_same_images_and_model():
    one, other, recall = make("plain"), make("bias-free"), Recall()
    batch = images()
    first = recall(one, batch, lambda x: x.add_(1))
    assert torch.equal(batch, images())
    assert recall(one, images(), lambda x: None) is first
    assert len(recall.spared) == 1
    assert recall(one, images(), lambda x: 3, "other") == 3
    assert recall(one, images(), lambda x: 4, "other", "key") == 4
    assert recall(one, images(), lambda x: 5, "other") == 5
    assert recall(one, images(), lambda x: None) is first
    assert recall(other, images(), lambda x: 5) == 5
    assert recall(other, images(seed=1), lambda x: 6) == 6
    assert recall(other, images(seed=1).double(), lambda x: 7) == 7
    assert len(recall.spared) == 2
    recall.forget()
    assert recall(other, images(seed=1).double(), lambda x: 8) == 8


def test_bootstrap_intervals():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1)).double()
    found = estimate([*values.tolist(), math.nan])
    assert (found.pictures, found.without) == (400, 1)
    assert found.mean == pytest.approx(float(values.mean()))
    error = float(values.std()) / 20  # for so many the normal interval is right
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.01)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.01)
    state = torch.get_rng_state()
    assert estimate([1.0, 2.0]) == estimate([1.0, 2.0])
    assert torch.equal(torch.get_rng_state(), state)
    one, none = estimate([3.0]), estimate([math.nan])
    assert (one.mean, math.isnan(one.low)) == (3, True)
    assert math.isnan(none.mean)


def test_targets(paths, root):
    data = Folder(root, root / "labels.csv", classes=CLASSES)
    true = attrib.compare("demo", data, ["cam"], "true", metrics=["deletion(steps=2)"])
    assert true.targets == "true"
    assert [record.id for record in true.pictures] == [f"p{i}" for i in range(COUNT)]
    assert [record.shown.target for record in true.pictures] == [
        CLASSES[data[i].labels[0]] for i in range(COUNT)
    ]
    both = attrib.compare("demo", paths[0], ["cam"], ["cat", "deer"], metrics=["deletion(steps=2)"])
    each = [
        attrib.compare("demo", paths[0], ["cam"], name, metrics=["deletion(steps=2)"])
        for name in ("cat", "deer")
    ]
    mean = statistics.mean(c.rows[0].scores["deletion(steps=2)"].mean for c in each)
    assert both.rows[0].scores["deletion(steps=2)"].mean == pytest.approx(mean, rel=1e-4)
    assert both.targets == "given"
    none = attrib.compare("demo", paths[0], ["cam"], [[]], metrics=["deletion(steps=2)"])
    assert math.isnan(none.rows[0].scores["deletion(steps=2)"].mean)
    with pytest.raises(InputError, match="'predicted' or 'true'"):
        attrib.compare("demo", data, ["cam"], 3)


def scores_of(found):
    return {r.id: {m: o.scores for m, o in r.outcomes.items()} for r in found.pictures}


def test_an_interrupted_comparison_goes_on(paths, tmp_path, monkeypatch):
    run = sys.modules["attrib.compare.run"]

    straight = attrib.compare("demo", paths, METHODS, metrics=METRICS[:2], batch_size=2)
    plain, seen = run.measure, []

    def killed(subject, items):
        seen.extend(item.id for item in items)
        if len(seen) > 3:
            raise KeyboardInterrupt
        return plain(subject, items)

    options = {"metrics": METRICS[:2], "batch_size": 2, "work": tmp_path / "work"}
    monkeypatch.setattr(run, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        attrib.compare("demo", paths, METHODS, **options)
    seen.clear()
    monkeypatch.setattr(run, "measure", lambda s, items: seen.extend(items) or plain(s, items))
    resumed = attrib.compare("demo", paths, METHODS, **options)
    assert len(seen) == COUNT - 2
    for key, outcomes in scores_of(straight).items():
        for method, scores in outcomes.items():
            assert scores_of(resumed)[key][method] == pytest.approx(scores, rel=1e-6)
    kept = resumed.pictures[0].shown
    assert torch.equal(kept.maps["cam"].values, straight.pictures[0].shown.maps["cam"].values)
    assert kept.pixels.shape == straight.pictures[0].shown.pixels.shape
    with pytest.raises(InputError, match="another job: methods was"):
        attrib.compare("demo", paths, METHODS[:2], **options)


def test_a_picture_that_cannot_be_read_is_left_out(paths, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = attrib.compare(
        "demo", [paths[0], tmp_path / "broken.png"], ["cam"], metrics=["sparseness"]
    )
    assert len(found.pictures) == 1
    assert "no picture format" in found.failed[str(tmp_path / "broken.png")]
    assert "could not be read" in (found.save(tmp_path / "x.html")).read_text()


def test_pictures_none_of_which_can_be_read_are_an_error(tmp_path):
    broken = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in broken:
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"none of 2 pictures .*a\.png.* no picture format"):
        attrib.compare("demo", broken, ["cam"], metrics=["sparseness"])
    with pytest.raises(InputError, match="none of 2 pictures could be read"):
        attrib.compare("demo", broken, ["cam"], metrics=[], work=tmp_path / "work")


def test_records_survive_the_journal(found):
    for record in found.pictures:
        line = json.loads(json.dumps(record.to_dict()))
        again = PictureRecord.from_dict(record.id, line)
        assert again.outcomes == record.outcomes or any(
            math.isnan(v) for o in record.outcomes.values() for v in o.scores.values()
        )
        assert again.shown.top == record.shown.top
        for name, small in record.shown.maps.items():
            assert torch.equal(again.shown.maps[name].values, small.values)
        drift = again.shown.pixels.int() - record.shown.pixels.int()
        assert drift.abs().float().mean() < 6  # JPEG


def test_shown_maps_are_the_heatmaps_of_explain(found, paths):
    e = attrib.explain("demo", paths[0], method="infocam+")
    small = found.pictures[0].shown.maps["infocam+"]
    assert small.values.amax() == 255
    heat = small.heatmap(tuple(e.heatmap.shape))
    assert float((heat - e.heatmap).abs().max()) < 0.02
    assert found.pictures[0].shown.target == e.label
    assert found.pictures[0].shown.top[0] == (e.label, pytest.approx(e.score))


def test_json_and_latex(found, tmp_path):
    saved = json.loads(found.save(tmp_path / "x.json").read_text())
    assert saved["schema"] == "attrib.comparison/1"
    assert [m["better"] for m in saved["metrics"]] == ["lower", "higher", "lower"]
    cell = saved["methods"][0]["scores"]["deletion(steps=4)"]
    assert cell["mean"] == found.rows[0].scores["deletion(steps=4)"].mean
    assert saved["methods"][-1]["scores"]["sparseness"]["mean"] is None
    assert saved["model"]["name"] == "demo"
    table = found.save(tmp_path / "x.tex").read_text()
    body = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + len(found.methods)
    assert {line.count("&") for line in body} == {len(METRICS) + 1}
    best = min(found.rows[:3], key=lambda row: row.scores["deletion(steps=4)"].mean)
    (bold,) = (line for line in body if re.search(r"& \\textbf", line.split("&")[1].join("&&")))
    assert bold.startswith(best.method)
    with pytest.raises(InputError, match=r"\.html, \.png, \.pdf, \.json, \.tex"):
        found.save(tmp_path / "x.gif")


def test_figures(paths, tmp_path):
    found = attrib.compare("demo", paths[0], ["cam", "gradcam(layer='no')"], metrics=["sparseness"])
    with Image.open(found.save(tmp_path / "x.png")) as picture:
        assert picture.width > picture.height
    assert found.save(tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    axes = found.plot().axes
    assert [axis.get_title() for axis in axes[1:3]] == ["cam", "gradcam(layer='no') (none)"]
    assert axes[-1].get_ylabel() == "fraction of the map's range"
    nothing = attrib.compare("demo", paths[0], ["cam"], metrics=["sparseness"], shown=0)
    with pytest.raises(InputError, match="shown=1 or more"):
        nothing.plot()


def test_the_page_needs_nothing_else_and_breaks_on_nothing(found, tmp_path):
    page = found.save(tmp_path / "x.html").read_text()
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", page)
    assert "http" not in page.replace("http-equiv", "")
    assert "{{" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["shown"]) == COUNT
    assert len(data["colours"]) == 256
    assert "stage9" in page


def test_names_cannot_inject_markup(paths, tmp_path):
    evil = "</script><script>window.hacked = 1</script>"
    labels = tuple(f"{evil}{i}" for i in range(5))
    spec = attrib.ModelSpec(name=evil, input_size=(32, 32), labels=labels)
    found = attrib.compare(make("plain"), paths[:1], ["cam"], metrics=["sparseness"], spec=spec)
    page = found.save(tmp_path / "x.html").read_text()
    assert "<script>window" not in page


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_specs_are_split_outside_parentheses():
    specs = ["cam", "infocam+(region=4, border='same')", "rib(lr=1e-3,scales=(1.0,0.5),flip=True)"]
    assert _specs(", ".join(specs)) == specs


def test_the_command(root, tmp_path):
    done = run(
        "compare", root, "--model", "demo", "--methods", "cam,gradcam(relu=False)", "--metrics",
        "deletion(steps=2),sparseness", "--out", tmp_path / "x.html", "--out", tmp_path / "x.tex",
        "--json", tmp_path / "x.json", "--limit", 2, "--work", tmp_path / "work",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert {p.name for p in tmp_path.iterdir()} == {"x.html", "x.tex", "x.json", "work"}
    saved = json.loads((tmp_path / "x.json").read_text())
    assert saved["pictures"] == 2
    mean = saved["methods"][1]["scores"]["deletion(steps=2)"]["mean"]
    assert f"{mean:.3f}" in done.output
    assert "gradcam(relu=False)" in done.output


def test_evaluate_faithfulness(root, tmp_path):
    done = run(
        "evaluate", "faithfulness", "--model", "demo", "--method", "cam,gradcam(layer='no')",
        "--metrics", "insertion(steps=2)", "--dataset", "folder", "--root", root, "--labels",
        root / "labels.csv", "--targets", "true", "--every", 2, "--json", tmp_path / "x.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    saved = json.loads((tmp_path / "x.json").read_text())
    assert (saved["pictures"], saved["targets"]) == (3, "true")
    assert "no module 'no'" in done.output
    for arguments in ([], [root, "--dataset", "folder", "--root", root]):
        wrong = run("evaluate", "faithfulness", "--model", "demo", *arguments)
        assert isinstance(wrong.exception, InputError)
    assert isinstance(run("compare", tmp_path, "--model", "demo").exception, InputError)


def test_multi_label_models_and_odd_channels():
    spec = attrib.ModelSpec(input_size=(32, 32), multi_label=True)
    picture = np.zeros((40, 30, 3), np.uint8)
    picture[5:20, 5:20] = 255
    found = attrib.compare(make("plain"), picture, ["cam", "infocam"], [[1, 3]], spec=spec)
    assert found.rows[0].pictures == 1
    assert "multi-label" in found.rows[1].error
    assert sum(p for _, p in found.pictures[0].shown.top) > 1
