import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F  # noqa: N812
from typer.testing import CliRunner

import attrib
from attrib.cli import fit as fit_command
from attrib.datasets import LabelledDataset, LabelledSample
from attrib.datasets.crops import random_crop
from attrib.datasets.scenes import CLASSES, Scenes
from attrib.errors import (
    ImageError,
    InputError,
    OutputError,
    SplitError,
    UnknownNameError,
    WeightsError,
)
from attrib.fit import FitConfig, average_precision, fit_classifier, timm_classifier
from attrib.fit import training as training_module
from attrib.fit.loading import ahead, batches, generator_of, seeded
from attrib.images import Picture, preprocess, read_image
from attrib.models.split import spec_of
from attrib.types import ModelSpec

COUNT = len(CLASSES)
CONFIG = FitConfig(epochs=3, batch_size=4, lr=0.1, momentum=0.5, long_side=(40, 72), crop=48)


@dataclass(frozen=True)
class Pictures:
    """A data set as any other: files and their classes."""

    name: str
    samples: tuple[LabelledSample, ...]
    labels: tuple[str, ...] = CLASSES

    @property
    def category_ids(self):
        return tuple(range(len(self.labels)))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def mask(self, index):
        raise InputError("no masks")


def render(folder: Path, name: str, count: int, seed: int, *, single: bool = False) -> Pictures:
    """Pictures of one creature, every other one of two side by side, in many sizes."""
    samples = []
    for i in range(count):
        drawn = [Scenes(length=2, size=(48, 40 + i), seed=seed + i)[j] for j in range(2)]
        drawn = drawn[: 1 if single else 1 + i % 2]
        path = folder / f"{name}-{i}.png"
        pixels = torch.cat([scene.image for scene in drawn], 2).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path)
        labels = tuple(sorted({scene.label for scene in drawn}))
        samples.append(LabelledSample(id=path.stem, picture=path, labels=labels))
    return Pictures(name, tuple(samples))


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return render(tmp_path_factory.mktemp("train"), "train", 14, seed=0)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return render(tmp_path_factory.mktemp("single"), "single", 10, seed=50, single=True)


def tiny(seed=0, **model_args):
    torch.manual_seed(seed)
    return timm.create_model("test_resnet", num_classes=COUNT, **model_args)


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


# Crops


def literal_crop(pixels, spec, size, long_side, generator, flip):
    """Pixel by pixel: resize, mirror, then look up where each cell of the square lies."""
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    low, high = long_side
    long = int(torch.randint(low, high + 1, (), generator=generator))
    scale = long / max(image.size)
    image = image.resize(
        (int(np.round(image.width * scale)), int(np.round(image.height * scale))), Image.BICUBIC
    )
    if int(torch.randint(0, 2, (), generator=generator)) and flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out = torch.zeros(3, size, size)
    shifts = []
    for side in (image.height, image.width):
        space = int(torch.randint(0, abs(side - size) + 1, (), generator=generator))
        shifts.append(-space if side < size else space)
    for y in range(size):
        for x in range(size):
            row, column = y + shifts[0], x + shifts[1]
            if 0 <= row < image.height and 0 <= column < image.width:
                value = torch.tensor(image.getpixel((column, row))) / 255
                out[:, y, x] = (value - torch.tensor(spec.mean)) / torch.tensor(spec.std)
    return out, max(image.size)


@pytest.mark.parametrize("shape", [(30, 21), (13, 40), (24, 24)])
@pytest.mark.parametrize("flip", [True, False])
def test_crops_are_the_literal_ones(shape, flip):
    pixels = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    spec, seen = ModelSpec(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3)), set()
    for seed in range(12):
        picture, key = Picture(pixels=pixels), (seed, 1)
        got = random_crop(picture, spec, 16, (14, 17), generator_of(*key), flip)
        want, long = literal_crop(pixels, spec, 16, (14, 17), generator_of(*key), flip)
        torch.testing.assert_close(got, want)
        seen.add(long)
    assert seen == {14, 15, 16, 17}


