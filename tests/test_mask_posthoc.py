"""Mask networks for finished classifiers: the objective, what is learnt, and the file."""

import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F  # noqa: N812
from typer.testing import CliRunner

import attrib
from attrib.bottleneck import BetaControl, MaskNetworkOptions, PosthocMask, PosthocOptions
from attrib.bottleneck.mask_attached import AttachedMask, load_mask, look
from attrib.bottleneck.mask_model import MaskNoise
from attrib.bottleneck.mask_network import MaskNetwork
from attrib.bottleneck.mask_view import BLUR, class_cost, filling
from attrib.cli import app
from attrib.datasets import Folder, Scenes, UnlabelledFolder
from attrib.datasets.scenes import CLASSES
from attrib.errors import InputError, OutputError, SpecError, SplitError, WeightsError
from attrib.fit import MaskConfig, fit_mask
from attrib.images import preprocess
from attrib.types import ModelSpec, Targets
from tests.models import SPEC, Everything, Flat, MlpHead, images, make

CONFIG = MaskConfig(epochs=2, batch_size=4, width=4, latent=8, lr=1e-2)
TINY = MaskNetworkOptions(width=2, stride=4)
PIXELS = MaskNetworkOptions(reads="pixels", width=2, stride=4, halvings=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def one_hot(labels, classes=5):
    return F.one_hot(torch.as_tensor(labels), classes) > 0


def posthoc(name="plain", network=TINY, spec=SPEC, control=None, **options):
    model = make(name).double()
    classifier = attrib.split(model, spec=spec)
    found = PosthocMask(
        classifier, network=network, options=PosthocOptions(**options), control=control
    )
    for parameter in found.parameters():  # biases that are 0 would hide their absence
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator(1)).double()
    return model, found


# The network


@pytest.mark.parametrize("halvings", [1, 2, 4])
def test_a_cell_sees_as_far_as_stated_and_no_further(halvings):
    options = MaskNetworkOptions(reads="pixels", width=2, stride=4, halvings=halvings)
    network = MaskNetwork(options, 3, 5).double()
    for parameter in network.parameters():
        parameter.data = parameter.data.abs() + 0.01  # so that nothing cancels
    picture = torch.rand(1, 3, 96, 96, dtype=torch.float64, requires_grad=True)
    logits = network(picture, (24, 24))[0, 0]
    widest = 0
    for cell in (11, 12, 13):
        (seen,) = torch.autograd.grad(logits[cell, cell], picture, retain_graph=True)
        rows = seen.abs().sum((0, 1, 3)).nonzero()
        widest = max(widest, int(rows.max() - rows.min()) + 1)
    stated = network.field(96)
    assert widest <= stated <= widest + 2**halvings
    assert MaskNetwork(TINY, 12, 5).field(96) is None


