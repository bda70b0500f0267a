"""PC-softmax, mutual information, the Gaussians whose information is known, and infoCAM's claim."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.errors import InputError, TargetError
from attrib.information import (
    estimate,
    gaussian_log_densities,
    gaussian_mixture,
    mutual_information,
    pc_cross_entropy,
    pc_log_softmax,
    pmi,
    true_mi,
)
from examples import gaussian_mi, imbalanced_digits
from tests.models import AWKWARD, SPEC, Everything, images, make

PRIOR = (0.07, 0.13, 0.2, 0.27, 0.33)
UNEQUAL = [y / 15 for y in range(1, 6)]
LOG5 = math.log(5)


@pytest.fixture
def golden(shared):
    with np.load(shared / "golden" / "infocam.npz", allow_pickle=False) as file:
        return {k.removeprefix("pc/"): file[k] for k in file.files if k.startswith("pc/")}


def batch(n=40, c=5, scale=3.0):
    return scale * torch.randn(n, c, dtype=torch.float64), torch.randint(c, (n,))


def prior_of(c):
    prior = torch.rand(c, dtype=torch.float64) + 0.05
    return prior / prior.sum()


def test_published_pc_softmax(golden):
    logits, targets = torch.from_numpy(golden["logits"]), torch.from_numpy(golden["y"])
    prior = torch.from_numpy(golden["prior"])
    np.testing.assert_allclose(pc_log_softmax(logits, prior).exp(), golden["softmax"], rtol=1e-10)
    loss = pc_cross_entropy(logits, targets, prior)
    assert loss.item() == pytest.approx(float(golden["nll"]), rel=1e-12)
    found = mutual_information(logits, targets, prior)
    assert found.value == pytest.approx(float(golden["mi_estimate_nats"]), rel=1e-12)
    plain = mutual_information(logits, targets)
    assert plain.value == pytest.approx(float(golden["mi_softmax_plus_logM"]), rel=1e-12)


@pytest.mark.parametrize("c", [1, 2, 5, 100])
def test_facts_of_pc_softmax(c):
    logits, _ = batch(c=c)
    prior = prior_of(c)
    found = pc_log_softmax(logits, prior)
    want = torch.stack([row.exp() / (prior * row.exp()).sum() for row in logits]).log()
    torch.testing.assert_close(found, want)
    torch.testing.assert_close((prior * found.exp()).sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(pc_log_softmax(found, prior), found)
    torch.testing.assert_close(pc_log_softmax(logits + 7, prior), found)
    uniform = torch.full((c,), 1 / c)
    torch.testing.assert_close(
        pc_log_softmax(logits, uniform), logits.log_softmax(1) + math.log(c), rtol=0, atol=1e-6
    )
    if c > 1:
        assert found.exp().max() > 1


def test_the_loss_is_cross_entropy_of_logits_that_carry_the_prior():
    logits, targets = batch()
    prior = prior_of(5)
    want = F.cross_entropy(logits + prior.log(), targets) + prior.log()[targets].mean()
    torch.testing.assert_close(pc_cross_entropy(logits, targets, prior), want)
    assert torch.autograd.gradcheck(
        lambda x: pc_cross_entropy(x, targets, prior), logits.requires_grad_()
    )


def test_extreme_logits_are_no_trouble():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-3e4, -3e4, -2e4]], requires_grad=True)
    found = pc_log_softmax(logits, (0.5, 0.25, 0.25))
    want = torch.tensor([[0, -2e4, -1e4], [-1e4, -1e4, 0]]) + torch.tensor([[2.0], [4.0]]).log()
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-6)
    loss = pc_cross_entropy(logits, torch.tensor([1, 2]), (0.5, 0.25, 0.25))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    tiny = (1e-60, 0.5, 0.5)
    assert pc_log_softmax(torch.zeros(1, 3), tiny).isfinite().all()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ((0.5, 0.5, 0.0), "a prior is positive for every class, its least is 0"),
        ((0.5, 0.8, -0.3), "its least is -0.3"),
        ((0.5, 0.4, math.nan), "positive"),
        ((0.5, 0.4, math.inf), "sums to 1, got inf"),
        ((6, 12, 18), "sums to 1, got 36; divide counts by their total"),
        ((0.5, 0.5), r"a prior of shape \(2,\) for 3 classes"),
    ],
)
def test_bad_priors(prior, message):
    logits, targets = torch.zeros(2, 3), torch.tensor([0, 2])
    for given in (prior, torch.tensor(prior, dtype=torch.float32)):
        with pytest.raises(InputError, match=message):
            pc_log_softmax(logits, given)
        with pytest.raises(InputError, match=message):
            pc_cross_entropy(logits, targets, given)
        with pytest.raises(InputError, match=message):
            mutual_information(logits, targets, given)


def test_bad_targets():
    logits = torch.zeros(2, 3)
    for targets, message in (
        ([0, 3], "targets are 0 to 2, got 0 to 3"),
        ([-100, 1], "got -100 to 1"),
        ([0], r"shape \(1,\) for 2 rows"),
    ):
        with pytest.raises(TargetError, match=message):
            pc_cross_entropy(logits, torch.tensor(targets), [0.2, 0.3, 0.5])
        for prior in (None, "empirical"):
            with pytest.raises(TargetError, match=message):
                pmi(logits, torch.tensor(targets), prior)
            with pytest.raises(TargetError, match=message):
                mutual_information(logits, torch.tensor(targets), prior)


def test_pmi_and_its_mean_are_the_definition():
    logits, targets = batch()
    counts = targets.bincount(minlength=5) / 40
    for prior, known in ((None, torch.full((5,), 0.2)), ("empirical", counts), (PRIOR, PRIOR)):
        known = torch.as_tensor(known, dtype=torch.float64)
        want = torch.stack(
            [
                (row[y].exp() / (known * row.exp()).sum()).log()
                for row, y in zip(logits, targets, strict=True)
            ]
        )
        torch.testing.assert_close(pmi(logits, targets, prior), want, rtol=1e-6, atol=1e-6)
        found = mutual_information(logits, targets, prior)
        assert found.value == pytest.approx(want.mean().item(), abs=1e-6)
        assert found.entropy_of_labels == pytest.approx(-(known * known.log()).sum().item())
        assert found.standard_error == pytest.approx(want.std(correction=0).item() / 40**0.5)
        assert (found.samples, found.confidence) == (40, 0.95)


def test_information_is_at_most_the_entropy_of_the_labels():
    """Exactly so with the prior of the samples, whatever the logits."""
    for scale in (0.1, 3.0, 300.0):
        logits, targets = batch(scale=scale)
        for given in (logits, logits + scale * F.one_hot(targets, 5)):
            found = mutual_information(given, targets, "empirical", bootstrap=1)
            assert found.value <= found.entropy_of_labels + 1e-12
    sure = 1e3 * F.one_hot(targets, 5).double()
    found = mutual_information(sure, targets, "empirical")
    assert found.value == pytest.approx(found.entropy_of_labels)
    assert mutual_information(0 * sure, targets, "empirical").value == pytest.approx(0)


def test_ordinary_softmax_overestimates_on_unequal_classes():
    """A classifier that is never wrong says log c, which is more than there is."""
    targets = torch.arange(5).repeat_interleave(torch.tensor([1, 2, 3, 4, 5]))
    sure = 1e3 * F.one_hot(targets, 5).double()
    right, wrong = (mutual_information(sure, targets, prior) for prior in ("empirical", None))
    assert wrong.value == pytest.approx(LOG5)
    assert wrong.value - right.entropy_of_labels == pytest.approx(LOG5 - 1.48975, abs=1e-5)


def test_without_its_log_prior_an_ordinary_classifier_estimates_as_pc_softmax_does():
    points, labels = gaussian_mixture(2, [100, 200, 300, 400, 500])
    prior = torch.tensor(UNEQUAL)
    ideal = gaussian_log_densities(points)
    ordinary = ideal + prior.log()  # what cross-entropy learns: log P(y|x) but for a constant
    want = pmi(ideal, labels, prior)
    torch.testing.assert_close(pmi(ordinary - prior.log(), labels, prior), want)
    found = ordinary.log_softmax(1).gather(1, labels[:, None])[:, 0] - prior.log()[labels]
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


def test_the_interval_is_that_of_a_mean():
    logits, targets = batch(2000)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = mutual_information(logits, targets, PRIOR)
    assert found == mutual_information(logits, targets, PRIOR)
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()
    assert found.low < found.value < found.high
    half = (found.high - found.low) / 2
    assert half == pytest.approx(1.96 * found.standard_error, rel=0.1)
    narrow = mutual_information(logits, targets, PRIOR, confidence=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.674 * found.standard_error, rel=0.1)
    assert found.low != mutual_information(logits, targets, PRIOR, seed=1).low


def test_bad_estimates():
    logits, targets = batch()
    for options in ({"bootstrap": 0}, {"confidence": 0.0}, {"confidence": 1.0}):
        with pytest.raises(InputError, match="bootstrap is at least 1 and confidence in"):
            mutual_information(logits, targets, **options)
    for count in (0, 1):
        with pytest.raises(InputError, match=f"takes two samples or more, got {count}"):
            mutual_information(logits[:count], targets[:count])
    with pytest.raises(InputError, match="1 of 5 classes have none, class 3 for one"):
        mutual_information(logits[:4], torch.tensor([0, 1, 2, 4]), "empirical")
    logits[7] = math.nan
    with pytest.raises(InputError, match="PMI of row 7 is nan"):
        mutual_information(logits, targets)
    with pytest.raises(InputError, match="probability per class or None, got 'uniform'"):
        mutual_information.__wrapped__(logits, targets, "uniform")


@pytest.mark.parametrize("name", AWKWARD)
def test_estimating_leaves_everything_as_it_was(name):
    model = make(name)
    x, y = images(12), torch.randint(5, (12,))
    kept = x.clone()
    before = Everything(model)
    found = estimate(model, zip(x.split(5), y.split(5), strict=True), PRIOR, bootstrap=50)
    before.assert_same(model)
    assert torch.equal(x, kept)
    with attrib.surgery.inference(model):
        logits = model(kept)
    want = mutual_information(logits, y, PRIOR, bootstrap=50)
    assert found.value == pytest.approx(want.value, abs=1e-5)
    assert found.samples == 12


def test_estimating_on_a_loader_that_shuffles_leaves_the_random_state():
    data = torch.utils.data.TensorDataset(images(10), torch.arange(10) % 5)
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    state = torch.get_rng_state()
    found = estimate(make("plain"), loader, "empirical")
    assert torch.equal(torch.get_rng_state(), state)
    assert found.samples == 10


def test_estimating_errors():
    with pytest.raises(InputError, match="no batches"):
        estimate(make("plain"), [])
    with pytest.raises(InputError, match=r"the model returns \(3, 12, 8, 8\); logits"):
        estimate(make("plain").features, [(images(3), torch.zeros(3).long())])
    with pytest.raises(TargetError, match="for 3 rows"):
        estimate(make("plain"), [(images(3), torch.zeros(2).long())])


@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
@pytest.mark.parametrize("balance", ["balanced", "imbalanced"])
def test_true_information_of_the_gaussians(shared, dimension, balance):
    with np.load(shared / "golden" / "gaussian_mi_reference.npz", allow_pickle=False) as file:
        value, error, entropy, _ = file[f"{balance}_{dimension}"]
    prior = None if balance == "balanced" else UNEQUAL
    found = true_mi(dimension, prior, 20_000, seed=1)
    assert abs(found.value - value) <= 3 * math.hypot(error, found.standard_error)
    assert found.entropy_of_labels == pytest.approx(entropy)
    assert found.value <= entropy


@pytest.mark.parametrize("balance", ["balanced", "imbalanced"])
def test_the_best_classifier_of_the_sampled_gaussians(shared, balance):
    """Its accuracy is Bayes', on points drawn by the sampler that examples train on."""
    counts = [4000] * 5 if balance == "balanced" else [1300, 2600, 3900, 5200, 6500]
    prior = torch.tensor(counts) / sum(counts)
    with np.load(shared / "golden" / "gaussian_mi_reference.npz", allow_pickle=False) as file:
        for dimension in (1, 2):
            *_, accuracy = file[f"{balance}_{dimension}"]
            points, labels = gaussian_mixture(dimension, counts)
            said = (gaussian_log_densities(points) + prior.log()).argmax(1)
            n = len(labels)
            error = (accuracy * (1 - accuracy) * (1 / n + 1 / 200_000)) ** 0.5
            assert abs((said == labels).double().mean() - accuracy) <= 3 * error