def test_crops_of_what_cannot_be_cropped():
    picture = Picture(pixels=torch.zeros(3, 8, 8, dtype=torch.uint8))
    generator = torch.Generator()
    with pytest.raises(InputError, match="takes 1 channels"):
        random_crop(picture, ModelSpec(mean=(0.5,), std=(0.5,)), 8, (8, 8), generator)
    for size, long_side in ((0, (8, 8)), (8, (9, 8)), (8, (0, 8))):
        with pytest.raises(InputError, match="from least to greatest"):
            random_crop(picture, ModelSpec(), size, long_side, generator)


# Average precision


def literal_average_precision(scores, labels):
    """At every threshold: how much is found, and how much of that is right."""
    total, last = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        found = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        recall = sum(found) / sum(labels)
        total, last = total + (recall - last) * sum(found) / len(found), recall
    return total


def rounded_scores():
    scores = torch.randn(60, 5).mul(4).round().div(4)  # many tie
    labels = torch.rand(60, 5) < torch.tensor([0.5, 0.1, 0.9, 0.3, 0.0])
    return scores, labels


def test_average_precision_by_its_definition():
    scores, labels = rounded_scores()
    found = average_precision(scores, labels)
    assert found[4].isnan()
    for c in range(4):
        want = literal_average_precision(scores[:, c].tolist(), labels[:, c].tolist())
        assert found[c].item() == pytest.approx(want, abs=1e-12)
    right = torch.tensor([[3.0], [2.0], [1.0]])
    assert average_precision(right, torch.tensor([[True], [True], [False]])).item() == 1
    assert average_precision(-right, torch.tensor([[True], [False], [False]])).item() == (
        pytest.approx(1 / 3)
    )


def test_average_precision_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = rounded_scores()
    want = [metrics.average_precision_score(labels[:, c], scores[:, c]) for c in range(4)]
    np.testing.assert_allclose(average_precision(scores, labels)[:4], want, atol=1e-12)


def test_average_precision_of_nan():
    with pytest.raises(InputError, match="NaN among the scores"):
        average_precision(torch.tensor([[torch.nan]]), torch.tensor([[True]]))


# Reading


def test_threads_read_in_order_and_ahead_of_nothing_else():
    index = [[3, 1], [2], [0, 5, 4], [7], [6]]
    for readers in (0, 3):
        assert list(ahead(lambda i: i * i, index, readers)) == [[i * i for i in b] for b in index]

    def broken(i):
        raise ImageError(f"picture {i}")

    with pytest.raises(ImageError, match="picture 3"):
        next(ahead(broken, index, 2))


def test_batches_are_whole_unless_there_is_only_one():
    dealt = batches(11, 4, generator_of(1))
    assert [len(b) for b in dealt] == [4, 4]
    assert len({i for b in dealt for i in b}) == 8
    assert sorted(batches(3, 4, generator_of(1))[0]) == [0, 1, 2]
    assert dealt != batches(11, 4, generator_of(2))


# Training


@pytest.fixture(scope="module")
def fitted(train, tmp_path_factory):
    """A run, and everything around it that should not have changed."""
    out = tmp_path_factory.mktemp("fitted") / "out"
    args = {"output_stride": 16, "drop_rate": 0.3}
    model = tiny(**args)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    norm.eval()
    before = torch.get_rng_state()
    config = replace(CONFIG, epochs=4)
    report = fit_classifier(model, train, out=out, config=config, validation=train, model_args=args)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert not norm.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    return model.eval(), report, out, config, args


def test_the_test_set_is_one(train):
    assert isinstance(train, LabelledDataset)


