"""Attention trained on top of a classifier, and the method that explains with it."""

import json
import math
import sys
import types
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import attrib
from attrib import surgery
from attrib.bottleneck.aib_attached import AttachedAIB, load_attached
from attrib.bottleneck.aib_quantiser import Quantiser
from attrib.cli import app
from attrib.datasets import Folder, LabelledCUB, Scenes
from attrib.datasets.scenes import CLASSES
from attrib.errors import InputError, MissingExtraError, SpecError, SplitError, WeightsError
from attrib.fit import AttentionConfig, fit_attention
from attrib.models import imprint
from tests.models import SPEC, Everything, images, make

CONFIG = AttentionConfig(epochs=2, batch_size=4, latent=8, lr=1e-2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    rows = ["path,label"]
    scenes = Scenes(length=12, size=64, seed=4)
    for i in range(len(scenes)):
        pixels = scenes[i].image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(root / f"{i}.png")
        rows.append(f"{i}.png,{CLASSES[scenes[i].label]}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def folder(root):
    return Folder(root, root / "labels.csv", classes=CLASSES)


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    classifier = attrib.split(attrib.load_model("demo", device="cpu"))
    before, out = Everything(classifier.model), tmp_path_factory.mktemp("attention")
    report = fit_attention(classifier, folder(root), out=out, config=CONFIG, progress=False)
    before.assert_same(classifier.model)
    return out, report


def test_what_is_trained_explains(trained, root):
    out, report = trained
    assert len(report["history"]) == 2
    assert report["history"][1]["loss"] < report["history"][0]["loss"]
    assert json.loads((out / "fit.json").read_text())["history"] == report["history"]
    file = out / "attention.safetensors"
    explainer = attrib.Explainer("demo", f"aib(weights={str(file)!r})")
    images = torch.rand(2, 3, 96, 96)
    before = Everything(explainer.classifier.model)
    found = explainer(images, [[0, 3], [1]])
    before.assert_same(explainer.classifier.model)
    assert (found.unit, found.maps.shape[0]) == ("attention", 3)
    assert 0 <= found.maps.min() < found.maps.max() <= 1
    assert torch.equal(found.maps[0], found.maps[1])
    e = attrib.explain("demo", root / "0.png", method=explainer.method)
    assert e.heatmap.shape == (64, 64)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(trained, root, tmp_path, monkeypatch):
    from attrib.fit import attached as module

    whole, read, count = trained[0], module.read_image, 0

    def interrupted(path):
        nonlocal count
        count += 1
        if count > 16:
            raise KeyboardInterrupt
        return read(path)

    classifier = attrib.split(attrib.load_model("demo", device="cpu"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_attention(classifier, folder(root), out=tmp_path, config=CONFIG)
    assert (tmp_path / "checkpoint.pt").exists()
    fit_attention(classifier, folder(root), out=tmp_path, config=CONFIG)
    name = "attention.safetensors"
    assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    other = AttentionConfig(epochs=2, batch_size=4, latent=8, lr=1e-2, beta=1)
    with pytest.raises(InputError, match=r"beta is 0\.01 there, 1 here"):
        fit_attention(classifier, folder(root), out=tmp_path, config=other)


def test_mistakes(trained, root):
    with pytest.raises(SpecError, match=r"aib\(weights='FILE'\)"):
        attrib.Explainer("demo", "aib")(torch.rand(1, 3, 96, 96))
    model = attrib.load_model("demo")
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    method = f"aib(weights={str(trained[0] / 'attention.safetensors')!r})"
    explainer = attrib.Explainer(model, method)
    with pytest.raises(WeightsError, match="was trained on 'demo'"):
        explainer(torch.rand(1, 3, 96, 96))
    classifier = attrib.split(attrib.load_model("demo"))
    wide = Folder(root, root / "labels.csv", classes=(*CLASSES, "more"))
    with pytest.raises(InputError, match="9 classes, demo only 8"):
        fit_attention(classifier, wide, out=root / "no")


def test_what_was_loaded_is_not_taken_for_what_is_there(trained, root, tmp_path):
    """A file that is written anew is read anew; weights that change in place are noticed."""
    file, images = tmp_path / "attention.safetensors", torch.rand(1, 3, 96, 96)
    file.write_bytes((trained[0] / "attention.safetensors").read_bytes())
    model = attrib.load_model("demo", device="cpu")
    explainer = attrib.Explainer(model, f"aib(weights={str(file)!r})")
    before = explainer(images).maps
    assert torch.equal(explainer(images).maps, before)
    other = AttachedAIB(explainer.classifier, latent=8, seed=3)
    other.save(file)
    with torch.no_grad():
        want = other.attention_map(images)
    assert not torch.equal(want, before)
    assert torch.equal(explainer(images).maps, want)
    model.head.bias.data[0] += 1e-3  # torch does not count this change
    with pytest.raises(WeightsError, match="was trained on 'demo'"):
        explainer(images)
    model.head.bias.data[0] -= 1e-3
    file.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        explainer(images)


@pytest.mark.parametrize("name", ["plain", "in-place", "twice", "shared-relu"])
@pytest.mark.parametrize("layer", ["", "features.2"])
def test_one_pass_gives_the_grid_and_the_logits_that_two_do(name, layer):
    """Also where the layer runs again later: of a shared module the first output counts."""
    model = make(name)
    classifier = attrib.split(model, spec=SPEC)
    found = classifier.features_at(images(), layer)
    torch.testing.assert_close(found.grid, classifier.grid_at(images(), layer))
    torch.testing.assert_close(found.logits, classifier.predict(images()))
    with pytest.raises(SplitError, match="has no grid over the picture"):
        classifier.features_at(images(), "fc")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.fc.bias.data[0].add_(1e-6),
        lambda m: m.features[1].running_mean.data[-1].mul_(1.001),
        lambda m: m.fc.weight.detach().copy_(m.fc.weight.flip(1)),  # the sum stays
        lambda m: m.double(),
    ],
)
def test_an_imprint_tells_every_change(change):
    model = make("plain")
    first = imprint(model)
    model.eval()(images())
    assert imprint(model) == first
    change(model)
    assert imprint(model) != first


def test_attention_at_an_earlier_layer(root, tmp_path):
    """As a gate: what the file says is what is explained, on that layer's grid."""
    classifier = attrib.split(attrib.load_model("demo", device="cpu"))
    layer = "features.stage1"
    config = AttentionConfig(
        epochs=1, batch_size=4, latent=8, layer=layer, modulation="gate", lr=1e-2
    )
    before = Everything(classifier.model)
    fit_attention(classifier, folder(root), out=tmp_path, config=config)
    before.assert_same(classifier.model)
    file = tmp_path / "attention.safetensors"
    attached = load_attached(file, classifier)
    assert (attached.layer, attached.aib.modulation) == (layer, "gate")
    images = torch.rand(2, 3, 96, 96)
    explainer, runs = attrib.Explainer("demo", f"aib(weights={str(file)!r})"), []
    explainer(images[:1])  # reads the file
    hook = explainer.classifier.model.register_forward_hook(lambda *_: runs.append(1))
    found = explainer(images, [1, 2])
    hook.remove()
    assert len(runs) == 1
    with torch.no_grad():
        grid = surgery.run_until(classifier.model, layer, images)
        want = attached.aib.attention.mean(grid)[:, 0]
    torch.testing.assert_close(found.maps, want)
    assert found.maps.shape[1] > classifier.forward(images).grid.shape[2]
    torch.testing.assert_close(found.logits, classifier.forward(images).logits)
    with pytest.raises(SplitError, match="no module 'nowhere'"):
        AttachedAIB(classifier, layer="nowhere")


def test_the_objective_is_the_one_asked_for(root, tmp_path):
    """Terms of one step on one batch, from the same weights and noise."""
    classifier = attrib.split(attrib.load_model("demo", device="cpu"))
    common = {"epochs": 1, "batch_size": 12, "latent": 8, "anchors": 5, "lr": 1e-2}

    def step(**options):
        config = AttentionConfig(**common, **options)
        out = tmp_path / "-".join(options)
        return fit_attention(classifier, folder(root), out=out, config=config)["history"][0]

    paper, bits = step(), step(units="bits", beta=0.5)
    ln2 = math.log(2)
    assert bits["kl"] == pytest.approx(paper["kl"] / ln2, rel=1e-5)
    assert bits["cross_entropy"] == pytest.approx(paper["cross_entropy"] / ln2, rel=1e-5)
    code = step(objective="official", lambda_q=2.0, lambda_c=3.0, distance="sum")
    assert code["cross_entropy"] == pytest.approx(bits["cross_entropy"], rel=1e-5)
    assert code["kl"] != pytest.approx(bits["kl"], rel=0.05)  # exp(std) for std
    assert code["vq"] > 4 * paper["vq"] > 0
    want = code["cross_entropy"] + 0.01 * code["kl"] + 2 * code["vq"] + 3 * code["commit"]
    assert code["loss"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("ratio", [1e-4, 1.0])
def test_anchors_learn_at_their_own_rate(root, tmp_path, ratio):
    classifier = attrib.split(attrib.load_model("demo", device="cpu"))
    config = AttentionConfig(
        epochs=1, batch_size=4, latent=8, anchors=5, lr=1e-2, anchor_ratio=ratio
    )
    fit_attention(classifier, folder(root), out=tmp_path, config=config)
    aib = load_attached(tmp_path / "attention.safetensors", classifier).aib
    (anchors,) = (m.anchors for m in aib.modules() if isinstance(m, Quantiser))
    moved = (anchors.flatten() - torch.linspace(0, 1, 5)).abs().max().item()
    steps = [0.5 * (1 + math.cos(math.pi * i / 3)) for i in range(3)]
    assert 0.2 * ratio * 1e-2 < moved < 1.5 * ratio * 1e-2 * sum(steps)


def test_lower_precision_trains_too(root, tmp_path):
    classifier = attrib.split(attrib.load_model("demo", device="cpu"))
    config = AttentionConfig(epochs=1, batch_size=4, latent=8, bfloat16=True)
    report = fit_attention(classifier, folder(root), out=tmp_path, config=config)
    assert 0 < report["history"][0]["loss"] < 10


def test_tensorboard_is_an_extra(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    classifier = attrib.split(attrib.load_model("demo", device="cpu"))
    with pytest.raises(MissingExtraError, match=r"attrib\[fit\]"):
        fit_attention(classifier, folder(root), out=tmp_path, config=CONFIG, tensorboard=True)


def test_tensorboard_gets_what_the_log_gets(root, tmp_path, monkeypatch):
    class Board:
        seen: ClassVar = []

        def __init__(self, folder):
            assert folder == str(tmp_path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def add_scalar(self, key, value, epoch):
            self.seen.append((key, value, epoch))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Board
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    classifier = attrib.split(attrib.load_model("demo", device="cpu"))
    report = fit_attention(classifier, folder(root), out=tmp_path, config=CONFIG, tensorboard=True)
    want = [(k, v, i) for i, entry in enumerate(report["history"]) for k, v in entry.items()]
    assert want == Board.seen


def test_tensorboard_reads_what_is_written(root, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of what it imports
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        classifier = attrib.split(attrib.load_model("demo", device="cpu"))
        report = fit_attention(
            classifier, folder(root), out=tmp_path, config=CONFIG, tensorboard=True
        )
        events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(report["history"][0])
    for key in report["history"][0]:
        found = [(event.step, event.value) for event in events.Scalars(key)]
        want = [(i, pytest.approx(entry[key])) for i, entry in enumerate(report["history"])]
        assert found == want


def test_the_command(root, tmp_path):
    data = ["--data", str(root), "--labels", str(root / "labels.csv"), "--objective", "official"]
    options = ["--model", "demo", "--epochs", "1", "--batch-size", "4", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["fit", "aib", *data, *options])
    assert done.exit_code == 0, done.output
    assert "epoch   1   loss" in done.output
    assert (tmp_path / "attention.safetensors").exists()
    assert json.loads((tmp_path / "fit.json").read_text())["config"]["objective"] == "official"


@pytest.mark.parametrize("command", ["classifier", "aib", "ib-mask", "aib-network"])
@pytest.mark.parametrize(
    ("given", "got"),
    [
        (["--data", "x", "--root", "y"], "got --data and --root"),
        (["--dataset", "folder"], "got --dataset"),
        ([], "got nothing"),
    ],
)
def test_pictures_are_named_once(command, given, got, tmp_path):
    model = [] if command == "aib-network" else ["--model", "demo"]
    options = ["fit", command, *model, "--out", str(tmp_path), *given]
    done = CliRunner().invoke(app, options)
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("pictures are named by --data FOLDER or by --dataset")
    assert str(done.exception).endswith(got)


def test_cub_as_pictures_with_classes(tmp_path):
    lists = {
        "images": "1 001.A/x.jpg\n2 002.B/y.jpg",
        "classes": "1 001.A\n2 002.B",
        "image_class_labels": "1 1\n2 2",
        "bounding_boxes": "1 0 0 2 2\n2 0 0 2 2",
        "train_test_split": "1 1\n2 1",
    }
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text + "\n")
    for path in ("001.A/x.jpg", "002.B/y.jpg"):
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images" / path)
    data = LabelledCUB(tmp_path)
    assert [data[i].id for i in range(len(data))] == ["001.A/x", "002.B/y"]
    assert [data[i].labels for i in range(2)] == [(0,), (1,)]
    assert data[1].picture.exists()
    with pytest.raises(InputError, match="boxes and no masks"):
        data.mask(0)