def test_information_of_one_axis_by_integration():
    """Against the integral of P(y) P(x|y) log P(x|y) / P(x) on a fine grid."""
    x = torch.linspace(-14, 14, 20_001, dtype=torch.float64)
    for prior in ([0.2] * 5, UNEQUAL):
        p = torch.tensor(prior, dtype=torch.float64)
        means = torch.tensor([0.0, 2, -2, 4, -4], dtype=torch.float64)
        density = torch.exp(-0.5 * (x[:, None] - means) ** 2) / math.sqrt(2 * math.pi)
        integrand = (p * density * (density / (density @ p)[:, None]).log()).sum(1)
        want = torch.trapezoid(integrand, x).item()
        found = true_mi(1, prior, 50_000)
        assert abs(found.value - want) <= 3 * found.standard_error


def test_the_sampler():
    counts = [500, 1000, 1500, 0, 2000]
    points, labels = gaussian_mixture(3, counts, seed=4)
    assert (points.shape, points.dtype) == ((5000, 3), torch.float32)
    assert labels.bincount(minlength=5).tolist() == counts
    assert labels[:500].unique().tolist() == [0, 1, 2, 4]  # in random order
    for y, mean in enumerate((0, 2, -2, 4, -4)):
        if counts[y]:
            own = points[labels == y]
            assert (own.mean(0) - mean).abs().max() < 4 / counts[y] ** 0.5
            assert (own.T.cov() - torch.eye(3)).abs().max() < 6 / counts[y] ** 0.5
    assert torch.equal(points, gaussian_mixture(3, counts, seed=4)[0])
    assert not torch.equal(points, gaussian_mixture(3, counts, seed=5)[0])
    state = torch.get_rng_state()
    gaussian_mixture(1, counts)
    true_mi(1, samples=10)
    assert torch.equal(state, torch.get_rng_state())