def test_the_loss_falls_and_the_report_says_what_happened(fitted, train):
    _, report, out, config, args = fitted
    assert json.loads((out / "fit.json").read_text()) == json.loads(json.dumps(report))
    files = {"config.json", "fit.json", "log.jsonl", "model.safetensors"}
    assert {p.name for p in out.iterdir()} == files
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert log == [{"epoch": i, **e} for i, e in enumerate(report["history"], 1)]
    losses = [epoch["loss"] for epoch in report["history"]]
    assert len(losses) == 4
    assert losses[-1] < 0.85 * losses[0]
    assert report["config"]["long_side"] == config.long_side
    assert (report["dataset"], report["pictures"], report["model_args"]) == ("train", 14, args)
    found = [v for v in report["history"][-1]["average_precision"].values() if v is not None]
    assert report["history"][-1]["mean_average_precision"] == pytest.approx(np.mean(found))


def test_the_folder_gives_the_model_back(fitted, train):
    model, report, out, _, _ = fitted
    loaded = attrib.load_model(f"local-dir:{out}", device="cpu")
    spec = loaded.attrib_spec
    assert spec == replace(model.attrib_spec, name=spec.name, multi_label=spec.multi_label)
    assert (spec.labels, spec.input_size, spec.fit) == (CLASSES, (48, 48), "pad")
    assert model.attrib_spec.multi_label
    assert "multi-label" in loaded.pretrained_cfg["notes"]
    pictures = [read_image(sample.picture) for sample in train]
    images, _ = preprocess(pictures, spec)
    assert loaded.forward_features(images[:1]).shape[2:] == (3, 3)  # 48 / 16
    with torch.no_grad():
        logits = loaded(images)
        assert torch.equal(logits, model(images))
    labels = torch.zeros(len(train), COUNT, dtype=torch.bool)
    for row, sample in zip(labels, train, strict=True):
        row[list(sample.labels)] = True
    want = dict(zip(CLASSES, average_precision(logits, labels).tolist(), strict=True))
    for label, score in report["history"][-1]["average_precision"].items():
        assert score is None if np.isnan(want[label]) else score == pytest.approx(want[label])


def test_training_is_what_the_recipe_says(train, tmp_path):
    """SGD written out, in float64: rate, decay, momentum, head, loss, frozen statistics."""
    config = replace(CONFIG, epochs=2, weight_decay=0.01, head_factor=3.0)
    model, twin = tiny().double(), tiny().double().eval()
    frozen = "layer1.0.conv1.weight"
    model.get_parameter(frozen).requires_grad_(False)
    report = fit_classifier(model, train, out=tmp_path, config=config)
    velocity = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    losses, t, total = [], 0, 2 * (14 // 4)
    for epoch in range(2):
        for index in batches(14, 4, generator_of(config.seed, epoch)):
            images, labels = [], torch.zeros(4, COUNT, dtype=torch.float64)
            for row, i in zip(labels, index, strict=True):
                picture, generator = read_image(train[i].picture), generator_of(0, epoch, i)
                images.append(random_crop(picture, spec_of(twin), 48, (40, 72), generator))
                row[list(train[i].labels)] = 1
            p = twin(torch.stack(images).double()).sigmoid()
            loss = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
            losses.append(loss.item())
            twin.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, parameter in twin.named_parameters():
                    if name == frozen:
                        continue
                    rate = config.lr * (3 if name.startswith("fc.") else 1) * (1 - t / total) ** 0.9
                    velocity[name] = (
                        config.momentum * velocity[name] + parameter.grad + 0.01 * parameter
                    )
                    parameter -= rate * velocity[name]
            t += 1
    got, want = state_of(model), state_of(twin)
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=1e-9, atol=1e-12)
    assert [e["loss"] for e in report["history"]] == pytest.approx(
        [np.mean(losses[:3]), np.mean(losses[3:])]
    )


class Interrupted(BaseException):
    """As Ctrl-C, which would end the tests."""


