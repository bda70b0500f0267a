"""The IB mask model: its terms against derived values, its networks, its training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from attrib.bottleneck import (
    ARCHITECTURES,
    BetaControl,
    MaskModel,
    MaskOptions,
    MaskTerms,
    any_size,
    mask_statistics,
)
from attrib.bottleneck.mask_control import Beta
from attrib.bottleneck.mask_layers import LineNet, receptive_field, settle
from attrib.bottleneck.mask_statistics import area_accuracy, inside_outside, mask_area
from attrib.bottleneck.mask_terms import (
    CodeTerms,
    bounded,
    grown_mask,
    mask_entropy,
    mask_nll,
    masked,
    pixel_nll,
    prior_kl,
    random_rectangles,
    sample_mask,
)
from attrib.errors import InputError
from tests.mask_models import SMALL, corner_task

OBJECTIVES = ["ib", "ceb", "cmi"]


def small_model(channels=1, classes=3, **options):
    return MaskModel(
        SMALL, channels=channels, classes=classes, options=MaskOptions(**options)
    ).double()


def batch(channels=1, classes=3, count=4):
    images = torch.rand(count, channels, 16, 16, dtype=torch.float64)
    return images, torch.arange(count) % classes


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def golden(shared):
    with np.load(shared / "golden" / "ib_mask_terms_analytic.npz", allow_pickle=False) as file:
        values = {key: torch.from_numpy(np.asarray(file[key])) for key in file}
    for key in ("rho", "u", "m_soft", "m_hard", "rho_hat_logit"):
        values[key] = values[key][:, None]
    return values


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_terms_are_the_derived_ones(golden, kind):
    def same(found, name):
        torch.testing.assert_close(found, golden[f"{kind}/{name}"], rtol=0, atol=1e-9)

    logits, beta = torch.logit(golden["rho"]), float(golden["beta"])
    mask = sample_mask(
        logits, golden["u"], temperature=float(golden["temperature"]), hard=kind == "hard"
    )
    torch.testing.assert_close(mask, golden[f"m_{kind}"], rtol=0, atol=1e-12)
    seen = CodeTerms(
        mask=mask_nll(mask, golden["rho_hat_logit"]),
        pixels=pixel_nll(
            golden["image"], golden["image_hat"], mask, variance=float(golden["sigma2"])
        ),
        kl=prior_kl(golden["z_mu"], golden["z_logvar"]),
    )
    terms = MaskTerms(
        cross_entropy=F.cross_entropy(golden["class_logits"], golden["y"], reduction="none"),
        entropy=mask_entropy(mask, logits),
        seen=seen,
    )
    same(seen.mask, "mask_nll")
    same(seen.pixels, "pixel_nll")
    same(seen.kl, "kl")
    same(seen.total, "vae")
    same(terms.entropy, "entropy_eq8")
    same(mask_entropy(mask, logits, exact=True), "entropy_eq6")
    same(terms.cross_entropy, "ce")
    same(terms.loss("ib", beta), "total_per_sample")
    same(terms.loss("ib", beta).mean(), "total_mean")
    same(mask_area(mask), "l1_norm")
    torch.testing.assert_close(terms.loss("ceb", 0.3 / 1.3), terms.loss("ib", 0.3))


def test_statistics_are_the_derived_ones(golden):
    regions = torch.zeros(3, 9, 9, dtype=torch.bool)
    for region, (y0, x0, y1, x1) in zip(
        regions, golden["stat_boxes_y0x0y1x1_inclusive"], strict=True
    ):
        region[y0 : y1 + 1, x0 : x1 + 1] = True
    inside, outside = inside_outside(golden["rho"], regions)
    torch.testing.assert_close(inside, golden["stat_inside"], rtol=0, atol=1e-9)
    torch.testing.assert_close(outside, golden["stat_outside"], rtol=0, atol=1e-9)
    torch.testing.assert_close(mask_area(golden["rho"]), golden["stat_global"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("hard", [False, True])
def test_a_perfect_autoencoder_pays_exactly_the_entropy(hard):
    logits = 8 * torch.randn(5, 1, 9, 9, dtype=torch.float64)
    mask = sample_mask(logits, torch.rand_like(logits), hard=hard)
    assert torch.equal(mask_nll(mask, logits), mask_entropy(mask, logits))
    assert not torch.allclose(mask_nll(mask, logits), mask_entropy(mask, logits, exact=True))


def test_costs_written_out_slowly():
    mask, logits = torch.rand(2, 1, 3, 3).double(), torch.randn(2, 1, 3, 3).double()
    images, decoded = torch.rand(2, 3, 3, 3).double(), torch.randn(2, 3, 3, 3).double()
    rho = torch.sigmoid(logits)
    for b in range(2):
        bits, pixels = 0.0, 0.0
        for y in range(3):
            for x in range(3):
                m, p = mask[b, 0, y, x], rho[b, 0, y, x]
                bits -= (1 - m) * math.log(1 - p) + m * math.log(p)
                normal = torch.distributions.Normal(decoded[b, :, y, x], math.sqrt(0.2))
                pixels -= m * normal.log_prob(images[b, :, y, x]).sum()
        torch.testing.assert_close(mask_nll(mask, logits)[b], bits)
        cost = pixel_nll(images, decoded, mask, variance=0.2, normalised=True)
        torch.testing.assert_close(cost[b], pixels)
    mean, logvar = torch.randn(4, 6), torch.randn(4, 6)
    code = torch.distributions.Normal(mean, (logvar / 2).exp())
    prior = torch.distributions.Normal(torch.zeros(6), torch.ones(6))
    torch.testing.assert_close(
        prior_kl(mean, logvar), torch.distributions.kl_divergence(code, prior).sum(1)
    )


def test_extreme_logits_stay_finite():
    logits = torch.tensor([-300.0, 300.0, 90.0, -90.0]).reshape(1, 1, 2, 2).requires_grad_()
    mask = sample_mask(logits, torch.rand(1, 1, 2, 2))
    loss = mask_nll(mask, -logits).sum() + mask_entropy(mask, logits).sum()
    assert loss.isfinite()
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_with_a_detached_mask_the_entropy_teaches_nothing_on_average():
    logits = torch.tensor([-1.5, 0.4, 2.0]).double().repeat(1, 1, 200_000, 1).requires_grad_()
    u = torch.rand(logits.shape, generator=generator(), dtype=torch.float64)
    mask = sample_mask(logits, u, hard=True)
    (detached,) = torch.autograd.grad(mask_entropy(mask.detach(), logits), logits)
    (through,) = torch.autograd.grad(mask_entropy(mask, logits), logits)
    rho = torch.sigmoid(logits[0, 0, 0])
    error = 4 * (rho * (1 - rho) / 200_000).sqrt()
    assert (detached.mean((0, 1, 2)).abs() < error).all()
    assert (through.mean((0, 1, 2)).abs() > 10 * error).all()


def test_masks_are_bernoulli_and_warm_ones_are_greyer():
    logits = torch.logit(torch.tensor(0.3)).repeat(1, 1, 300, 300)
    u = torch.rand(logits.shape, generator=generator())
    hard = sample_mask(logits, u, hard=True)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert abs(hard.mean() - 0.3) < 0.01
    greys = [(m := sample_mask(logits, u, temperature=t)).mul(1 - m).mean() for t in (0.1, 0.7, 2)]
    assert greys == sorted(greys)
    with pytest.raises(InputError, match="temperature"):
        sample_mask(logits, u, temperature=0)


def test_straight_through_masks_have_the_relaxed_gradient():
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    u, weight = torch.rand(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    grads = [
        torch.autograd.grad((weight * sample_mask(logits, u, hard=hard)).sum(), logits)[0]
        for hard in (True, False)
    ]
    torch.testing.assert_close(*grads)


def test_beyond_the_bound_gradients_only_lead_back():
    values = torch.tensor([-9.0, -9.0, -2.0, 0.0, 2.0, 9.0, 9.0]).reshape(1, 1, 1, 7)
    logits, weight = values.clone().requires_grad_(), torch.tensor([1.0, -1, 1, -1, 1, -1, 1])
    found = bounded(logits, 4.0)
    assert found.flatten().tolist() == [-4, -4, -2, 0, 2, 4, 4]
    (gradient,) = torch.autograd.grad((weight * found).sum(), logits)
    # descent moves against the gradient: -9 may only grow and 9 only shrink
    assert gradient.flatten().tolist() == [0, -1, 1, -1, 1, 0, 1]


@pytest.mark.parametrize("start", [-60.0, 60.0])
@pytest.mark.parametrize("bound", [6.0, math.inf])
def test_a_mask_that_is_fully_open_or_closed_comes_back_if_it_is_bounded(start, bound):
    model, (images, _) = small_model(bound=bound), batch(count=16)
    bias = list(model.mask.parameters())[-1]
    torch.nn.init.constant_(bias, start)
    optimizer = torch.optim.Adam([bias], lr=1.0)
    for step in range(100):
        noise = model.noise(images, torch.Generator().manual_seed(step))
        logits = model.mask_logits(images)
        loss = start * sample_mask(logits, noise.u).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (bias.item() * start < 0) == (bound == 6.0)


def test_hidden_pixels_say_nothing():
    images, mask = torch.rand(2, 3, 4, 4), (torch.rand(2, 1, 4, 4) > 0.5).float()
    other = torch.where(mask > 0, images, torch.rand(2, 3, 4, 4))
    assert torch.equal(masked(images, mask), masked(other, mask))
    assert masked(images, mask).shape == (2, 4, 4, 4)


def test_to_an_untaught_classifier_hidden_is_black():
    model = MaskModel(SMALL, channels=1, classes=2)
    images, mask = torch.rand(2, 1, 16, 16), (torch.rand(2, 1, 16, 16) > 0.5).float()
    whole = torch.ones_like(mask)
    seen = model.classify(images, mask)
    torch.testing.assert_close(seen, model.classify(images * mask, whole))
    next(model.classifier.parameters()).data[:, 1:] = 1.0
    assert not torch.allclose(seen, model.classify(images, mask))
    given = torch.cat([images * mask, mask - 1], 1)
    torch.testing.assert_close(model.classify(images, mask), model.classifier(given))


def test_random_rectangles_only_add():
    images = torch.zeros(3000, 1, 24, 30)
    rectangle = random_rectangles(images, generator())
    plane = rectangle[:, 0]
    heights, widths = plane.amax(2).sum(1), plane.amax(1).sum(1)
    assert torch.equal(plane.sum((1, 2)), heights * widths)
    assert set(heights.tolist()) == set(range(3, 9))
    assert set(widths.tolist()) == set(range(3, 11))
    often = plane.mean(0)
    assert often.min() > 0
    torch.testing.assert_close(often, often.flip(0, 1), atol=0.04, rtol=0)
    mask = torch.rand(3000, 1, 24, 30)
    assert (grown_mask(mask, rectangle) >= mask).all()


GRIDS = {
    "mnist": ((6, 6), (4, 4)),
    "cifar": ((7, 7), (1, 1)),
    "multi-digit": ((13, 13), (4, 4)),
    "svhn": ((31, 31), (4, 4)),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_published_networks_have_the_published_grids(name):
    a, channels = ARCHITECTURES[name], 3 if name in ("cifar", "svhn") else 1
    first_half = LineNet(a.mask.split("|")[0], (channels, a.size, a.size))
    assert first_half.shape[1:] == GRIDS[name][0]
    encoder = LineNet(a.encoder, (channels + 1, a.size, a.size))
    assert encoder.shape[1:] == GRIDS[name][1]
    assert encoder(torch.rand(2, channels + 1, a.size, a.size)).shape[1:] == encoder.shape
    decoder = LineNet(a.decoder, (a.latent,))
    assert decoder.shape == (channels + 1, a.size, a.size)
    assert decoder(torch.rand(2, a.latent)).shape[1:] == decoder.shape
    model = MaskModel(a, channels=channels, classes=4)
    images = torch.rand(2, channels, a.size, a.size)
    assert model.mask_logits(images).shape == (2, 1, a.size, a.size)
    assert model(images).shape == (2, 4)
    assert model.mask_logits(images).mean() > 0.5  # mostly transparent


def test_the_mnist_classifier_written_out():
    net = LineNet("C114 C324 C118 C328 C1116 C3216 Avg FC2", (2, 28, 28), relu6=True)
    w = list(net.parameters())
    x = want = torch.rand(3, 2, 28, 28)
    for i, stride in enumerate((1, 2, 1, 2, 1, 2)):
        want = F.relu6(F.conv2d(want, w[2 * i], w[2 * i + 1], stride))
    torch.testing.assert_close(net(x), F.linear(want.mean((2, 3)), w[12], w[13]))
    assert [p.shape[0] for p in w[::2]] == [4, 4, 8, 8, 16, 16, 2]


def measured_field(line, side):
    net = LineNet(line, (1, side, side)).double()
    images = torch.rand(4, 1, side, side, dtype=torch.float64, requires_grad=True)
    best = 0
    for at in range(side // 2 - 3, side // 2 + 4):  # cells differ by where they lie in a stride
        (grad,) = torch.autograd.grad(net(images)[:, :, at, at].sum(), images)
        seen = grad.abs().sum((0, 1, 2)).nonzero().flatten()
        best = max(best, int(seen.max() - seen.min()) + 1)
    return best


@pytest.mark.parametrize("name", ["mnist", "multi-digit"])
def test_the_mask_sees_no_further_than_stated(name):
    a = ARCHITECTURES[name]
    assert measured_field(a.mask, a.size) == a.field


@pytest.mark.parametrize(("halvings", "field"), [(1, 17), (2, 33), (3, 65), (4, 129)])
def test_stated_fields_of_any_size(halvings, field):
    assert any_size(224, halvings=halvings).field == field
    if halvings < 3:
        line = any_size(96, halvings=halvings, width=4).mask
        assert measured_field(line, 96) == field


@pytest.mark.parametrize("size", [16, 33, 100])
def test_architectures_for_any_size(size):
    model = MaskModel(any_size(size, width=4, latent=6), channels=3, classes=5)
    images, labels = torch.rand(2, 3, size, size), torch.tensor([0, 4])
    terms = model.terms(images, labels, model.noise(images, generator()))
    terms.loss("ib", 0.1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    other = torch.rand(1, 3, size + 7, size - 3)
    assert model.mask_logits(other).shape == (1, 1, size + 7, size - 3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_model_adds_up_its_own_terms(objective):
    model, (images, labels) = small_model(channels=3, objective=objective), batch(3)
    noise = model.noise(images, generator())
    terms = model.terms(images, labels, noise)
    logits = model.mask_logits(images)
    mask = sample_mask(logits, noise.u)
    ce = F.cross_entropy(model.classify(images, mask), labels, reduction="none")
    torch.testing.assert_close(terms.cross_entropy, ce)
    torch.testing.assert_close(terms.entropy, mask_entropy(mask, logits))
    told = F.one_hot(labels, 3).double()
    planes = told[:, :, None, None].expand(-1, -1, 16, 16)

    def run(name, x, extra, z, beside=None):
        part = model.autoencoders[name]
        mean, logvar = part.code(part.encoder(x).flatten(1)).chunk(2, 1)
        code = torch.cat([mean + (logvar / 2).exp() * z, extra], 1)
        return part.decoder(code, beside), prior_kl(mean, logvar)

    seen, none = torch.cat([images * mask, mask], 1), told[:, :0]
    if objective == "cmi":
        decoded, kl = run("seen", seen, none, noise.z[0], mask)
        a = 4 * (mask * (images - decoded) ** 2).sum((1, 2, 3)) + kl
        decoded, kl = run("shape", mask, none, noise.z[1])
        b = mask_nll(mask, decoded) + kl
        x = torch.cat([images, mask, planes], 1)
        decoded, kl = run("whole", x, told, noise.z[2], mask)
        c = 4 * ((images - decoded) ** 2).sum((1, 2, 3)) + kl
        want = ce + 0.2 * a + b - mask_entropy(mask, logits) + c
    else:
        ceb = objective == "ceb"
        x = torch.cat([seen, planes], 1) if ceb else seen
        decoded, kl = run("seen", x, told if ceb else none, noise.z[0])
        v = mask_nll(mask, decoded[:, :1]) + kl
        v = v + 4 * (mask * (images - decoded[:, 1:]) ** 2).sum((1, 2, 3))
        want = ce + (0.25 if ceb else 0.2) * (v - mask_entropy(mask, logits))
    torch.testing.assert_close(terms.loss(objective, 0.2), want)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_untrained_autoencoder_expects_the_untrained_mask(objective):
    model, (images, labels) = small_model(objective=objective, first_logit=3.0), batch(count=16)
    terms = model.terms(images, labels, model.noise(images, generator()))
    told = terms.shape if objective == "cmi" else terms.seen
    assert abs(model.mask_logits(images).mean() - 3) < 0.1
    assert (told.mask - terms.entropy).abs().max() < 0.05 * terms.entropy.mean()


def test_only_the_classifier_sees_the_rectangle():
    model, (images, labels) = small_model(randomise=True), batch()
    noise = model.noise(images, generator())
    shown = model.terms(images, labels, noise)
    plain = model.terms(images, labels, replace(noise, rectangle=None))
    assert not torch.allclose(shown.cross_entropy, plain.cross_entropy)
    assert torch.equal(shown.seen.total, plain.seen.total)
    assert torch.equal(shown.entropy, plain.entropy)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_closed_gate_changes_no_value_and_stops_what_beta_multiplies(objective):
    model, (images, labels) = small_model(objective=objective), batch()
    noise = model.noise(images, generator())
    parts = {}
    for gated in (False, True):
        terms = model.terms(images, labels, noise, gated=gated)
        loss = terms.loss(objective, 0.3).sum()
        parts[gated] = (
            loss.detach(),
            torch.autograd.grad(loss, [*model.autoencoders.parameters()], retain_graph=True),
            torch.autograd.grad(loss, [*model.mask.parameters()]),
        )
    torch.testing.assert_close(parts[True][:2], parts[False][:2])
    terms = model.terms(images, labels, noise)
    rest = terms.cross_entropy
    if objective == "cmi":
        rest = rest + terms.shape.total + terms.whole.total - terms.entropy
    want = torch.autograd.grad(rest.sum(), [*model.mask.parameters()])
    torch.testing.assert_close(parts[True][2], want)
    assert not torch.allclose(parts[False][2][0], want[0])


def test_how_beta_follows():
    fixed, gate = BetaControl(kind="fixed", beta=0.1), BetaControl(kind="gate", target=10)
    assert fixed.after(1e9) == fixed
    assert gate.after(9.9).gated
    assert not gate.after(9.9).after(10.1).gated
    adaptive = BetaControl(beta=1.0, target=100)
    for vae, beta in [(104, 1.0), (96, 1.0), (106, 1.01), (94, 1 / 1.01)]:
        assert adaptive.after(vae).beta == pytest.approx(beta)
    assert replace(adaptive, beta=1e3).after(1e9).beta == 1e3
    assert replace(adaptive, beta=1e-6).after(1.0).beta == 1e-6


def test_beta_follows_running_means_and_is_kept_with_the_weights():
    control = BetaControl(beta=1.0, target=100, rate=1.1)
    beta, other = Beta(control, 0.9), Beta(control, 0.9)
    beta.follow(vae=200.0, entropy=1.0, cross_entropy=0.0)
    beta.follow(vae=0.0, entropy=1.0, cross_entropy=0.0)  # the mean is 180
    assert beta.control.beta == pytest.approx(1.1**2)
    other.load_state_dict(beta.state_dict())
    for _ in range(20):
        for one in (beta, other):
            one.follow(vae=0.0, entropy=1.0, cross_entropy=0.0)
    assert beta.control == other.control
    assert beta.control.beta < 1.1**2
    short = Beta(control)
    short.follow(vae=200.0, entropy=1.0, cross_entropy=0.0)
    short.follow(vae=0.0, entropy=1.0, cross_entropy=0.0)
    assert short.control.beta == pytest.approx(1.0)


def test_beta_follows_what_is_seen_beyond_the_masks_noise_and_spares_the_class():
    control = BetaControl(beta=1.0, target=10, net=True, rate=1.1, most=0.5)
    assert control.after(80, entropy=70).beta == 1
    assert control.after(82, entropy=70).beta == pytest.approx(1.1)
    assert control.after(78, entropy=70).beta == pytest.approx(1 / 1.1)
    assert control.after(82, entropy=70, cross_entropy=0.6).beta == 1
    for size in (82, 78):
        lost = control.after(size, entropy=70, cross_entropy=0.7)
        assert lost.beta == pytest.approx(1.1**-10)


def test_a_settled_network_is_even():
    net = LineNet("C314 C324 Avg FC2", (1, 12, 12))
    x = 0.1 * torch.rand(64, 1, 12, 12)
    settle(net, x)
    for step in net.steps:
        out = step(x)
        if hasattr(step, "weight"):
            flat = out.transpose(0, 1).flatten(1)
            torch.testing.assert_close(flat.mean(1), torch.full_like(flat[:, 0], 0.5))
            torch.testing.assert_close(flat.std(1), torch.ones_like(flat[:, 0]))
        x = out


def test_areas_that_tell_the_class_are_found_out():
    labels = torch.arange(400) % 4
    blind, telling = torch.rand(400, generator=generator()), labels / 4 + 0.1
    assert area_accuracy(telling, labels, 4) == 1
    assert area_accuracy(blind, labels, 4) < 0.4


def test_statistics_of_a_mask_that_is_known():
    images, labels, regions = corner_task(64)
    model = MaskModel(SMALL, channels=1, classes=3, options=MaskOptions(bound=math.inf))
    torch.nn.init.zeros_(list(model.mask.parameters())[-2])
    torch.nn.init.constant_(list(model.mask.parameters())[-1], 50.0)
    scores = mask_statistics(model, images, labels, regions)
    assert (scores.inside, scores.outside) == (1, 1)
    assert torch.equal(scores.area[:2], torch.ones(2))
    assert scores.area[2].isnan()
    assert scores.accuracy == scores.accuracy_grown == scores.accuracy_likely
    right = (model(images).argmax(1) == labels).float()
    torch.testing.assert_close(scores.class_accuracy[:2], right.reshape(32, 2).mean(0))
    assert (scores.probability == 1).all()


def test_the_likeliest_mask_is_that_of_the_models_own_answer():
    images, _, regions = corner_task(64)
    torch.manual_seed(0)
    model = MaskModel(SMALL, channels=1, classes=2, options=MaskOptions(first_logit=0.0))
    torch.nn.init.normal_(list(model.mask.parameters())[-2])
    lead = (model(images) @ torch.tensor([-1.0, 1.0])).detach()
    list(model.classifier.parameters())[-1].data[0] += lead.median()  # both answers are given
    answers = model(images).argmax(1)
    scores = mask_statistics(model, images, answers, regions)
    assert scores.accuracy_likely == 1 > scores.accuracy


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: MaskOptions(objective="cmi", randomise=True), "randomise=False"),
        (lambda: MaskOptions(variance=0.0), "positive"),
        (lambda: MaskOptions(first_logit=7.0), "within the bound"),
        (lambda: MaskOptions(first_logit=-6.0), "within the bound"),
        (lambda: BetaControl(target=0.0), "target positive"),
        (lambda: BetaControl(rate=0.9), "rate is 1 or more"),
        (lambda: LineNet("C3216 D4", (1, 28, 28)), "'D4'"),
        (lambda: LineNet("C3216 C3216", (1, 5, 5)), "does not fit"),
        (lambda: LineNet("FC10 S3", (4,)), "multiple of 9"),
        (lambda: receptive_field("Cs316 FC4", 28), "FC"),
        (lambda: any_size(8), "16 or more"),
        (lambda: MaskModel(replace(SMALL, size=20), channels=1, classes=2), "decoder"),
        (lambda: MaskModel(replace(SMALL, mask="C314"), channels=1, classes=2), "mask line"),
        (lambda: area_accuracy(torch.rand(1), torch.tensor([0]), 2), "half"),
    ],
)
def test_mistakes_are_named(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_weights_of_the_wrong_kind_are_refused():
    zeros = torch.zeros(2)
    code = CodeTerms(mask=zeros, pixels=zeros, kl=zeros)
    terms = MaskTerms(cross_entropy=zeros, entropy=zeros, seen=code)
    for objective, beta in (("ib", -1.0), ("ceb", 1.0), ("cmi", 0.1)):
        with pytest.raises(InputError):
            terms.loss(objective, beta)