def test_the_samplers_errors():
    for counts in ([1, 2, 3], [1, 2, 3, 4, -5]):
        with pytest.raises(InputError, match="counts are 5 numbers of points, got"):
            gaussian_mixture(1, counts)
    for draw in (lambda: gaussian_mixture(0, [1] * 5), lambda: true_mi(0)):
        with pytest.raises(InputError, match="dimension is at least 1, got 0"):
            draw()
    with pytest.raises(InputError, match="samples is at least 1, got 0"):
        true_mi(1, samples=0)


@pytest.mark.parametrize("name", ["plain", "bias-free"])
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["softmax", "PC-softmax"])
def test_infocam_is_the_difference_of_information_it_is_derived_from(name, prior):
    """Diff(PMI), above eq. 14, cell by cell.

    PMI(y) minus the mean PMI of the other classes is n_y minus the mean of the other logits: the
    normaliser cancels, whatever the prior. It is the mean of infoCAM's map without region over the
    grid (the paper's sum, as it leaves out the 1/|U| of average pooling) plus the same difference
    of the biases, which the map leaves out. infoCAM+ is PMI(y) minus the least PMI, likewise.
    """
    model = make(name).double().eval()
    x = images(3).double()
    logits = model(x).detach()
    bias = torch.zeros(5) if model.fc.bias is None else model.fc.bias.detach()
    for y in range(5):
        every = torch.stack([pmi(logits, torch.full((3,), c), prior) for c in range(5)], 1)
        others = [c for c in range(5) if c != y]
        diff = every[:, y] - every[:, others].mean(1)
        torch.testing.assert_close(diff, logits[:, y] - logits[:, others].mean(1))
        maps = attrib.Explainer(model, "infocam(region=1)", spec=SPEC)(x, [y] * 3).maps
        left_out = bias[y] - bias[others].mean()
        torch.testing.assert_close(maps.mean((1, 2)) + left_out, diff)

        least = logits.index_fill(1, torch.tensor(y), math.inf).argmin(1)
        diff = every[:, y] - every.gather(1, least[:, None])[:, 0]
        maps = attrib.Explainer(model, "infocam+(region=1)", spec=SPEC)(x, [y] * 3).maps
        torch.testing.assert_close(maps.mean((1, 2)) + bias[y] - bias[least], diff)