def test_an_interrupted_run_ends_as_an_uninterrupted_one(fitted, train, tmp_path, monkeypatch):
    model, report, _, config, args = fitted
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 17:  # in the second epoch, in the middle of a batch
            raise Interrupted
        return random_crop(*arguments)

    def go_on(model, **changes):
        return fit_classifier(
            model,
            train,
            out=tmp_path,
            config=replace(config, **changes),
            validation=train,
            model_args=args,
        )

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "random_crop", interrupted)
        with pytest.raises(Interrupted):
            go_on(tiny(**args))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "log.jsonl"]
    with pytest.raises(InputError, match=r"other settings: lr is 0\.1 there, 0\.01 here\. Give"):
        go_on(tiny(**args), lr=0.01)

    resumed = tiny(seed=7, **args)  # threads and the weights it starts with change nothing
    again = go_on(resumed, readers=3)
    assert_same(state_of(resumed), state_of(model))
    assert again["history"] == report["history"]

    ended = tiny(seed=8, **args)
    monkeypatch.setattr(training_module, "random_crop", interrupted)
    assert go_on(ended) == json.loads(json.dumps(again))
    assert_same(state_of(ended), state_of(model))
    with pytest.raises(InputError, match="epochs is 4 there, 5 here"):
        go_on(ended, epochs=5)


@pytest.mark.parametrize("crop", [48, 160])
def test_transformers_of_any_size_come_back(train, tmp_path, crop):
    """`test_vit` is made for 160 pixels, and takes others."""
    model = timm.create_model("test_vit", num_classes=COUNT)
    config = replace(CONFIG, epochs=1, batch_size=2, crop=crop)
    few = replace(train, samples=train.samples[:2])
    fit_classifier(model, few, out=tmp_path, config=config)
    loaded = attrib.load_model(f"local-dir:{tmp_path}", device="cpu")
    assert loaded.attrib_spec.input_size == (crop, crop)
    images = torch.randn(1, 3, crop, crop)
    with torch.no_grad():
        assert torch.equal(loaded(images), model.eval()(images))


def test_folders_of_something_else(train, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OutputError, match=r"config\.json/out cannot be made a folder"):
        fit_classifier(tiny(), train, out=tmp_path / "config.json" / "out", config=CONFIG)
    with pytest.raises(InputError, match="of no training run; write to another folder"):
        fit_classifier(tiny(), train, out=tmp_path, config=CONFIG)
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged; delete it"):
        fit_classifier(tiny(), train, out=tmp_path, config=CONFIG)


def test_running_statistics_are_trained_when_asked(single, tmp_path):
    config = replace(CONFIG, epochs=1, batch_size=5, loss="cross-entropy")
    start = state_of(tiny())
    for train_norm in (False, True):
        model = tiny()
        out = tmp_path / str(train_norm)
        fit_classifier(model, single, out=out, config=replace(config, train_norm=train_norm))
        ended = state_of(model)
        for key in start:
            statistic = "running" in key or "num_batches" in key
            assert torch.equal(start[key], ended[key]) == (statistic and not train_norm), key
        assert not model.attrib_spec.multi_label


def test_cross_entropy_is_of_the_one_class(single, tmp_path):
    config = replace(CONFIG, epochs=1, batch_size=10, loss="cross-entropy", flip=False)
    model = tiny().eval()
    images, labels = [], []
    for i, sample in enumerate(single):
        picture = read_image(sample.picture)
        crop = random_crop(picture, spec_of(model), 48, (40, 72), generator_of(0, 0, i), False)
        images.append(crop)
        labels.append(sample.labels[0])
    with torch.no_grad():
        want = F.cross_entropy(model(torch.stack(images)), torch.tensor(labels)).item()
    report = fit_classifier(model, single, out=tmp_path, config=config)
    assert report["history"][0]["loss"] == pytest.approx(want, rel=1e-5)


