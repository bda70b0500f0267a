import copy
import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.bottleneck.aib_attached import AttachedAIB, load_attached
from attrib.bottleneck.aib_loss import AIBObjective, aib_loss, latent_kl, official
from attrib.bottleneck.aib_module import AIB, AIBNetwork, Noise
from attrib.bottleneck.aib_networks import cub_vgg16, pooled_aib, vgg32, wrn28_10
from attrib.bottleneck.aib_quantiser import Quantiser
from attrib.bottleneck.aib_recipe import CUB_VGG16, RECIPES, VGG32, WRN28_10, lr_at
from attrib.bottleneck.aib_recipe import parameter_groups as groups_of
from attrib.errors import InputError, OutputError, SplitError, UnknownNameError, WeightsError
from tests.models import SPEC, Everything, Flat, MlpHead, images, make


@pytest.fixture
def golden(shared):
    return np.load(shared / "golden" / "aib_quantiser.npz", allow_pickle=False)


def quantiser_of(anchors):
    quantiser = Quantiser(len(anchors)).to(torch.as_tensor(anchors).dtype)
    quantiser.anchors.data.copy_(torch.as_tensor(anchors))
    return quantiser


@pytest.mark.parametrize("name", ["lin20", "lin50"])
def test_published_quantiser(golden, name):
    quantiser = quantiser_of(golden[f"{name}/anchors"])
    a = torch.from_numpy(golden[f"{name}/a"]).requires_grad_()
    found = quantiser(a)
    loss = (found.values * torch.from_numpy(golden[f"{name}/upstream"])).sum()
    loss = loss + 0.4 * found.vq + 0.1 * found.commit
    gradients = torch.autograd.grad(loss, [a, quantiser.anchors])
    np.testing.assert_allclose(found.values.detach(), golden[f"{name}/a_q"], rtol=0, atol=1e-6)
    assert found.vq.item() == pytest.approx(float(golden[f"{name}/vq_loss"]), abs=1e-6)
    assert found.commit.item() == pytest.approx(float(golden[f"{name}/commit_loss"]), abs=1e-6)
    for got, want in zip(gradients, ("grad_a", "grad_anchors"), strict=True):
        np.testing.assert_allclose(got, golden[f"{name}/{want}"], rtol=0, atol=1e-6)


def test_published_ties_go_to_the_lower_anchor(golden):
    found = Quantiser(3)(torch.from_numpy(golden["tie/a"]))
    np.testing.assert_allclose(found.values.detach(), golden["tie/a_q"], rtol=0, atol=1e-6)


def test_quantiser_written_out():
    anchors = torch.tensor([0.1, 0.6, 0.6, 0.35], dtype=torch.float64)
    quantiser = quantiser_of(anchors)
    a = torch.randn(2, 1, 3, 4, dtype=torch.float64).requires_grad_()
    found = quantiser(a)
    pull_anchors = torch.zeros(4, dtype=torch.float64)
    for at in np.ndindex(*a.shape):
        distances = [(a[at].item() - v) ** 2 for v in anchors.tolist()]
        k = min(range(4), key=lambda j: (distances[j], j))
        assert found.index[at] == k
        assert found.values[at].item() == pytest.approx(anchors[k].item())
        pull_anchors[k] += 2 * (anchors[k] - a[at].item()) / a.numel()
    assert 2 not in found.index  # an equal anchor that is listed later is never taken
    (of_vq,) = torch.autograd.grad(found.vq, quantiser.anchors, retain_graph=True)
    torch.testing.assert_close(of_vq, pull_anchors)
    (of_commit,) = torch.autograd.grad(found.commit, a, retain_graph=True)
    torch.testing.assert_close(of_commit, 2 * (a - anchors[found.index]).detach() / a.numel())
    (through,) = torch.autograd.grad(found.values.sum(), a, retain_graph=True)
    assert torch.equal(through, torch.ones_like(a))
    every = [quantiser.anchors, a]
    for term, which in ((found.values.sum(), 0), (found.commit, 0), (found.vq, 1)):
        gradients = torch.autograd.grad(term, every, retain_graph=True, allow_unused=True)
        assert gradients[which] is None


def test_a_quantiser_needs_two_anchors():
    assert Quantiser(5).anchors.tolist() == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(InputError, match="2 anchors or more, got 1"):
        Quantiser(1)


def small(anchors=0):
    aib = pooled_aib(6, 4, anchors=anchors, latent=5).double()
    for parameter in aib.parameters():  # biases that are 0 would hide their absence
        parameter.data += 0.1 * torch.randn_like(parameter)
    features = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    return aib, features