def test_the_paper_s_sum_over_a_region_is_the_information_of_the_region_alone():
    """Eq. 14: pooled over only the cells of R, the difference of PMI is the map's value at R."""
    model = make("bias-free").double().eval()
    x = images(1).double()
    grid = model.features(x).detach()
    maps = attrib.Explainer(model, "infocam(region=3, border='full')", spec=SPEC)(x, [2]).maps[0]
    assert maps.shape == (10, 10)
    for a, b in ((0, 0), (2, 2), (4, 7), (9, 9)):
        cells = grid[0, :, max(a - 2, 0) : a + 1, max(b - 2, 0) : b + 1].sum((1, 2))
        every = pc_log_softmax(model.fc(cells)[None], PRIOR)[0].detach()
        diff = every[2] - every[[0, 1, 3, 4]].mean()
        torch.testing.assert_close(maps[a, b], diff)


def test_training_with_pc_softmax_estimates_the_information():
    """A linear classifier of one axis is enough where the classes lie on a line."""
    counts = [600, 1200, 1800, 2400, 3000]
    points, labels = gaussian_mixture(1, counts)
    net = nn.Linear(1, 5)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200)

    def closure():
        optimizer.zero_grad()
        loss = pc_cross_entropy(net(points), labels, UNEQUAL)
        loss.backward()
        return loss

    optimizer.step(closure)
    fresh = gaussian_mixture(1, counts, seed=1)
    found, truth = estimate(net, [fresh], UNEQUAL), true_mi(1, UNEQUAL, 50_000)
    assert abs(found.value - truth.value) < 4 * found.standard_error
    over = estimate(net, [fresh])
    assert abs(over.value - truth.value) > 0.05


