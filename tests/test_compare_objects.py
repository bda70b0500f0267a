"""Localisation in the table of a comparison: the figures are those of `attrib evaluate wsol`."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from attrib.cli.box_data import BoxSource
from attrib.cli.compare import _pictures
from attrib.compare import PictureRecord
from attrib.compare.table import RESAMPLES
from attrib.datasets import Scenes, ScenesWithBoxes
from attrib.errors import InputError, SpecError, UnknownNameError
from attrib.evaluate import evaluate_wsol
from attrib.metrics import METRICS, OBJECT_METRICS, resolve_score, wsol_protocols
from tests.test_wsol import write_cub

COUNT = 7
METHODS = ["cam", "infocam+", "input-x-gradient"]
NAMES = ["gt-known", "top-1", "maxboxacc", "maxboxaccv2", "pointing", "pxap"]


class WithoutMasks:
    """Scenes with boxes, of which some pictures may differ."""

    def __init__(self, changed=()):
        self._scenes, self._changed = scenes(), changed
        self.name, self.labels = "boxes", self._scenes.labels

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        sample = replace(self._scenes[index], mask=None)
        moved = sample.boxes + 5 if index in self._changed else sample.boxes
        return replace(sample, boxes=moved)


def scenes():
    return ScenesWithBoxes(Scenes(length=COUNT, size=(72, 96), seed=1))


@pytest.fixture(scope="module")
def found():
    return attrib.compare("demo", scenes(), METHODS, "true", metrics=NAMES, batch_size=3, shown=1)


def test_the_figures_are_those_of_the_protocols(found):
    for row in found.rows:
        by = evaluate_wsol(attrib.Explainer("demo", row.method), scenes(), wsol_protocols("all"))[
            "protocols"
        ]
        want = {
            "gt-known": by["infocam"]["gt_known_loc"],
            "top-1": by["infocam"]["top1_loc"],
            "maxboxacc": by["maxboxacc"]["oracle"]["maxboxacc"],
            "maxboxaccv2": by["maxboxaccv2"]["oracle"]["maxboxaccv2"],
            "pointing": by["pointing"]["hits"],
            "pxap": by["pxap"]["pxap"],
        }
        assert {name: 100 * cell.mean for name, cell in row.scores.items()} == pytest.approx(want)
        for name in ("maxboxacc", "maxboxaccv2"):
            thresholds = tuple(iou["threshold"] for iou in by[name]["oracle"]["ious"])
            assert row.scores[name].oracle == thresholds
        assert row.scores["gt-known"].oracle == ()
    assert len({row.scores["maxboxacc"].mean for row in found.rows}) > 1


def test_intervals_choose_the_threshold_anew_in_every_draw(found):
    row = found.rows[0]
    rights = [r.outcomes["cam"].rows["maxboxacc"] for r in found.pictures]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, COUNT, (RESAMPLES, COUNT), generator=generator).tolist()
    best = []
    for pictures in drawn:
        shares = [sum(rights[i][t] for i in pictures) / COUNT for t in range(100)]
        best.append(max(shares))
    low, high = torch.tensor(best, dtype=torch.float64).quantile(
        torch.tensor([0.025, 0.975]).double()
    )
    assert (row.scores["maxboxacc"].low, row.scores["maxboxacc"].high) == pytest.approx(
        (float(low), float(high))
    )


def test_a_picture_has_its_own_score(found):
    for record in found.pictures:
        outcome = record.outcomes["cam"]
        assert outcome.scores["maxboxacc"] == max(outcome.rows["maxboxacc"])
        assert outcome.scores["pointing"] in (0, 1)
        assert len(outcome.rows["maxboxaccv2"]) == 300
        assert sum(outcome.rows["pxap"]) == 224 * 224


def test_what_metrics_need():
    with pytest.raises(InputError, match=r"gt-known scores .* targets='true'"):
        attrib.compare("demo", scenes(), ["cam"], metrics=["gt-known"])
    with pytest.raises(InputError, match="a data set that knows them"):
        attrib.compare("demo", torch.rand(3, 64, 64), ["cam"], metrics=["pointing", "sparseness"])
    row = attrib.compare("demo", WithoutMasks(), ["cam"], "true", metrics=["pxap", "top-1"]).rows[0]
    assert "has no mask" in row.notes["pxap"]
    assert math.isnan(row.scores["pxap"].mean)
    assert row.scores["top-1"].pictures == COUNT


def test_metrics_share_what_they_localise_alike(monkeypatch):
    calls = []
    for place in ("infocam.infocam_boxes", "maxboxacc.best_ious", "wsol_batch.normalize"):
        module, _, name = place.partition(".")
        module = sys.modules[f"attrib.metrics.{module}"]
        plain = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *a, name=name, plain=plain, **k: calls.append(name) or plain(*a, **k),
        )
    names = ["gt-known", "gt-known(iou=0.3)", "top-1", "maxboxacc", "maxboxacc(iou=0.7)", "pxap"]
    found = attrib.compare("demo", scenes(), ["cam"], "true", metrics=names, limit=2)
    assert sorted(calls) == ["best_ious", "infocam_boxes", "normalize"]
    for name, cell in found.rows[0].scores.items():
        alone = attrib.compare("demo", scenes(), ["cam"], "true", metrics=[name], limit=2)
        assert cell == alone.rows[0].scores[name]
    calls.clear()
    attrib.compare(
        "demo", scenes(), ["cam"], "true", metrics=["gt-known", "gt-known(threshold=0.3)"], limit=2
    )
    assert calls == ["infocam_boxes"] * 2


def test_faithfulness_of_a_data_set_of_objects():
    data, names = scenes(), ["sparseness"]
    true, likely = (
        attrib.compare("demo", data, ["cam"], kind, metrics=names, limit=3)
        for kind in ("true", "predicted")
    )
    assert [r.shown.target for r in true.pictures] == [data.labels[data[i].label] for i in range(3)]
    assert likely.targets == "predicted"
    for shown, i in ((r.shown, i) for c in (true, likely) for i, r in enumerate(c.pictures)):
        assert shown.truth == (data.labels[data[i].label],)
        assert shown.boxes == tuple(map(tuple, data[i].boxes.tolist()))
    line = json.loads(json.dumps(true.pictures[0].to_dict()))
    again = PictureRecord.from_dict(true.pictures[0].id, line).shown
    assert (again.truth, again.boxes) == (
        true.pictures[0].shown.truth,
        true.pictures[0].shown.boxes,
    )


def test_classes_that_are_not_the_models_are_not_called_true():
    class Other(WithoutMasks):
        def __init__(self):
            super().__init__()
            self.labels = tuple(f"kind {i}" for i in range(len(self.labels)))

    found = attrib.compare("demo", Other(), ["cam"], metrics=["sparseness"], limit=1)
    assert found.pictures[0].shown.truth == ()
    with pytest.raises(InputError, match="class names differ"):
        attrib.compare("demo", Other(), ["cam"], "true", metrics=["sparseness"])


def test_metrics_of_both_kinds_by_name():
    assert set(METRICS).isdisjoint(OBJECT_METRICS)
    assert set(OBJECT_METRICS) == set(NAMES)
    with pytest.raises(UnknownNameError, match="did you mean 'gt-known'"):
        resolve_score("gtknown")
    with pytest.raises(InputError, match="interval between thresholds"):
        resolve_score("maxboxacc(interval=0)")
    with pytest.raises(SpecError, match="at least 0"):
        resolve_score("pointing(tolerance=-1)")
    wide = resolve_score("pointing(tolerance=40)")
    assert resolve_score(wide) is wide


def test_a_folder_grows_and_notices_other_objects(tmp_path, monkeypatch):
    run = sys.modules["attrib.compare.run"]
    plain, seen = run.measure, []
    monkeypatch.setattr(
        run, "measure", lambda s, items: seen.extend(i.id for i in items) or plain(s, items)
    )

    def compared(data, **options):
        seen.clear()
        return attrib.compare(
            "demo", data, ["cam"], "true", metrics=["gt-known", "maxboxacc"], shown=1,
            work=tmp_path / "work", **options,
        )  # fmt: skip

    compared(WithoutMasks(), every=3)
    ids = [WithoutMasks()[i].id for i in range(COUNT)]
    assert seen == ids[::3]
    grown = compared(WithoutMasks())
    assert seen == [key for key in ids if key not in ids[::3]]
    fresh = attrib.compare(
        "demo", WithoutMasks(), ["cam"], "true", metrics=["gt-known", "maxboxacc"]
    )
    assert grown.rows[0].scores == fresh.rows[0].scores
    assert [r.shown is not None for r in grown.pictures] == [True] + [False] * (COUNT - 1)
    compared(WithoutMasks(changed=[2]))
    assert seen == [ids[2]]


def test_the_oracle_is_named_wherever_a_score_is_shown(found, tmp_path):
    at = found.rows[0].scores["maxboxacc"].oracle[0]
    table = found.save(tmp_path / "x.tex").read_text()
    assert f"% maxboxacc, the oracle's threshold: cam {at:.2f}; infocam+ " in table
    assert "% gt-known" not in table
    page = found.save(tmp_path / "x.html").read_text()
    assert f"oracle {at:.2f}" in page
    assert '"rows"' not in page
    saved = json.loads(found.save(tmp_path / "x.json").read_text())
    assert saved["methods"][0]["scores"]["maxboxacc"]["oracle"] == [at]


def test_the_command(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(
            app, ["compare", "--model", "demo", "--methods", "cam,rollout", *map(str, arguments)]
        )

    done = run(
        "--dataset", "scenes", "--targets", "true", "--limit", 3, "--json", tmp_path / "x.json",
        "--metrics", "maxboxacc,top-1,deletion(steps=2)", "--work", tmp_path / "work",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    scores = json.loads((tmp_path / "x.json").read_text())["methods"][0]["scores"]
    assert f"{scores['maxboxacc']['mean']:.3f}" in done.output
    assert f"oracle {scores['maxboxacc']['oracle'][0]:.2f}" in done.output
    assert "rollout failed on 3 pictures: ModelError" in done.output
    wrong = run("--dataset", "folder", "--root", tmp_path, "--metrics", "top-1")
    assert isinstance(wrong.exception, UnknownNameError)
    wrong = run("--dataset", "cub", "--root", tmp_path, "--masks", tmp_path)
    assert "for metrics of true objects" in str(wrong.exception)


def test_the_split_that_is_scored_does_not_depend_on_the_metrics(tmp_path):
    write_cub(tmp_path)
    model, source = attrib.load_model("demo"), BoxSource(name="cub", root=tmp_path)
    for metric in ("sparseness", "gt-known"):
        for split, count in ((None, 3), ("train", 1)):
            assert len(_pictures(None, source, split, None, model, [metric])) == count


def test_maps_and_seconds_without_metrics(tmp_path):
    found = attrib.compare("demo", torch.rand(3, 64, 64), ["cam"], metrics=())
    assert (found.extent, found.rows[0].scores) == ("1 picture", {})
    assert "on 1 picture by no metric" in repr(found)
    assert "1 picture;" in found.save(tmp_path / "x.html").read_text().replace("\n", " ")
    assert found.save(tmp_path / "x.tex").read_text().startswith("% 1 picture, predicted classes")