def test_attention_based_dropout_leaves_nothing_behind(single, tmp_path, monkeypatch):
    options = {"epochs": 2, "loss": "cross-entropy", "lr": 0.01}
    with_adl = replace(CONFIG, adl=("layer3.0", "layer4"), adl_gamma=0.9, **options)
    models = {"adl": tiny(), "none": tiny(), "cut": tiny()}
    classes = [type(m) for m in models["adl"].modules()]
    report = fit_classifier(models["adl"], single, out=tmp_path / "adl", config=with_adl)
    assert report["config"]["adl"] == ("layer3.0", "layer4")
    fit_classifier(models["none"], single, out=tmp_path / "none", config=replace(CONFIG, **options))
    states = {name: state_of(model) for name, model in models.items()}
    assert states["adl"].keys() == states["none"].keys()
    assert any(not torch.equal(v, states["none"][k]) for k, v in states["adl"].items())
    assert [type(m) for m in models["adl"].modules()] == classes
    configs = [(tmp_path / name / "config.json").read_text() for name in ("adl", "none")]
    assert configs[0] == configs[1]
    loaded = attrib.load_model(f"local-dir:{tmp_path / 'adl'}", device="cpu")
    assert_same(loaded.state_dict(), states["adl"])

    crop, count = training_module.random_crop, 0

    def interrupted(*arguments):
        nonlocal count
        count += 1
        if count > 10:
            raise KeyboardInterrupt
        return crop(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "random_crop", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_classifier(models["cut"], single, out=tmp_path / "cut", config=with_adl)
    assert [type(m) for m in models["cut"].modules()] == classes
    fit_classifier(models["cut"], single, out=tmp_path / "cut", config=with_adl)
    assert_same(state_of(models["cut"]), states["adl"])
    with pytest.raises(SplitError, match=r"no module 'layer9'"):
        fit_classifier(
            tiny(), single, out=tmp_path / "no", config=replace(with_adl, adl=("layer9",))
        )


def test_what_cannot_be_trained(train, single, tmp_path):
    def refused(match, model=None, data=train, error=InputError, **options):
        config = replace(CONFIG, **options.pop("config", {}))
        with pytest.raises(error, match=match):
            fit_classifier(model or tiny(), data, out=tmp_path, config=config, **options)

    def changed(**changes):
        sample = replace(train[3], **changes)
        return replace(train, samples=(*train.samples[:3], sample))

    refused("trains timm models, got Linear", nn.Linear(3, 2))
    refused(
        f"the model has 2 outputs, train has {COUNT} classes",
        timm.create_model("test_resnet", num_classes=2),
    )
    refused(
        "set crop to a size that the model takes",
        timm.create_model("test_vit3", num_classes=COUNT),
    )
    refused("computes other logits. Pass as model_args", tiny(output_stride=8))
    refused("does not make this model again", model_args={"depth": 3})
    refused("nothing can be trained", tiny().requires_grad_(False))
    refused("'train-1' of train has 2; use loss='soft-margin'", config={"loss": "cross-entropy"})
    refused(f"'train-3' has the classes \\(0, {COUNT}\\)", data=changed(labels=(0, COUNT)))
    refused("has no pictures", data=replace(train, samples=()))
    refused("different classes", validation=replace(single, labels=CLASSES[::-1]))
    missing = tmp_path / "missing.png"
    for readers in (0, 2):
        options = {"config": {"readers": readers}}
        refused(
            f"{missing}' does not exist", data=changed(picture=missing), error=ImageError, **options
        )
    refused("loss is nan at step . of epoch 1; .* lower learning rate", config={"lr": 1e30})
    assert not list(tmp_path.iterdir())


def test_constants_that_cannot_be():
    for match, option in (
        ("epochs is a whole number of at least 1, got 0", {"epochs": 0}),
        (r"long_side is \(least, greatest\) in pixels", {"long_side": (640, 320)}),
    ):
        with pytest.raises(InputError, match=match):
            FitConfig(**option)


def test_private_randomness():
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    with seeded(torch.device("cpu"), 1, 2):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), want)
    with seeded(torch.device("cpu"), 1, 2):
        assert torch.equal(torch.rand(3), first)
    assert generator_of(1).initial_seed() != generator_of(1, 0).initial_seed()


# Models to start from