def test_the_digits_of_the_example_are_equalised_then_the_even_ones_thinned():
    labels = torch.arange(10).repeat_interleave(torch.arange(20, 30))
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None].expand(-1, 28, 28)
    full = imbalanced_digits.equalised((images, labels), torch.Generator().manual_seed(0))
    for (pictures, digits), even, odd in (
        (full, 20, 20),
        (imbalanced_digits.equalised((images, labels), torch.Generator(), 7), 7, 7),
        (imbalanced_digits.thinned(full, 0.5), 10, 20),
        (imbalanced_digits.thinned(full, 0.1), 2, 20),
    ):
        assert digits.bincount().tolist() == [even, odd] * 5
        rows = pictures[:, 0, 0].long()
        assert len(rows.unique()) == len(rows)
        assert torch.equal(labels[rows], digits)


def test_accuracies_of_the_example():
    labels = torch.arange(10).repeat_interleave(2)
    net = imbalanced_digits.Net()
    for parameter in net.parameters():
        parameter.detach().zero_()
    net[-1].bias.detach()[3] = 1  # it always says 3
    data = torch.zeros(20, 28, 28, dtype=torch.uint8), labels
    assert imbalanced_digits.accuracies(net, data) == pytest.approx((0.1, 0.1))
    more = data[0][:14], torch.cat([torch.arange(10), torch.full((4,), 3)])
    assert imbalanced_digits.accuracies(net, more) == pytest.approx((5 / 14, 0.1))


def test_the_parts_of_the_gaussians_of_the_example():
    data = gaussian_mixture(2, [3, 4, 5, 6, 7])
    parts = gaussian_mi.split(data)
    assert [len(points) for points, _ in parts] == [15, 5, 5]
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts]), data[i])