@pytest.mark.parametrize("size", [(32, 32), (50, 37)])
@pytest.mark.parametrize("options", [TINY, PIXELS, MaskNetworkOptions(width=2, stride=1)])
def test_the_grid_is_the_stated_one_at_any_size(options, size):
    attached = AttachedMask(attrib.split(make("plain"), spec=SPEC), options=options)
    x = images(2, size)
    seen = look(attached.classifier, x, options.reads)
    pairs = Targets(image=torch.tensor([0, 0, 1]), label=torch.tensor([1, 3, 0]))
    masks = attached.network.masks(seen, size, pairs)
    assert masks.shape == (3, math.ceil(size[0] / options.stride), -(-size[1] // options.stride))
    assert torch.equal(masks[0], masks[1])
    assert 0.8 < masks.mean() < 0.95  # it begins mostly open


def test_a_condition_makes_masks_of_classes():
    options = MaskNetworkOptions(width=2, stride=4, conditional=True)
    network = MaskNetwork(options, 12, 5)
    x, pairs = torch.rand(2, 12, 8, 8), torch.tensor([[0, 1], [0, 4], [1, 1]])
    same = network(x, (8, 8), pairs[:, 1], pairs[:, 0])
    assert torch.equal(same[0], same[1])  # before training
    network.condition.weight.data.normal_(generator=generator())
    found = network(x, (8, 8), pairs[:, 1], pairs[:, 0])
    assert not torch.equal(found[0], found[1])
    hidden = network.encoder(x / x.square().mean(1, keepdim=True).sqrt())
    for row, (image, label) in zip(found, pairs.tolist(), strict=True):
        own = hidden[image] * (1 + network.condition.weight[label])[:, None, None]
        torch.testing.assert_close(row, network.decoder(own[None])[0])


# The objective


def literal_loss(found, x, label, noise, i, beta):
    """Spec A3 for one picture, cell by cell, for a 32 x 32 picture and a mask of 8 x 8."""
    options, classifier = found.options, found.classifier
    grid = classifier.forward(x[i : i + 1].clone()).grid
    logits = found.attached.network(grid, (8, 8), None)[0, 0]
    rho = 1 / (1 + torch.exp(-logits))
    u = noise.u[i, 0]
    m = torch.empty(8, 8, dtype=torch.float64)
    for a in range(8):
        for b in range(8):
            total = torch.log(rho[a, b] / (1 - rho[a, b])) + torch.log(u[a, b] / (1 - u[a, b]))
            m[a, b] = 1 / (1 + torch.exp(-total / options.temperature))
    shown = torch.empty(32, 32, dtype=torch.float64)
    for r in range(32):
        for q in range(32):
            y, z = (min(max((p + 0.5) / 4 - 0.5, 0), 7) for p in (r, q))
            a, b = int(y), int(z)
            c, d = min(a + 1, 7), min(b + 1, 7)
            top = m[a, b] * (1 - z + b) + m[a, d] * (z - b)
            low = m[c, b] * (1 - z + b) + m[c, d] * (z - b)
            shown[r, q] = max(top * (1 - y + a) + low * (y - a), noise.rectangle[i, 0, r, q])
    blended = x[i] * shown + (1 - shown) * 0
    answers = classifier.model(blended[None].clone())[0]
    cost = -answers[label] + torch.log(torch.exp(answers).sum())
    std, mean = (torch.tensor(v, dtype=torch.float64) for v in (SPEC.std, SPEC.mean))
    picture = x[i] * std[:, None, None] + mean[:, None, None]
    colours = picture.view(3, 8, 4, 8, 4).mean((2, 4))
    seen = F.interpolate(torch.cat([colours * m, m[None]])[None], size=(16, 16), mode="bilinear")
    code = found.autoencoder.code(found.autoencoder.encoder(seen).flatten(1))[0]
    mu, logvar = code[: options.latent], code[options.latent :]
    drawn = mu + torch.exp(logvar / 2) * noise.z[0, i]
    decoded = F.interpolate(found.autoencoder.decoder(drawn[None]), size=(8, 8), mode="bilinear")[0]
    kl = sum((mu**2 + torch.exp(logvar) - 1 - logvar) / 2)
    v, entropy = kl, 0.0
    for a in range(8):
        for b in range(8):
            hat = 1 / (1 + torch.exp(-decoded[0, a, b]))
            error = ((colours[:, a, b] - decoded[1:, a, b]) ** 2).sum()
            v = v - (1 - m[a, b]) * torch.log(1 - hat) - m[a, b] * torch.log(hat)
            v = v + m[a, b] * error / (2 * options.variance)
            entropy = entropy - m[a, b] * torch.log(rho[a, b])
            entropy = entropy - (1 - m[a, b]) * torch.log(1 - rho[a, b])
    return cost + beta * v - beta * entropy


def test_the_loss_written_out_slowly():
    _, found = posthoc(latent=5)
    x, labels = images(2).double(), torch.tensor([3, 1])
    noise = found.noise(x, generator())
    output = found(x, one_hot(labels), generator(), noise=noise)
    loss = output.terms.loss("ib", 0.3)
    for i in range(2):
        want = literal_loss(found, x, int(labels[i]), noise, i, 0.3)
        torch.testing.assert_close(loss[i], want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.whole, found.classifier.model(x.clone()))


def test_what_masks_take_from_the_answers():
    logits, whole = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    classes = one_hot([2, 0, 1], 4)
    found = class_cost(logits, whole, classes, None, multi_label=False)
    asked = torch.tensor([2, 3, 0])
    of_class = class_cost(logits, whole, classes, asked, multi_label=False)
    many = class_cost(logits, whole, classes, None, multi_label=True)
    of_many = class_cost(logits, whole, classes, asked, multi_label=True)
    for i, label in enumerate([2, 0, 1]):
        p, full = logits[i].exp() / logits[i].exp().sum(), whole[i].exp() / whole[i].exp().sum()
        s, s_full = 1 / (1 + (-logits[i]).exp()), 1 / (1 + (-whole[i]).exp())
        assert found[i] == pytest.approx(-p[label].log().item())
        want = -sum((s[c] if c == label else 1 - s[c]).log().item() for c in range(4))
        assert many[i] == pytest.approx(want)
        c = int(asked[i])
        for cost, now, before in ((of_class, p, full), (of_many, s, s_full)):
            lost = max(0.0, (before[c] / now[c]).log().item())
            assert cost[i] == pytest.approx(-now[c].log().item() if c == label else lost)


def test_hidden_pixels_are_filled_as_stated():
    x = images(1, (48, 40)).double()
    assert not filling(x, "mean").any()
    blurred = filling(x, "blur")
    means = torch.stack([part.mean((1, 2)) for part in x[0].split(BLUR, 1)])
    rows = F.interpolate(means.T[None], size=48, mode="linear")[0]
    flat = x.mean(3, keepdim=True).expand_as(x)  # nothing changes along a row
    torch.testing.assert_close(filling(flat, "blur")[0, :, :, 7], rows)
    assert blurred.std() < 0.2 * x.std()


def test_hidden_pixels_show_the_mean_colour_of_the_training_pictures(root, tmp_path):
    """It is estimated from them, kept with the weights, and what the classifier is shown."""
    config = replace(CONFIG, epochs=1, fill="data-mean", randomise=False)
    fit_mask(demo(), folder(root), out=tmp_path, config=config)
    hidden, spec = load_file(tmp_path / "model.safetensors")["hidden"], demo().spec
    fed, _ = preprocess([attrib.read_image(root / f"{i}.png") for i in range(12)], spec)
    want = fed.double().mean((0, 2, 3))
    torch.testing.assert_close(hidden.double(), want, atol=1e-5, rtol=0)
    _, found = posthoc(fill="data-mean", randomise=False)
    assert "hidden" not in found.state_dict()
    with pytest.raises(InputError, match="mean colour of the training pictures"):
        found(images(1).double(), one_hot([0]), generator())
    found.hidden = torch.tensor([0.5, -1.0, 2.0])
    found.attached.network.decoder.steps[-1].bias.data.fill_(-60.0)
    seen = found(images(1).double(), one_hot([0]), generator()).logits
    plain = torch.tensor([0.5, -1.0, 2.0])[None, :, None, None].expand(1, 3, 32, 32).double()
    torch.testing.assert_close(seen, found.classifier.model(plain.clone()))


def test_nothing_of_a_closed_mask_is_seen():
    _, found = posthoc(randomise=False)
    x = images(2).double()
    found.attached.network.decoder.steps[-1].bias.data.fill_(-60.0)
    first = found(x, one_hot([0, 1]), generator())
    second = found(x + 1, one_hot([0, 1]), generator())
    torch.testing.assert_close(first.logits, second.logits, rtol=0, atol=1e-9)
    assert first.terms.seen.pixels.abs().max() < 1e-9


def test_which_classes_are_kept():
    x, labels = images(6).double(), one_hot([0, 1, 2, 3, 4, 0])
    _, found = posthoc(signal="prediction")
    whole = found(x, labels, generator()).whole
    assert torch.equal(found.classes(labels, whole).int().argmax(1), whole.argmax(1))
    assert found.classes(labels, whole).sum() == 6
    multi = ModelSpec(input_size=(32, 32), fit="squash", multi_label=True)
    _, found = posthoc(signal="prediction", spec=multi)
    assert torch.equal(found.classes(labels, whole), whole > 0)
    _, found = posthoc()
    assert found.classes(labels, whole) is labels


@pytest.mark.parametrize(("others", "share"), [(0, 1.0), (1, 0.0), (0.25, 0.75)])
def test_which_class_is_asked(others, share):
    conditional = MaskNetworkOptions(width=2, stride=4, conditional=True)
    _, found = posthoc(network=conditional, others=others)
    classes = torch.zeros(4000, 5, dtype=torch.bool)
    classes[:, 1:3] = True
    asked = found.ask(classes, generator())
    own = classes.gather(1, asked[:, None]).double().mean()
    assert abs(own - share) < 0.03
    counts = torch.bincount(asked, minlength=5).double()
    for group in ([1, 2], [0, 3, 4]):  # alike within each
        assert counts[group].std() <= 0.15 * counts[group].mean()
    assert posthoc()[1].ask(classes, generator()) is None


def test_a_closed_gate_stops_what_beta_multiplies():
    x, labels = images(2).double(), one_hot([0, 1])
    gradients = []
    for gated, beta in ((False, 0.7), (True, 0.7), (True, 0.0)):
        _, found = posthoc(control=BetaControl(kind="gate", beta=0.7, gated=gated))
        assert found.beta.control.gated is gated
        loss = found(x, labels, generator()).terms.loss("ib", beta).sum()
        loss.backward()
        gradients.append((loss, [p.grad.clone() for p in found.attached.parameters()]))
    (open_loss, opened), (closed_loss, closed), (_, bare) = gradients
    torch.testing.assert_close(open_loss, closed_loss)
    torch.testing.assert_close(closed, bare)
    assert not torch.allclose(opened[0], closed[0])


def test_the_same_noise_gives_the_same_loss_and_the_classifier_gets_no_gradient():
    _, found = posthoc()
    x, labels = images(3).double(), one_hot([0, 1, 4])
    one, two = (found(x, labels, generator(5)).terms.loss("ib", 0.1) for _ in range(2))
    assert torch.equal(one, two)
    one.sum().backward()
    assert all(p.grad is None for p in found.classifier.model.parameters())
    assert all(p.grad is not None for p in found.parameters())
    bare = MaskNoise(u=torch.full((3, 1, 8, 8), 0.5).double(), z=torch.zeros(1, 3, 64).double())
    other = found(x, labels, generator(), noise=bare)
    assert not torch.equal(other.terms.loss("ib", 0.1), one)


@pytest.mark.parametrize("name", ["plain", "shared-relu", "stubborn", "random", "frozen"])
def test_training_leaves_the_classifier_as_it_was(name):
    model = make(name)
    model.train()
    before = Everything(model)
    found = PosthocMask(attrib.split(model, spec=SPEC), network=TINY, seed=4)
    x, labels = images(6), one_hot([0, 1, 2, 3, 4, 0])
    optimizer = torch.optim.Adam(found.parameters(), lr=1e-2)
    losses = []
    for step in range(8):
        with torch.random.fork_rng():
            loss = found(x, labels, generator(step)).terms.loss("ib", 0.1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert torch.equal(x, images(6))
    before.assert_same(model)


def test_models_of_other_anatomies():
    flat = attrib.split(Flat(), spec=SPEC, need="features")
    assert PosthocMask(flat, network=PIXELS)(images(2), one_hot([0, 1]), generator())
    with pytest.raises(SplitError, match="cannot tell where Flat keeps"):
        PosthocMask(flat, network=TINY)
    mlp = attrib.split(MlpHead(), features="body", head="top", spec=SPEC)
    found = PosthocMask(mlp, network=MaskNetworkOptions(width=2, conditional=True))
    assert found(images(2), one_hot([0, 1]), generator()).terms.cross_entropy.isfinite().all()


# Training


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


def demo():
    return attrib.split(attrib.load_model("demo", device="cpu"))


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    classifier, out = demo(), tmp_path_factory.mktemp("mask")
    before = Everything(classifier.model)
    report = fit_mask(classifier, folder(root), out=out, config=CONFIG, progress=False)
    before.assert_same(classifier.model)
    return out, report


def test_what_is_trained_explains(trained, root):
    out, report = trained
    assert [set(entry) for entry in report["history"]] == [set(report["history"][0])] * 2
    assert report["history"][1]["vae"] < report["history"][0]["vae"]
    assert json.loads((out / "fit.json").read_text())["history"] == report["history"]
    file = out / "mask.safetensors"
    explainer = attrib.Explainer("demo", f"ib-mask(weights={str(file)!r})")
    x = torch.rand(2, 3, 96, 96)
    before = Everything(explainer.classifier.model)
    found = explainer(x, [[0, 3], [1]])
    before.assert_same(explainer.classifier.model)
    assert (found.unit, found.exact, found.maps.shape) == ("probability", True, (3, 6, 6))
    assert 0 <= found.maps.min() < found.maps.max() <= 1
    assert torch.equal(found.maps[0], found.maps[1])
    torch.testing.assert_close(found.maps[2:], explainer(x[1:], [1]).maps)
    torch.testing.assert_close(found.logits, explainer.classifier.model(x.clone()))
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

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_mask(demo(), folder(root), out=tmp_path, config=CONFIG)
    assert (tmp_path / "checkpoint.pt").exists()
    fit_mask(demo(), folder(root), out=tmp_path, config=CONFIG)
    for name in ("mask.safetensors", "model.safetensors", "log.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    other = MaskConfig(epochs=2, batch_size=4, width=4, latent=8, lr=1e-2, fill="blur")
    with pytest.raises(InputError, match="fill is 'mean' there, 'blur' here"):
        fit_mask(demo(), folder(root), out=tmp_path, config=other)


@pytest.mark.parametrize(
    "options",
    [
        {"conditional": True, "fill": "blur", "hard": True},
        {"reads": "pixels", "halvings": 2, "control": "gate", "signal": "prediction"},
        {"bfloat16": True, "randomise": True, "control": "adaptive", "stride": 8},
    ],
)
def test_every_option_trains(root, tmp_path, options):
    config = MaskConfig(epochs=1, batch_size=4, width=4, latent=8, **options)
    report = fit_mask(demo(), folder(root), out=tmp_path, config=config)
    assert all(math.isfinite(value) for value in report["history"][0].values())
    method = f"ib-mask(weights={str(tmp_path / 'mask.safetensors')!r})"
    found = attrib.Explainer(demo(), method)(torch.rand(1, 3, 96, 96), [[0, 1]])
    assert torch.equal(found.maps[0], found.maps[1]) == (not options.get("conditional", False))


def test_a_multi_label_model_trains(root, tmp_path):
    (tmp_path / "labels.csv").write_text(
        f"path,label\n{root / '0.png'},{CLASSES[0]}\n{root / '0.png'},{CLASSES[2]}\n"
    )
    classifier = demo()
    classifier = replace(classifier, spec=replace(classifier.spec, multi_label=True))
    data = Folder(root, root / "labels.csv", classes=CLASSES)
    for conditional in (False, True):
        config = MaskConfig(epochs=1, batch_size=4, width=4, latent=8, conditional=conditional)
        report = fit_mask(classifier, data, out=tmp_path / str(conditional), config=config)
        assert 0 < report["history"][0]["accuracy"] <= 1


def test_mistakes(trained, root, tmp_path):
    with pytest.raises(SpecError, match=r"ib-mask\(weights='FILE'\)"):
        attrib.Explainer("demo", "ib-mask")
    with pytest.raises(SpecError, match="stride is a whole number of at least 1, got 0"):
        MaskConfig(stride=0)
    with pytest.raises(InputError, match="target positive"):
        MaskConfig(target=0)
    with pytest.raises(InputError, match="seed is 0 or more"):
        AttachedMask(demo(), seed=-1)
    more = Folder(root, root / "labels.csv", classes=(*CLASSES, "more"))
    with pytest.raises(InputError, match="9 classes, demo only 8"):
        fit_mask(demo(), more, out=tmp_path / "no")
    renamed = Folder(root, root / "labels.csv", classes=(*CLASSES[1:], CLASSES[0]))
    with pytest.raises(InputError, match="class names differ: demo has"):
        fit_mask(demo(), renamed, out=tmp_path / "no")
    broken = demo()
    broken.model.head.bias.data[0] = math.nan
    with pytest.raises(InputError, match="the loss is nan at step 1 of epoch 1"):
        fit_mask(broken, folder(root), out=tmp_path / "nan", config=CONFIG)


def test_masks_of_predictions_need_no_labels(root, tmp_path):
    """A flat folder, or one with classes that the model lacks, is as good as labelled pictures."""
    config = replace(CONFIG, epochs=1, signal="prediction")
    flat = tmp_path / "flat"
    (flat / "no class" / ".hidden").mkdir(parents=True)
    for i in range(12):
        place = flat / "no class" if i % 2 else flat
        (place / f"{i:02}.png").write_bytes((root / f"{i}.png").read_bytes())
    (flat / "notes.txt").write_text("no picture")
    (flat / "no class" / ".hidden" / "x.png").write_bytes((root / "0.png").read_bytes())
    data = UnlabelledFolder(flat)
    assert [data[i].id for i in (0, 1, 6)] == ["00", "02", "no class/01"]
    assert len(data) == 12
    assert data[0].labels == ()
    found = fit_mask(demo(), data, out=tmp_path / "a", config=config)["history"][0]
    assert 0 < found["accuracy"] <= 1
    assert "accuracy_whole" not in found  # 1 by definition
    options = ["--data", str(flat), "--signal", "prediction", "--model", "demo", "--epochs", "1"]
    out = ["--batch-size", "4", "--width", "4", "--lr", "1e-2", "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(app, ["fit", "ib-mask", *options, *out])
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(app, ["fit", "ib-mask", *options[:2], *options[4:], *out])
    assert "'no class'" in str(refused.exception)  # labels are asked for by default
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no pictures, files \.bmp, "):
        UnlabelledFolder(tmp_path / "empty")
    with pytest.raises(InputError, match="no masks; use Folder"):
        data.mask(0)


def test_files_that_are_refused(trained, tmp_path):
    path, classifier = trained[0] / "mask.safetensors", demo()
    again = load_mask(path, classifier)
    again.save(tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == path.read_bytes()
    with pytest.raises(OutputError, match="cannot write"):
        again.save(path / "below.safetensors")
    tensors = load_file(path)
    save_file(tensors, tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="holds no mask network"):
        load_mask(tmp_path / "bare.safetensors", classifier)
    model = attrib.load_model("demo", device="cpu")
    model.head.bias.data[0] += 1e-3
    explainer = attrib.Explainer(model, f"ib-mask(weights={str(path)!r})")
    with pytest.raises(WeightsError, match=r"was trained on 'demo' with weights .* train mask net"):
        explainer(torch.rand(1, 3, 96, 96))
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["attrib"])
    tensors.pop("decoder.steps.0.bias")
    save_file(tensors, tmp_path / "cut.safetensors", metadata={"attrib": json.dumps(header)})
    with pytest.raises(WeightsError, match=r"is damaged.*decoder\.steps\.0\.bias"):
        load_mask(tmp_path / "cut.safetensors", classifier)
    wrong = {"attrib": json.dumps({**header, "stride": 0})}
    save_file(tensors, tmp_path / "wrong.safetensors", metadata=wrong)
    with pytest.raises(WeightsError, match=r"is damaged.*stride is a whole number"):
        load_mask(tmp_path / "wrong.safetensors", classifier)


def test_a_file_that_is_written_anew_is_read_anew(trained, tmp_path):
    file, x = tmp_path / "mask.safetensors", torch.rand(1, 3, 96, 96)
    file.write_bytes((trained[0] / "mask.safetensors").read_bytes())
    explainer = attrib.Explainer("demo", f"ib-mask(weights={str(file)!r})")
    before = explainer(x).maps
    AttachedMask(explainer.classifier, options=TINY, seed=3).save(file)
    assert explainer(x).maps.shape != before.shape
    explainer.classifier.model.head.bias.data[0] += 1e-3
    with pytest.raises(WeightsError, match="was trained on"):
        explainer(x)


def test_the_command(root, tmp_path):
    data = ["--dataset", "folder", "--root", str(root), "--labels", str(root / "labels.csv")]
    options = ["--model", "demo", "--epochs", "1", "--batch-size", "4", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["fit", "ib-mask", *data, *options, "--conditional"])
    assert done.exit_code == 0, done.output
    assert "epoch   1   loss" in done.output
    assert "ib-mask(weights=" in done.output
    assert (tmp_path / "mask.safetensors").exists()