def test_timm_models_get_a_head_and_a_stride(tmp_path):
    before = torch.get_rng_state()
    model, args = timm_classifier("test_resnet", 7, output_stride=8, pretrained=False)
    same, _ = timm_classifier("test_resnet", 7, output_stride=8, pretrained=False)
    other, _ = timm_classifier("test_resnet", 7, pretrained=False, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(state_of(model), state_of(same))
    assert not torch.equal(model.fc.weight, other.fc.weight)
    assert args == {"output_stride": 8}
    assert model.forward_features(torch.rand(1, 3, 64, 64)).shape[2:] == (8, 8)
    assert model.attrib_spec.name == "test_resnet from scratch"

    torch.save(model.state_dict(), tmp_path / "seven.pt")
    kept, _ = timm_classifier("test_resnet", 7, weights=tmp_path / "seven.pt", seed=3)
    assert_same(state_of(kept), state_of(model))
    new, _ = timm_classifier("test_resnet", 3, weights=tmp_path / "seven.pt")
    assert new.fc.weight.shape[0] == 3
    assert torch.equal(new.conv1[0].weight, model.conv1[0].weight)
    with pytest.raises(WeightsError, match=r"seven\.pt does not fit the model"):
        timm_classifier("test_vit", 7, weights=tmp_path / "seven.pt")


def test_a_folder_of_timms_is_a_start(fitted):
    model, _, out, _, args = fitted
    kept, found = timm_classifier(f"local-dir:{out}", COUNT)
    assert found == args
    assert_same(state_of(kept), state_of(model))
    new, _ = timm_classifier(f"local-dir:{out}", 2)
    assert new.fc.weight.shape[0] == 2
    assert torch.equal(new.conv1[0].weight, model.conv1[0].weight)


def test_models_that_timm_cannot_make(tmp_path):
    with pytest.raises(UnknownNameError, match="test_resnet"):
        timm_classifier("test_resnat", 2)
    with pytest.raises(InputError, match=r"'test_vit' cannot be made with .*; only networks that"):
        timm_classifier("test_vit", 2, output_stride=16, pretrained=False)
    with pytest.raises(InputError, match="is 8, 16 or 32, got 7"):
        timm_classifier("test_efficientnet", 2, output_stride=7, pretrained=False)
    with pytest.raises(WeightsError, match=r"no config\.json as timm writes it"):
        timm_classifier(f"local-dir:{tmp_path}", 2)


# Command line


def test_the_command_trains(single, train, tmp_path, monkeypatch):
    asked = []

    def labelled_dataset(name, root, split, labels, classes=()):
        asked.append((name, root, split, labels, classes))
        return train if split is None else single

    monkeypatch.setattr(fit_command, "labelled_dataset", labelled_dataset)
    words = "classifier --dataset voc --root R --labels L --validation val --model test_resnet"
    numbers = "--epochs 1 --batch-size 4 --lr 0.02 --long-side 40 72 --crop 48 --device cpu"
    arguments = [*words.split(), *numbers.split(), "--out", str(tmp_path), "--output-stride", "16"]
    arguments += ["--no-pretrained"]
    done = CliRunner().invoke(fit_command.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert asked == [
        ("voc", "R", None, Path("L"), ()),
        ("voc", "R", "val", Path("L"), CLASSES),
    ]
    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["model"] == "test_resnet from scratch"
    assert report["model_args"] == {"output_stride": 16}
    assert f"epoch   1   loss {report['history'][0]['loss']:.4f}   mAP" in done.output
    assert f"local-dir:{tmp_path}" in done.output
    for given, places in (
        ("default", ["layer3.0", "layer4.0"]),
        ("layer4,act1", ["layer4", "act1"]),
    ):
        options = ["--adl", given, "--adl-gamma", "0.9", "--out", str(tmp_path / given)]
        done = CliRunner().invoke(fit_command.app, [*arguments, *options], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        config = json.loads((tmp_path / given / "fit.json").read_text())["config"]
        assert (config["adl"], config["adl_gamma"]) == (places, 0.9)
    asked.clear()
    done = CliRunner().invoke(fit_command.app, [*arguments, "--seed", "1"])
    assert isinstance(done.exception, InputError)
    assert "seed is 0 there, 1 here" in str(done.exception)
