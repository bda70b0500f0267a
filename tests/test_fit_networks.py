"""The AIB paper's networks trained from scratch, with attention and without."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812
from typer.testing import CliRunner

import attrib
from attrib.bottleneck.aib_classifier import NetworkPlan, load_network
from attrib.bottleneck.aib_module import AIBNetwork
from attrib.bottleneck.aib_networks import scaled, vgg32
from attrib.bottleneck.aib_recipe import CUB_VGG16, VGG32, compressed, lr_at
from attrib.bottleneck.aib_variants import PlainNetwork, make_network, published_anchors
from attrib.cli import app
from attrib.datasets import InMemory, Scenes
from attrib.datasets.scenes import CLASSES
from attrib.errors import InputError, ModelError, SpecError, UnknownNameError, WeightsError
from attrib.fit import NetworkConfig, fit_network, load_features, top1_error
from attrib.fit import networks as module
from tests.models import Everything

CONFIG = NetworkConfig(width=1 / 32, latent=8, epochs=2, batch_size=8)
VARIANTS = ["plain", "dvib", "aib", "aib-qt"]


def pictures(count, seed=1, name="scenes"):
    scenes = Scenes(length=count, size=32, seed=seed)
    return InMemory(
        name=name,
        labels=CLASSES,
        pixels=torch.stack([scenes[i].image for i in range(count)]),
        classes=torch.tensor([scenes[i].label for i in range(count)]),
    )


@pytest.fixture(scope="module")
def train():
    return pictures(20)


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    out = tmp_path_factory.mktemp("networks")
    test = pictures(8, seed=2)
    return {
        variant: (
            out / variant,
            *fit_network(
                train, out=out / variant, config=replace(CONFIG, variant=variant), test=test
            ),
        )
        for variant in VARIANTS
    }


def test_width_multiplies_the_channels():
    assert scaled((64, 0, 3), 0.125) == (8, 0, 1)
    assert scaled((64, 0, 3), 1) == (64, 0, 3)
    with pytest.raises(InputError, match="positive factor on the channels, got 0"):
        vgg32(width=0)
    with torch.device("meta"):
        half = make_network("vgg32", width=0.5)
        convolutions = [m for m in half.modules() if isinstance(m, nn.Conv2d)]
        assert max(m.out_channels for m in convolutions) == 256
        wide = make_network("wrn28_10", width=0.1, classes=7)
        assert wide(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 7)
        cub = make_network("cub_vgg16", "aib-qt", 5, width=0.25)
        assert cub(torch.zeros(1, 3, 224, 224)).attention.maps.shape == (1, 1, 1, 14, 14)


@pytest.mark.parametrize("network", ["vgg32", "wrn28_10"])
def test_variants_begin_with_the_same_weights(network):
    made = {v: make_network(network, v, 4, width=1 / 32, latent=6, seed=5) for v in VARIANTS}
    want = made["aib"].state_dict()
    state = torch.get_rng_state()
    again = make_network(network, "aib", 4, width=1 / 32, latent=6, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(again[key], want[key]) for key in want)
    plain = made["plain"].state_dict()
    assert plain.keys() == {
        k.removeprefix("aib.") for k in want if not k.startswith("aib.attention")
    }
    for key, value in plain.items():
        there = want[key if key.startswith("features") else f"aib.{key}"]
        assert torch.equal(value, there[: len(value)] if value.ndim else there), key
    anchors = made["aib-qt"].aib.attention.quantiser.anchors
    assert len(anchors) == published_anchors(network, 4) == {"vgg32": 20, "wrn28_10": 50}[network]
    with pytest.raises(UnknownNameError, match="did you mean 'aib-qt'"):
        make_network(network, "aib-q")
    with pytest.raises(UnknownNameError, match="unknown network 'vgg'"):
        make_network("vgg")


def test_published_anchors():
    rows = [published_anchors(n, c) for n in ("vgg32", "wrn28_10") for c in (10, 100)]
    assert rows == [20, 50, 50, 20]


def test_no_attention_lets_features_pass():
    network = make_network("vgg32", "dvib", 4, width=1 / 32, latent=6).eval()
    images = torch.randn(2, 3, 32, 32)
    features = network.features(images)
    output = network.aib(features, network.aib.still(features))
    assert output.attention.maps.eq(0).all()
    statistics = network.aib.encode(features)
    torch.testing.assert_close(output.latent_mean[0], statistics[:, :6])
    torch.testing.assert_close(output.logits, network.aib.decode(statistics[:, :6]))
    assert network.attention_map(images).eq(0).all()
    assert not any(key.startswith("aib.attention") for key in network.state_dict())


def test_recipes_of_other_lengths():
    short = compressed(VGG32, 20)
    assert [lr_at(short, e) for e in range(3)] == pytest.approx([0.01, 0.1, 0.05])
    assert lr_at(short, 19) == pytest.approx(0.1 * 0.5**7)
    assert compressed(VGG32, 200) == VGG32
    assert lr_at(compressed(VGG32, 1), 0) == 0.1  # no time to warm up
    assert len(compressed(CUB_VGG16, 10).milestones) == 199
    with pytest.raises(InputError, match="epochs are 1 or more, got 0"):
        compressed(VGG32, 0)
    assert NetworkConfig(variant="aib-qt").recipe.warmup == (0.001, 0.01)
    assert NetworkConfig(lr=0.05, batch_size=7).recipe == replace(VGG32, lr=0.05, batch_size=7)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_and_is_tested(trained, variant):
    out, classifier, report = trained[variant]
    history = report["history"]
    assert len(history) == 2
    assert history[1]["loss"] < history[0]["loss"]
    assert ("kl" in history[0]) == (variant != "plain")
    assert (history[0].get("vq", 0) > 0) == (variant == "aib-qt")
    assert json.loads((out / "fit.json").read_text())["error"] == report["error"]
    assert report["config"]["variant"] == variant
    assert not classifier.training
    assert history[1]["test_error"] == top1_error(classifier, pictures(8, seed=2))


def test_the_error_is_that_of_a_loop(trained, train):
    classifier = trained["aib"][1]
    network, spec = classifier.network, classifier.attrib_spec
    mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    wrong = 0
    for i in range(len(train)):
        image = (train.pixels[i].float() / 255 - mean) / std
        f = network.features(image[None])
        a = torch.sigmoid(network.aib.attention.mean[0](f))
        statistics = network.aib.encode(f * (1 + a))
        logits = network.aib.decode(statistics[:, : network.aib.latent])
        torch.testing.assert_close(classifier(image[None]), logits, rtol=1e-4, atol=1e-4)
        wrong += int(logits.argmax()) != int(train.classes[i])
    assert top1_error(classifier, train) == 100 * wrong / len(train)


def test_test_samples_are_seeded(trained, train):
    classifier = trained["aib-qt"][1]
    before, state = Everything(classifier), torch.get_rng_state()
    errors = [top1_error(classifier, train, (2, 3), seed=s) for s in (0, 0)]
    assert errors[0] == errors[1]
    before.assert_same(classifier)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_step_is_the_recipes(tmp_path):
    """One epoch of one batch as it is: the weights move by the rate times gradient and decay."""
    train = pictures(8, seed=4)
    config = NetworkConfig(
        variant="plain", width=1 / 32, latent=8, epochs=1, batch_size=8, pad=0, flip=False, seed=2
    )
    network = config.plan.make(8, seed=2).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v)[:, None, None] for v in (train.spec.mean, train.spec.std))
    images = (train.pixels.float() / 255 - mean) / std
    before = dict(network.named_parameters())
    loss = F.cross_entropy(network.train()(images), train.classes)
    gradients = torch.autograd.grad(loss, list(before.values()))
    trained = dict(fit_network(train, out=tmp_path, config=config)[0].network.named_parameters())
    for (key, value), gradient in zip(before.items(), gradients, strict=True):
        moved = (value - trained[key]).detach() / 0.1
        atol = 0.05 * gradient.abs().max().item() + 2e-3  # narrow norms amplify rounding
        torch.testing.assert_close(
            moved, (gradient + 5e-4 * value).detach(), rtol=0, atol=atol, msg=key
        )


@pytest.mark.parametrize("network", ["vgg32", "cub_vgg16"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(network, tmp_path, monkeypatch):
    """The second network is tested with a moving average, which has to go on too."""
    train = pictures(16, seed=3)
    config = replace(CONFIG, network=network, variant="aib-qt", batch_size=8)
    whole, _ = fit_network(train, out=tmp_path / "whole", config=config)
    steps = 0

    def interrupted(*arguments):
        nonlocal steps
        steps += 1
        if steps > 3:
            raise KeyboardInterrupt
        return random_shift(*arguments)

    random_shift = module.random_shift
    with monkeypatch.context() as patch:
        patch.setattr(module, "random_shift", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_network(train, out=tmp_path / "cut", config=config)
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    _, report = fit_network(train, out=tmp_path / "cut", config=config)
    files = [tmp_path / name / "network.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    loaded, same = fit_network(train, out=tmp_path / "cut", config=config)  # had ended
    assert same["history"] == report["history"]
    for a, b in zip(whole.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(InputError, match=r"beta is 0\.01 there, 0\.5 here"):
        fit_network(train, out=tmp_path / "cut", config=replace(config, beta=0.5))


def test_the_moving_average(tmp_path):
    """It is what is tested and kept, and not the last weights, which are kept beside it."""
    config = NetworkConfig(
        network="cub_vgg16", width=1 / 64, latent=4, epochs=1, batch_size=8, variant="plain"
    )
    train = pictures(16, seed=3)
    averaged = fit_network(train, out=tmp_path, config=config)[0].network
    assert not (tmp_path / "checkpoint.pt").exists()
    kept = load_network(tmp_path / "network.safetensors").network.state_dict()
    for key, value in averaged.state_dict().items():
        assert torch.equal(kept[key], value)
    both = load_file(tmp_path / "model.safetensors")
    key = "decode.2.weight"
    assert both["average.n_averaged"] == 2
    last, average = both[f"network.{key}"], both[f"average.module.{key}"]
    assert not torch.equal(last, average)
    assert torch.equal(average, kept[key])


def test_saved_networks_are_models(trained, train):
    images = torch.randn(3, 3, 32, 32)
    for variant, (out, classifier, _) in trained.items():
        model = attrib.load_model(f"aib:{out / 'network.safetensors'}", device="cpu")
        for name, value in classifier.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name
        torch.testing.assert_close(model(images), classifier(images))  # laid out differently
        assert model.attrib_spec == classifier.attrib_spec
        assert model.attrib_spec.labels == CLASSES
        assert model.attends == (variant in ("aib", "aib-qt"))
    assert "x0.03125" in model.attrib_spec.name
    with pytest.raises(InputError, match="comes with its own classes"):
        attrib.load_model(f"aib:{out / 'network.safetensors'}", num_classes=3)


def test_files_that_are_no_networks(trained, tmp_path):
    path = trained["aib"][0] / "network.safetensors"
    save_file(load_file(path), tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="holds no network with attention"):
        load_network(tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        attrib.load_model(f"aib:{tmp_path / 'absent'}")
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    tensors.pop("aib.decode.0.bias")
    save_file(tensors, tmp_path / "less.safetensors", metadata=header)
    with pytest.raises(WeightsError, match=r"is damaged.*decode\.0\.bias"):
        load_network(tmp_path / "less.safetensors")


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_in_itself_explains(trained, train, variant):
    out = trained[variant][0]
    explainer = attrib.Explainer(f"aib:{out / 'network.safetensors'}", "aib")
    model = explainer.classifier.model
    images = torch.randn(2, 3, 32, 32)
    if variant in ("plain", "dvib"):
        with pytest.raises(SpecError, match="has no attention in itself"):
            explainer(images)
        with pytest.raises(ModelError, match="has no attention map"):
            model.attention(images)
        return
    before = Everything(model)
    found = explainer(images, [[0, 3], [1]])
    before.assert_same(model)
    assert found.maps.shape == (3, 16, 16)
    assert torch.equal(found.maps[0], found.maps[1])
    torch.testing.assert_close(found.maps[1:], model.network.attention_map(images))
    torch.testing.assert_close(found.logits, model(images))
    e = attrib.explain(model, train.pixels[0], method="aib")
    assert e.heatmap.shape == (32, 32)
    gradients = attrib.Explainer(model, "gradcam(layer='network.features')")(images)
    assert gradients.maps.shape == (2, 16, 16)


def test_features_begin_with_published_weights(tmp_path):
    network = make_network("cub_vgg16", classes=3, width=1 / 32, seed=1)
    other = make_network("cub_vgg16", classes=5, width=1 / 32, seed=2)
    state = {f"features.{k}": v for k, v in other.features.state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg16.pth")
    decoder = network.aib.decode[0].weight.clone()
    load_features(network, tmp_path / "vgg16.pth")
    for key, value in other.features.state_dict().items():
        assert torch.equal(network.features.state_dict()[key], value)
    assert torch.equal(network.aib.decode[0].weight, decoder)
    with pytest.raises(InputError, match="are not this network's"):
        load_features(make_network("vgg32", width=1 / 32), tmp_path / "vgg16.pth")


def test_mistakes(train, tmp_path):
    fewer = InMemory(
        name="two", labels=("a", "b"), pixels=train.pixels[:2], classes=torch.tensor([0, 1])
    )
    with pytest.raises(InputError, match="two and scenes have different classes"):
        fit_network(train, out=tmp_path, config=CONFIG, test=fewer)
    small = InMemory(
        name="small", labels=CLASSES, pixels=train.pixels[:, :, :16], classes=train.classes
    )
    with pytest.raises(InputError, match="small and scenes have different sizes"):
        fit_network(train, out=tmp_path, config=CONFIG, test=small)
    with pytest.raises(SpecError, match="batch_size is a whole number of at least 1, got 0"):
        NetworkConfig(batch_size=0)


def test_lower_precision_trains_too(train, tmp_path):
    config = replace(CONFIG, epochs=1, bfloat16=True)
    _, report = fit_network(train, out=tmp_path, config=config)
    assert 0 < report["history"][0]["loss"] < 10
    assert report["history"][0]["kl"] != round(report["history"][0]["kl"])  # float32
    assert report["error"] is None


def test_the_official_objective_differs(train, tmp_path):
    options = {"epochs": 1, "pad": 0}
    losses = {}
    for objective in ("paper", "official"):
        config = replace(CONFIG, objective=objective, **options)
        _, report = fit_network(train, out=tmp_path / objective, config=config)
        losses[objective] = report["history"][0]
    assert losses["paper"]["cross_entropy"] != losses["official"]["cross_entropy"]


def test_plans_are_whole():
    plan = NetworkPlan(network="vgg32", variant="plain", width=1 / 32, latent=4)
    assert isinstance(plan.make(3), PlainNetwork)
    made = NetworkPlan(variant="aib-qt", width=1 / 32, anchors=7).make(3)
    assert isinstance(made, AIBNetwork)
    assert len(made.aib.attention.quantiser.anchors) == 7


def test_the_command(tmp_path):
    from PIL import Image

    found = pictures(8)
    for i in range(8):
        for split in ("train", "test"):
            path = tmp_path / "data" / split / CLASSES[found.classes[i]] / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(found.pixels[i].permute(1, 2, 0).numpy()).save(path)
    options = (
        f"fit aib-network --data {tmp_path / 'data'} --out {tmp_path / 'out'} "
        "--width 0.03125 --latent 8 --epochs 1 --batch-size 4 --variant aib-qt --device cpu"
    )
    done = CliRunner().invoke(app, options.split())
    assert done.exit_code == 0, done.output
    assert "epoch   1   loss" in done.output
    assert "top-1 error" in done.output
    assert f"--model aib:{tmp_path / 'out' / 'network.safetensors'}" in done.output
    picture = next((tmp_path / "data" / "test").rglob("*.png"))
    options = f"--model aib:{tmp_path / 'out' / 'network.safetensors'} --method aib --json"
    done = CliRunner().invoke(app, ["explain", str(picture), *options.split()])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["method"] == "aib"


def test_other_pictures_or_features_of_the_same_name_are_another_run(train, tmp_path):
    config = replace(CONFIG, variant="plain", epochs=1)
    for folder, seed in (("a", 1), ("b", 2)):
        network = config.plan.make(len(CLASSES), seed)
        state = {f"features.{k}": v for k, v in network.features.state_dict().items()}
        (tmp_path / folder).mkdir()
        save_file(state, tmp_path / folder / "vgg.safetensors")
    first, second = (tmp_path / folder / "vgg.safetensors" for folder in "ab")
    test, other = pictures(8, seed=2), pictures(8, seed=3)
    given = {"out": tmp_path / "out", "config": config}
    _, report = fit_network(train, test=test, features=first, **given)
    again = fit_network(train, test=test, features=first, **given)[1]
    assert again["history"] == report["history"]
    with pytest.raises(InputError, match=r"settings: test_digest is '\w+' there, '\w+' here\."):
        fit_network(train, test=other, features=first, **given)
    with pytest.raises(InputError, match=r"settings: features_digest is '\w+' there"):
        fit_network(train, test=test, features=second, **given)