def literal(aib, f, eps_a, eps_z):
    """One image's logits for one draw of each, from the sheet, without batches or samples."""
    score, std = aib.attention.mean[0], aib.attention.std
    mu = torch.sigmoid(F.conv2d(f[None], score.weight, score.bias, padding=1))
    sigma = torch.log1p(torch.exp(F.conv2d(mu, std.weight, std.bias, padding=1) - 5))
    a = mu[0] + sigma[0] * eps_a
    if aib.attention.quantiser is not None:
        anchors = aib.attention.quantiser.anchors
        a = anchors[(a[..., None] - anchors).abs().argmin(-1)]
    linear, (first, _, last) = aib.encode[2], aib.decode
    pooled = F.adaptive_avg_pool2d(f * (1 + a), 3).flatten()
    numbers = linear.weight @ pooled + linear.bias
    k = len(numbers) // 2
    z = numbers[:k] + torch.log1p(torch.exp(numbers[k:] - 5)) * eps_z
    hidden = (first.weight @ z + first.bias).clamp(min=0)
    return last.weight @ hidden + last.bias, a, numbers[:k]


@pytest.mark.parametrize("anchors", [0, 6])
@pytest.mark.parametrize("samples", [(1, 1), (4, 4), (2, 3)])
def test_a_replayed_pass_written_out(anchors, samples):
    aib, features = small(anchors)
    noise = aib.draw(features, samples)
    output = aib(features, noise)
    s, t = samples
    assert output.sample_logits.shape == (t, s, 3, 4)
    for b in range(3):
        total = 0
        for i in range(s):
            for j in range(t):
                want, a, mean = literal(
                    aib, features[b], noise.attention[i, b], noise.latent[j, i, b]
                )
                torch.testing.assert_close(output.sample_logits[j, i, b], want)
                total = total + want
            torch.testing.assert_close(output.attention.maps[i, b], a)
            torch.testing.assert_close(output.latent_mean[i, b], mean)
        torch.testing.assert_close(output.logits[b], total / (s * t))
    again = aib(features, noise)
    assert torch.equal(again.logits, output.logits)


def test_scores_are_not_clamped():
    aib, features = small()
    noise = Noise(
        attention=torch.full((1, 3, 1, 4, 5), 1e4).double(), latent=torch.zeros(1, 1, 3, 5).double()
    )
    attended = aib(features, noise).attention
    assert attended.maps.min() > 1
    assert torch.equal(attended.maps[0], attended.mean + attended.std * 1e4)
    assert (attended.vq, attended.commit) == (0, 0)


def test_a_gate_hides_what_is_not_attended_to():
    aib, features = small()
    gate = AIB(aib.attention, aib.encode, aib.decode, aib.latent, "gate")
    noise = aib.draw(features, (2, 3))
    a = aib(features, noise).attention.maps
    for i in range(2):
        numbers = aib.encode(features * a[i])
        torch.testing.assert_close(gate(features, noise).latent_mean[i], numbers[:, : aib.latent])
    with torch.no_grad():
        aib.attention.mean[0].bias.fill_(-1e3)  # no attention anywhere
    still = gate.still(features)
    closed, other = gate(features, still).logits, gate(1 + features.abs(), still).logits
    torch.testing.assert_close(closed, other)
    assert not torch.allclose(aib(features, still).logits, aib(1 + features.abs(), still).logits)


def test_a_pass_without_noise_takes_the_means():
    for anchors in (0, 6):
        aib, features = small(anchors)
        output = aib(features, aib.still(features))
        torch.testing.assert_close(output.attention.maps[0, :, 0], aib.attention.map(features))
        torch.testing.assert_close(output.logits, aib.decode(output.latent_mean[0]))


