import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attrib
from attrib.datasets.scenes import CLASSES, Scenes
from attrib.explanation import SCHEMA
from attrib.files import replacing
from attrib.report import Panel, figure, overlay
from tests.models import SPEC, Everything, make


@pytest.fixture(scope="module")
def model():
    return attrib.load_model("demo", device="cpu")


@pytest.fixture(scope="module")
def scene():
    return Scenes(length=1, size=(120, 150), seed=4)[0]


@pytest.fixture
def path(scene, tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(scene.image.permute(1, 2, 0).numpy()).save(path)
    return path


def test_from_a_picture_to_a_box(model, scene, path):
    before = Everything(model)
    e = attrib.explain(model, path, method="infocam+")
    before.assert_same(model)
    assert e.label == CLASSES[scene.label]
    assert e.score > 0.5
    assert e.heatmap.shape == e.mask.shape == (120, 150)
    assert (e.heatmap.min(), e.heatmap.max()) == (0, 1)
    x0, y0, x1, y1 = e.box
    assert 0 <= x0 < x1 <= 150
    assert 0 <= y0 < y1 <= 120
    assert e.mask.nonzero().amin(0).tolist() == [y0, x0]
    assert (e.mask.nonzero().amax(0) + 1).tolist() == [y1, x1]
    y, x = divmod(int(e.heatmap.argmax()), 150)
    assert scene.part[max(0, y - 12) : y + 12, max(0, x - 12) : x + 12].any()
    assert repr(e).startswith(f"<Explanation scene.png: '{e.label}'")


def test_any_kind_of_picture_gives_the_same_answer(model, scene, path):
    pixels = scene.image.permute(1, 2, 0).numpy()
    want = attrib.explain(model, path)
    for picture in (str(path), path.read_bytes(), pixels, scene.image, Image.open(path)):
        got = attrib.explain(model, picture)
        assert got.box == want.box
        assert torch.equal(got.heatmap, want.heatmap)


def test_a_list_gives_a_list_whatever_the_batch_size(model):
    scenes = Scenes(length=7, size=(80, 100), seed=1)
    pictures = [scenes[i].image for i in range(7)]
    pictures[3] = pictures[3][:, :40]
    whole = attrib.explain(model, pictures, batch_size=7)
    parts = attrib.explain(model, (p for p in pictures), batch_size=2, progress=True)
    assert len(whole) == len(parts) == 7
    for a, b in zip(whole, parts, strict=True):
        assert a.target == b.target
        torch.testing.assert_close(a.heatmap, b.heatmap, rtol=0, atol=1e-4)
    assert whole[3].heatmap.shape == (40, 100)
    assert attrib.explain(model, []) == []


def test_targets_by_name_index_and_list(model, scene):
    by_name = attrib.explain(model, scene.image, "cat")
    assert (by_name.target, by_name.label) == (CLASSES.index("cat"), "cat")
    both = attrib.explain(model, scene.image, ["duck", 2])
    assert both.labels == ("duck", CLASSES[2])
    assert len(both) == 2
    assert both.boxes(1) == [attrib.explain(model, scene.image, 2).box]
    assert sum(both.scores) <= 1
    some = attrib.explain(model, [scene.image] * 3, [["cat"], [], ["bull", "deer"]])
    assert [len(e) for e in some] == [1, 0, 2]
    multi_hot = torch.zeros(1, 8, dtype=torch.int64)
    multi_hot[0, [1, 5]] = 1
    assert attrib.explain(model, scene.image, multi_hot).targets == (1, 5)


def test_no_class_is_no_error_until_a_heatmap_is_asked_for(model, scene, tmp_path):
    e = attrib.explain(model, scene.image, [[]])
    assert e.to_dict()["results"] == []
    for suffix in ("png", "json", "npz"):
        assert e.save(tmp_path / f"e.{suffix}").stat().st_size
    with pytest.raises(attrib.AttribError, match="explained for no class"):
        _ = e.heatmap


def test_several_thresholds(model, scene):
    e = attrib.explain(model, scene.image, threshold=[0.2, 0.5, 0.9])
    areas = [r["area"] for r in e.to_dict()["results"][0]["regions"]]
    assert areas == sorted(areas, reverse=True)
    assert e.mask.sum() == areas[0]
    assert len(e.boxes(0)) == 3


def test_fit_decides_what_the_model_sees(model, scene):
    wide = torch.cat([scene.image, scene.image, scene.image], dim=2)
    cropped = attrib.explain(model, wide, fit="crop")
    assert not cropped.heatmap[:, :100].any()
    assert cropped.to_dict()["model"]["preprocessing"]["fit"] == "crop"
    padded = attrib.explain(model, wide, fit="pad")
    assert padded.heatmap.shape == (120, 450)


def test_multi_label_scores_are_sigmoids_and_contrasts_are_refused(model, scene):
    e = attrib.explain(model, scene.image, list(CLASSES), method="cam", multi_label=True)
    torch.testing.assert_close(
        torch.tensor(e.scores), e.attribution.logits[0].sigmoid(), rtol=0, atol=1e-6
    )
    with pytest.raises(attrib.AttribError, match=r"multi-label. Use 'cam', or \"infocam\+\(multi"):
        attrib.explain(model, scene.image, multi_label=True)
    method = "infocam(multi_label='difference')"
    assert attrib.explain(model, scene.image, method=method, multi_label=True).box


def test_json_is_as_documented(model, path, tmp_path):
    e = attrib.explain(model, path, ["cat", "bull"], threshold=[0.2, 0.6])
    saved = json.loads(e.save(tmp_path / "deep" / "er" / "e.json").read_text())
    assert saved == e.to_dict()
    assert saved["schema"] == SCHEMA == "attrib.explanation/1"
    assert saved["picture"] == str(path)
    assert (saved["width"], saved["height"]) == (150, 120)
    assert (saved["method"], saved["unit"], saved["exact"]) == ("infocam+", "logits", True)
    first = saved["results"][0]
    assert list(first) == ["target", "label", "score", "logit", "status", "box", "regions"]
    assert [r["threshold"] for r in first["regions"]] == [0.2, 0.6]
    assert first["box"] == first["regions"][0]["box"] == list(e.box)
    made = saved["model"]
    assert made["name"] == "demo"
    assert len(made["weights"]) == 16
    assert made["preprocessing"]["input_size"] == [96, 96]
    assert set(made["versions"]) == {"attrib", "torch", "torchvision", "timm", "python"}
    documented = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
    for name in {*saved, *first, *first["regions"][0], *made, *made["preprocessing"]}:
        assert f"`{name}`" in documented, name


def test_npz_holds_the_arrays(model, path, tmp_path):
    e = attrib.explain(model, path, ["cat", "bull"], threshold=[0.2, 0.6])
    with np.load(e.save(tmp_path / "e.npz"), allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["heatmaps"][0], e.heatmap.numpy())
        np.testing.assert_array_equal(saved["masks"][0, 0], e.mask.numpy())
        np.testing.assert_array_equal(saved["maps"], e.attribution.maps.numpy())
        assert saved["targets"].tolist() == list(e.targets)
        assert saved["masks"].shape == (2, 2, 120, 150)
        assert saved["boxes"].shape == (len(saved["map_index"]), 4)
        assert json.loads(str(saved["meta"])) == e.to_dict()


def test_png_and_notebook_display(model, path, tmp_path):
    e = attrib.explain(model, path, ["cat", "bull"])
    with Image.open(e.save(tmp_path / "e.png")) as picture:
        assert picture.size[0] > 500
    assert e._repr_png_().startswith(b"\x89PNG")
    assert e.plot()._repr_png_().startswith(b"\x89PNG")  # whether or not pyplot is there
    import matplotlib

    assert "matplotlib.pyplot" not in __import__("sys").modules or not (
        matplotlib.pyplot.get_fignums()
    )


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_the_weights_hash_changes_with_any_weight(scene):
    model = make("plain")
    first = attrib.explain(model, scene.image, spec=SPEC).to_dict()["model"]["weights"]
    assert attrib.explain(model, scene.image, spec=SPEC).to_dict()["model"]["weights"] == first
    model.features[4].running_var[3] += 1e-3
    assert attrib.explain(model, scene.image, spec=SPEC).to_dict()["model"]["weights"] != first


def test_tensors_in_tensors_out(model):
    explainer = attrib.Explainer(model, "infocam+(region=2)")
    found = explainer(torch.randn(3, 3, 96, 96), ["cat", 1, 2])
    assert found.maps.shape == (3, 13, 13)
    assert found.targets.label.tolist() == [CLASSES.index("cat"), 1, 2]
    where = attrib.localize(found, threshold=0.4)
    assert where.heatmaps[0].shape == (96, 96)
    assert repr(explainer) == "Explainer('demo', 'infocam+(region=2)')"


def test_overlay_leaves_cold_pixels_bare():
    image = torch.randint(0, 256, (3, 8, 9), dtype=torch.uint8)
    heat = torch.zeros(8, 9)
    heat[2, 3] = 1
    out = overlay(image, heat)
    bare = image.permute(1, 2, 0).numpy()
    assert (out != bare).any(2).sum() == 1
    assert (out[2, 3] != bare[2, 3]).any()


def test_figures_of_uneven_rows():
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    drawn = figure([[Panel(image=image, box=(1, 2, 5, 6))] * 3, [Panel(image=image)]])
    assert len(drawn.axes) == 6