def test_how_many_samples():
    aib, features = small()
    assert aib(features).sample_logits.shape[:2] == (1, 1)
    assert aib.eval()(features).sample_logits.shape[:2] == (12, 4)
    state = torch.get_rng_state()
    one, two = (aib(features, (4, 4), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.sample_logits, two.sample_logits)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(InputError, match=r"1 or more, got \(0, 4\)"):
        aib(features, (0, 4))
    with pytest.raises(InputError, match=r"these features take \(2, 3, 1, 4, 5\)"):
        aib(features, aib.draw(features[:2], (2, 2)))


def test_the_map_is_the_mean_or_its_nearest_anchors():
    for anchors in (0, 4):
        aib, features = small(anchors)
        mean = aib(features).attention.mean[:, 0]
        found = aib.attention.map(features)
        if anchors:
            values = aib.attention.quantiser.anchors
            nearest = (mean[..., None] - values).abs().argmin(-1)
            mean = values[nearest]
        torch.testing.assert_close(found, mean)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_of_the_paper():
    with torch.device("meta"):
        assert count(vgg32()) == 20_040_789
        assert count(vgg32(anchors=20)) == 20_040_809
        assert [count(vgg32(c)) // 10_000 for c in (10, 100)] == [2004, 2006]
        assert [round(count(wrn28_10(c)) / 1e6, 4) for c in (10, 100)] == [65.0045, 65.1093]
        assert round(count(cub_vgg16(convolutions=3)) / 1e6, 2) == 24.28
        assert round(count(cub_vgg16(anchors=20)) / 1e6, 2) == 24.28
        assert count(cub_vgg16()) == count(cub_vgg16(convolutions=3)) - 3 * (512 * 512 * 9 + 512)


@pytest.mark.parametrize(
    ("build", "side", "grid", "classes"),
    [(vgg32, 32, 16, 10), (wrn28_10, 32, 16, 10), (cub_vgg16, 224, 14, 200)],
)
def test_shapes_of_the_networks(build, side, grid, classes):
    with torch.device("meta"):
        network = build(anchors=20)
        output = network(torch.zeros(2, 3, side, side), (2, 3))
    assert output.logits.shape == (2, classes)
    assert output.attention.maps.shape == (2, 2, 1, grid, grid)
    assert output.latent_mean.shape == (2, 2, network.aib.latent)


def test_vgg32_learns_one_batch():
    network = vgg32(anchors=20)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(n.weight.min() >= 0 and n.weight.max() <= 1 for n in norms)
    assert network.aib.decode[0].bias.eq(0).all()
    x, y = images(4), torch.tensor([0, 1, 2, 3])
    terms = aib_loss(network(x), y)
    terms.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    assert network.attention_map(x).shape == (4, 16, 16)


def test_torchvision_weights_fit_the_cub_network():
    from torchvision.models import vgg16

    with torch.device("meta"):
        theirs = vgg16().features.state_dict()
        ours = cub_vgg16().features.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("kl", ["std", "official"])
@pytest.mark.parametrize("units", ["nats", "bits"])
@pytest.mark.parametrize(("scale", "distance"), [(1.0, "mean"), (0.5, "sum")])
def test_every_term_written_out(kl, units, scale, distance):
    aib, features = small(anchors=4)
    labels = torch.tensor([2, 0, 3])
    output = aib(features, (2, 3))
    objective = AIBObjective(beta=0.3, kl=kl, units=units, kl_scale=scale, distance=distance)
    terms = aib_loss(output, labels, objective)
    unit = 1 / math.log(2) if units == "bits" else 1
    entropy, information = 0.0, 0.0
    for b in range(3):
        logits = output.logits[b].tolist()
        entropy += (math.log(sum(map(math.exp, logits))) - logits[labels[b]]) / 3 * unit
        for s in range(2):
            for mu, sigma in zip(
                output.latent_mean[s, b].tolist(), output.latent_std[s, b].tolist(), strict=True
            ):
                used = math.exp(sigma) if kl == "official" else sigma
                information += (mu**2 + used**2 - 1 - 2 * math.log(used)) / 2 / 6 * unit
    cells = 20 if distance == "sum" else 1
    vq = output.attention.vq.item() * cells
    assert terms.cross_entropy.item() == pytest.approx(entropy)
    assert terms.kl.item() == pytest.approx(information)
    assert (terms.vq.item(), terms.commit.item()) == pytest.approx((vq, vq))
    want = entropy + 0.3 * scale * information + 0.4 * vq + 0.1 * vq
    assert terms.total.item() == pytest.approx(want)


def test_divergence_against_torch():
    from torch.distributions import Normal, kl_divergence

    mean, std = torch.randn(4, 6).double(), torch.rand(4, 6).double() + 0.1
    unit = Normal(torch.zeros(()).double(), torch.ones(()).double())
    for kind, used in (("std", std), ("official", std.exp())):
        want = kl_divergence(Normal(mean, used), unit).sum(1)
        torch.testing.assert_close(latent_kl(mean, std, kind), want)
    assert latent_kl(torch.zeros(1, 2), torch.zeros(1, 2)).isfinite().all()
    half = latent_kl(mean.bfloat16(), std.bfloat16())
    assert half.dtype == torch.float32
    assert torch.equal(half, latent_kl(mean.bfloat16().float(), std.bfloat16().float()))


def test_presets():
    paper = AIBObjective()
    assert (paper.beta, paper.lambda_q, paper.lambda_c) == (0.01, 0.4, 0.1)
    assert (paper.units, paper.kl_scale, paper.kl, paper.distance) == ("nats", 1, "std", "mean")
    code = official("vgg32")
    assert (code.units, code.kl_scale, code.kl, code.distance) == ("bits", 0.5, "official", "mean")
    assert official("wrn28_10").kl_scale == official("cub_vgg16").kl_scale == 1
    with pytest.raises(UnknownNameError, match="unknown network 'resnet'; known: vgg32"):
        official("resnet")
    with pytest.raises(InputError, match=r"beta is a number of at least 0, got -1"):
        AIBObjective(beta=-1.0)


def test_learning_rates():
    rates = [lr_at(VGG32, e) for e in range(200)]
    assert rates[0] == 0.01
    assert rates[1:] == pytest.approx([0.1 * 0.5 ** (e // 25) for e in range(1, 200)])
    assert [lr_at(RECIPES["vgg32-qt"], e) for e in range(3)] == [0.001, 0.01, 0.1]
    wide = [lr_at(WRN28_10, e) for e in (0, 59, 60, 119, 120, 159, 160, 199)]
    assert wide == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])
    assert [lr_at(CUB_VGG16, e) for e in (0, 1, 50)] == pytest.approx(
        [1e-4, 0.97e-4, 1e-4 * 0.97**50]
    )
    assert (VGG32.momentum, VGG32.weight_decay, VGG32.batch_size) == (0.9, 5e-4, 128)
    for epoch in (-1, 200):
        with pytest.raises(InputError, match=f"0 to 199, got {epoch}"):
            lr_at(VGG32, epoch)


def test_anchors_learn_slowly_under_any_wrapper():
    aib, features = small(anchors=4)
    network = AIBNetwork(nn.Identity(), aib)
    aib.encode[2].bias.requires_grad_(False)
    for model in (network, nn.DataParallel(network)):
        every, anchors = groups_of(model, VGG32)
        assert [id(p) for p in anchors["params"]] == [id(aib.attention.quantiser.anchors)]
        assert len(every["params"]) == len(list(aib.parameters())) - 2
        assert (every["lr_ratio"], anchors["lr_ratio"]) == (1, 1e-4)
        assert anchors["lr"] == pytest.approx(0.01 * 1e-4)
        assert anchors["weight_decay"] == 5e-4
    optimiser = torch.optim.SGD(groups_of(network, VGG32), lr=1.0, momentum=0.9)
    before = aib.attention.quantiser.anchors.clone()
    aib_loss(network(features), torch.tensor([0, 1, 2])).total.backward()
    gradient = aib.attention.quantiser.anchors.grad
    optimiser.step()
    want = before - 1e-6 * (gradient + 5e-4 * before)
    torch.testing.assert_close(aib.attention.quantiser.anchors, want, rtol=0, atol=1e-12)
    assert len(groups_of(small()[0], VGG32)) == 1


def attached(name="plain", **options):
    model = make(name)
    return model, AttachedAIB(attrib.split(model, spec=SPEC), latent=8, **options)


@pytest.mark.parametrize("name", ["plain", "in-place", "stubborn", "random"])
def test_training_attention_leaves_the_classifier_as_it_was(name):
    model = make(name)
    model.train()
    before = Everything(model)
    aib = AttachedAIB(attrib.split(model, spec=SPEC), latent=8, anchors=5, seed=4)
    before.assert_same(model)
    x, y = images(6), torch.tensor([0, 1, 2, 3, 4, 0])
    optimiser = torch.optim.SGD(groups_of(aib, VGG32), lr=1.0, momentum=0.9)
    losses, generator = [], torch.Generator().manual_seed(0)
    for _ in range(12):
        terms = aib_loss(aib(x, generator=generator), y)
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        losses.append(terms.total.item())
    assert losses[-1] < losses[0]
    assert torch.equal(x, images(6))
    before.assert_same(model)
    assert count(aib) == count(aib.aib)
    assert all(key.startswith("aib.") for key in aib.state_dict())


def test_the_grid_is_the_classifiers():
    _, aib = attached()
    aib.eval()
    x = images(2, (40, 48))
    grid = aib.classifier.forward(x).grid
    torch.testing.assert_close(aib.attention_map(x), aib.aib.attention.map(grid))
    noise = aib.aib.draw(grid, (2, 2))
    torch.testing.assert_close(aib(x, noise).logits, aib.aib(grid, noise).logits)
    other = AttachedAIB(aib.classifier, latent=8, seed=1)
    assert not torch.equal(other.attention_map(x), aib.attention_map(x))


def test_heads_that_are_not_linear_and_grids_of_tokens():
    import timm

    classifier = attrib.split(MlpHead(), features="body", head="top", spec=SPEC)
    assert AttachedAIB(classifier)(images(2)).logits.shape == (2, 5)
    tokens = attrib.split(timm.create_model("test_vit", num_classes=3))
    side = tokens.spec.input_size
    assert AttachedAIB(tokens)(images(1, side)).logits.shape == (1, 3)
    with pytest.raises(SplitError, match="cannot tell where Flat keeps"):
        AttachedAIB(attrib.split(Flat(), spec=SPEC, need="features"))
    with pytest.raises(InputError, match="latent is 1 or more"):
        AttachedAIB(classifier, latent=0)


@pytest.mark.parametrize("anchors", [0, 7])
def test_saved_and_read_again(tmp_path, anchors):
    _, aib = attached(anchors=anchors, seed=3)
    aib.save(tmp_path / "attention.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["attention.safetensors"]
    again = load_attached(
        tmp_path / "attention.safetensors", attrib.split(make("plain"), spec=SPEC)
    )
    for key, value in aib.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    torch.testing.assert_close(again.attention_map(images(2)), aib.attention_map(images(2)))
    with pytest.raises(OutputError, match="cannot write"):
        aib.save(tmp_path / "attention.safetensors" / "below.safetensors")


def test_files_without_layer_and_modulation_are_read(tmp_path):
    _, aib = attached(seed=3)
    path = tmp_path / "attention.safetensors"
    aib.save(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["attrib"])
    for key in ("layer", "modulation"):
        del header[key]
    save_file(load_file(path), path, metadata={"attrib": json.dumps(header)})
    again = load_attached(path, aib.classifier)
    assert (again.layer, again.aib.modulation) == ("", "residual")
    torch.testing.assert_close(again.attention_map(images(2)), aib.attention_map(images(2)))
    save_file(load_file(path), path, metadata={"attrib": json.dumps({**header, "latent": "8"})})
    with pytest.raises(WeightsError, match="is damaged"):
        load_attached(path, aib.classifier)


@pytest.mark.parametrize("layer", ["features.0", "features.3", "features"])
def test_attention_on_any_layer(layer):
    model = make("in-place")
    classifier = attrib.split(model, spec=SPEC)
    before = Everything(model)
    aib = AttachedAIB(classifier, latent=8, layer=layer, modulation="gate").eval()
    x = images(2)
    with torch.no_grad():
        steps = model.features if layer == "features" else model.features[: int(layer[-1]) + 1]
        grid = copy.deepcopy(steps).eval()(x * 2 - 0.1)  # what the model makes of its input first
    torch.testing.assert_close(aib.attention_map(x), aib.aib.attention.map(grid))
    before.assert_same(model)
    noise = aib.aib.draw(grid, (2, 2))
    torch.testing.assert_close(aib(x, noise).logits, aib.aib(grid, noise).logits)
    assert torch.equal(x, images(2))


def test_layers_without_a_grid_are_refused():
    classifier = attrib.split(make("plain"), spec=SPEC)
    with pytest.raises(SplitError, match="'fc' of model has no grid"):
        AttachedAIB(classifier, layer="fc")


def test_files_that_are_refused(tmp_path):
    model, aib = attached()
    path = tmp_path / "attention.safetensors"
    aib.save(path)
    with pytest.raises(WeightsError, match=r"was trained on 'model' with weights \w{16}; this is"):
        load_attached(path, attrib.split(make("bias-free"), spec=SPEC))
    with torch.no_grad():
        model.fc.bias[0] += 1e-3
    with pytest.raises(WeightsError, match="train attention for this one"):
        load_attached(path, aib.classifier)
    plain = attrib.split(make("plain"), spec=SPEC)
    save_file(load_file(path), tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="holds no attention"):
        load_attached(tmp_path / "bare.safetensors", plain)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_attached(tmp_path / "cut.safetensors", plain)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_attached(tmp_path / "absent.safetensors", plain)


def test_a_file_whose_tensors_do_not_fit_its_header(tmp_path):
    _, aib = attached()
    path = tmp_path / "attention.safetensors"
    aib.save(path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    tensors.pop("decode.0.bias")
    save_file(tensors, path, metadata=header)
    with pytest.raises(WeightsError, match=r"is damaged.*decode\.0\.bias"):
        load_attached(path, aib.classifier)


def test_any_part_can_be_replaced():
    """The pieces take modules: another encoder and decoder, the same attention."""
    aib, features = small()
    encode = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 4)).double()
    other = AIB(aib.attention, encode, nn.Linear(2, 9).double(), latent=2)
    assert other(features).logits.shape == (3, 9)
