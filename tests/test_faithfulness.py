"""Every faithfulness metric beside its definition, written out one pixel at a time in float64."""

import importlib.util
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import nn
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.errors import InputError, MemoryWarning, SpecError, TargetError, UnknownNameError
from attrib.methods import resolve
from attrib.metrics import (
    METRICS,
    ROAD,
    Deletion,
    Infidelity,
    Insertion,
    MaxSensitivity,
    Randomisation,
    curve,
    parameter_randomisation,
    resolve_metric,
)
from attrib.metrics.base import ask, check_maps
from attrib.metrics.impute import impute
from attrib.metrics.randomisation import layers_of, randomise
from attrib.metrics.reference import reference_of
from attrib.metrics.sensitivity import infidelity, squares
from attrib.metrics.similarity import spearman, ssim
from attrib.metrics.sparseness import gini
from attrib.registry import format_spec
from attrib.types import ModelSpec, Targets
from tests.models import AWKWARD, SPEC, Everything, Pooled, images, make

PAIRS = Targets(image=torch.tensor([0, 0, 2]), label=torch.tensor([1, 4, 0]))
SHORT = {
    "deletion": "deletion(steps=3)",
    "insertion": "insertion(steps=3)",
    "road": "road(percent=(30, 60))",
    "infidelity": "infidelity(samples=4)",
    "max-sensitivity": "max-sensitivity(samples=2)",
    "randomisation": "randomisation(layers=('fc',))",
}
NAMES = [SHORT.get(name, name) for name in METRICS]


def explain_by(name):
    method = resolve(name)

    def explain(classifier, batch, targets):
        maps = method.attribute(classifier, batch, targets).maps
        return F.interpolate(maps[:, None], batch.shape[-2:], mode="bilinear")[:, 0]

    return explain


def setting(name="plain", method="cam", size=(32, 32)):
    classifier = attrib.split(make(name), spec=SPEC, need="features")
    batch = images(3, size)
    explain = explain_by(method)
    return classifier, batch, explain(classifier, batch.clone(), PAIRS), explain


def literal_probability(classifier, image, label):
    model = classifier.model.double()
    try:
        with torch.no_grad():
            logits = [float(x) for x in model.eval()(image[None].double().clone())[0]]
    finally:
        model.float()
    return math.exp(logits[label]) / sum(math.exp(x) for x in logits)


def literal_curve(classifier, image, other, plane, label, steps, direction):
    """Remove (or add) the highest pixels, one after the other."""
    pixels = [(-v, i) for i, v in enumerate(plane.flatten().tolist())]
    order = [i for _, i in sorted(pixels)]
    height, width = plane.shape
    heights = []
    for step in range(steps + 1):
        first = set(order[: round(step * len(order) / steps)])
        x = torch.empty_like(image)
        for i in range(height * width):
            row, column = divmod(i, width)
            shown = (i in first) == (direction == "insertion")
            x[:, row, column] = (image if shown else other)[:, row, column]
        heights.append(literal_probability(classifier, x, label))
    return heights


@pytest.mark.parametrize("direction", ["deletion", "insertion"])
@pytest.mark.parametrize("reference", ["zero", "mean", "blur"])
def test_curves_and_areas_written_out(direction, reference):
    classifier, batch, maps, _ = setting(size=(12, 10))
    found = curve(direction, classifier, batch, maps, PAIRS, steps=7, reference=reference)
    other = reference_of(batch, reference)
    metric = {"deletion": Deletion, "insertion": Insertion}[direction]
    scores = metric(steps=7, reference=reference)(classifier, batch, maps, PAIRS)
    for row, (i, label) in enumerate([(0, 1), (0, 4), (2, 0)]):
        want = literal_curve(classifier, batch[i], other[i], maps[row], label, 7, direction)
        np.testing.assert_allclose(found[row], want, rtol=1e-5)
        area = sum((a + b) / 2 for a, b in itertools.pairwise(want)) / 7
        assert float(scores[row]) == pytest.approx(area, rel=1e-5)
    assert found.std() > 1e-3


def test_references():
    batch = images(2, (20, 24))
    assert not reference_of(batch, "zero").any()
    mean = reference_of(batch, "mean")
    torch.testing.assert_close(mean[1, 2], torch.full((20, 24), float(batch[1, 2].mean())))
    # deviation 5 pixels, cut off after 5 of them
    want = ndimage.gaussian_filter(batch[1, 2].double(), 5, mode="mirror", radius=5)
    np.testing.assert_allclose(reference_of(batch, "blur")[1, 2], want, atol=1e-5)
    with pytest.raises(InputError, match="too small for a blur"):
        reference_of(images(1, (5, 20)), "blur")


def test_a_map_that_knows_beats_one_that_does_not():
    """A model that reads one corner: the corner first is the fastest way to lose the class."""

    class Corner(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Conv2d(3, 2, 1)
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            level = x[:, :, :4, :4].mean((1, 2, 3))
            return torch.stack([4 * level, -4 * level], 1)

    classifier = attrib.split(Corner(), spec=ModelSpec(input_size=(16, 16)), need="features")
    batch = -torch.ones(1, 3, 16, 16)
    good = torch.zeros(1, 16, 16)
    good[:, :4, :4] = torch.rand(4, 4) + 1
    bad = torch.rand(1, 16, 16) + 1
    bad[:, :4, :4] = 0
    batch[:, :, :4, :4] = 1
    pair = Targets(image=torch.tensor([0]), label=torch.tensor([0]))
    for metric in (Deletion(), Insertion(reference="zero"), ROAD(), Infidelity(samples=64)):
        better = metric(classifier, batch, good, pair)
        worse = metric(classifier, batch, bad, pair)
        sign = 1 if metric.better == "higher" else -1
        assert float(sign * (better - worse)) > 0.1, metric


def literal_impute(image, missing):
    """The linear system, dense."""
    height, width = missing.shape
    place = {tuple(p): i for i, p in enumerate(missing.nonzero().tolist())}
    a = np.zeros((len(place), len(place)))
    b = np.zeros((len(place), len(image)))
    for (y, x), i in place.items():
        for dy, dx in [(u, v) for u in (-1, 0, 1) for v in (-1, 0, 1) if (u, v) != (0, 0)]:
            q, w = (y + dy, x + dx), 1 / 6 if 0 in (dy, dx) else 1 / 12
            if not (0 <= q[0] < height and 0 <= q[1] < width):
                continue
            a[i, i] += w
            if q in place:
                a[i, place[q]] -= w
            else:
                b[i] += w * image[:, q[0], q[1]].numpy()
    out = image.clone()
    if place:
        ys, xs = zip(*place, strict=True)
        out[:, ys, xs] = torch.from_numpy(np.linalg.solve(a, b).T)
    return out


@pytest.mark.parametrize("size", [(9, 14), (16, 16), (1, 7)])
def test_imputation_solves_the_linear_system(size, monkeypatch):
    monkeypatch.setattr("attrib.metrics.impute.TOLERANCE", 1e-12)
    batch = images(4, size).double()
    missing = torch.rand(4, *size) < torch.tensor([0.0, 0.3, 0.6, 0.9])[:, None, None]
    missing[:, 0, 0] = False
    found = impute(batch, missing)
    for one, image, hole in zip(found, batch, missing, strict=True):
        torch.testing.assert_close(one, literal_impute(image, hole), rtol=1e-8, atol=1e-8)
    noise = torch.randn(1, 3, *size, dtype=torch.float64)
    changed = impute(batch, missing, noise) - found
    torch.testing.assert_close(changed, (missing[:, None] * noise).expand_as(changed))


def test_imputation_is_good_enough_in_single_precision():
    batch = images(2, (40, 48)).cumsum(3) / 7
    missing = torch.zeros(2, 40, 48, dtype=torch.bool)
    missing[:, 5:38, 4:] = True
    found = impute(batch, missing)
    assert found.dtype == torch.float32
    for one, image, hole in zip(found, batch, missing, strict=True):
        want = literal_impute(image.double(), hole)
        assert float((one - want).abs().max()) < 2e-3  # a fifth of the noise
    with pytest.raises(InputError, match="no pixel of a picture is known"):
        impute(batch, missing | True)


@pytest.mark.parametrize("order", ["most", "least", "combined"])
def test_road_written_out(order):
    classifier, batch, maps, _ = setting(size=(12, 10))
    metric = ROAD(order=order, percent=(20, 60), noise=0.05, seed=3)
    found = metric(classifier, batch, maps, PAIRS)
    noise = 0.05 * torch.randn(1, 3, 12, 10, generator=torch.Generator().manual_seed(3))[0]
    for row, (i, label) in enumerate([(0, 1), (0, 4), (2, 0)]):
        means = {}
        for name, plane in (("most", maps[row]), ("least", -maps[row])):
            each = []
            for percent in (20, 60):
                pixels = sorted((-v, k) for k, v in enumerate(plane.flatten().tolist()))
                hole = torch.zeros(120, dtype=torch.bool)
                hole[[k for _, k in pixels[: round(percent / 100 * 120)]]] = True
                hole = hole.view(12, 10)
                filled = literal_impute(batch[i].double(), hole) + noise * hole
                each.append(literal_probability(classifier, filled, label))
            means[name] = sum(each) / 2
        means["combined"] = (means["least"] - means["most"]) / 2
        assert float(found[row]) == pytest.approx(means[order], abs=2e-5)
    assert metric.better == ("lower" if order == "most" else "higher")


def test_infidelity_is_captums():
    from captum.metrics import infidelity as captums

    classifier, batch, maps, _ = setting(size=(16, 12))
    metric = Infidelity(samples=6, side=0.4, seed=2)
    found = metric(classifier, batch, maps, PAIRS)
    holes = squares(6, round(0.4 * 12), (16, 12), 2)
    rows = batch[PAIRS.image]

    def perturb(inputs, _baselines=None):
        hole = holes.repeat(len(inputs) // 6, 1, 1)[:, None].expand_as(inputs)
        return hole.float(), torch.where(hole, 0, inputs)

    want = captums(
        classifier.model.eval(), perturb, rows, (maps / 3)[:, None].expand_as(rows).clone(),
        target=PAIRS.label, n_perturb_samples=6, normalize=True,
    )  # fmt: skip
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-6)
    assert found.min() > 1e-6


def test_squares_lie_within_the_input_and_everywhere():
    found = squares(2000, 3, (5, 6), 0)
    assert torch.equal(found.sum((1, 2)), torch.full((2000,), 9))
    corners = found.float().flatten(1).argmax(1)
    counts = torch.bincount(corners // 6 * 4 + corners % 6, minlength=12)
    assert counts.min() > 110
    assert len(counts) == 12


def test_infidelity_is_zero_for_what_scales_to_the_truth():
    done = torch.randn(4, 6)
    assert infidelity(7 * done, done).abs().max() < 1e-6
    torch.testing.assert_close(infidelity(torch.zeros(4, 6), done), done.square().mean(1))


def test_max_sensitivity_is_captums():
    from captum.metrics import sensitivity_max

    classifier, batch, _, explain = setting(method="gradcam")
    pairs = Targets(image=torch.arange(3), label=torch.tensor([1, 4, 0]))
    maps = explain(classifier, batch, pairs)
    found = MaxSensitivity(samples=4, radius=0.1, seed=5)(classifier, batch, maps, pairs, explain)
    generator = torch.Generator().manual_seed(5)
    drawn = torch.cat([torch.rand(1, 3, 32, 32, generator=generator) for _ in range(4)])

    def perturb(inputs):
        (x,) = inputs if isinstance(inputs, tuple) else (inputs,)
        return x + 0.1 * (2 * drawn - 1)

    for i, label in enumerate(pairs.label):

        def func(inputs, label=label):
            (inputs,) = inputs if isinstance(inputs, tuple) else (inputs,)
            every = Targets(image=torch.arange(len(inputs)), label=label.repeat(len(inputs)))
            return (explain(classifier, inputs, every),)  # Captum's norm is wrong without a tuple

        want = sensitivity_max(func, batch[i : i + 1], perturb, n_perturb_samples=4)
        torch.testing.assert_close(found[i : i + 1], want, rtol=1e-3, atol=1e-6)
    assert found.min() > 1e-4


def test_gini_written_out():
    maps = torch.randn(5, 6, 7)
    maps[3] = 2.5
    maps[4] = 0
    maps[4, 2, 3] = -4
    for found, plane in zip(gini(maps), maps, strict=True):
        a = sorted(abs(v) for v in plane.double().flatten().tolist())
        pairs = sum(abs(x - y) for x in a for y in a)  # the mean difference against twice the mean
        assert float(found) == pytest.approx(pairs / (2 * len(a) * sum(a)), abs=1e-6)
    assert gini(torch.zeros(1, 3, 3)).isnan().all()


def test_similarities_are_those_of_the_libraries():
    from skimage.metrics import structural_similarity

    a = torch.rand(4, 15, 18)
    b = (a + torch.linspace(0, 2, 4)[:, None, None] * torch.rand(4, 15, 18)).clamp(0, 1)
    b[1] = (b[1] * 4).round() / 4  # ties
    for i in range(4):
        x, y = a[i].double().numpy(), b[i].double().numpy()
        want = structural_similarity(x, y, win_size=7, data_range=1)
        assert float(ssim(a, b)[i]) == pytest.approx(want, abs=1e-6)
        want = stats.spearmanr(x.ravel(), y.ravel()).statistic
        assert float(spearman(a, b)[i]) == pytest.approx(want, abs=1e-6)
    assert spearman(torch.ones(1, 3, 3), torch.rand(1, 3, 3)).isnan().all()
    with pytest.raises(InputError, match="at least 7 pixels a side"):
        ssim(a[:, :5], b[:, :5])


@pytest.mark.parametrize("order", ["cascading", "independent"])
@pytest.mark.parametrize("weights", ["own", "permuted", "gaussian"])
def test_randomisation_written_out(order, weights):
    classifier, batch, maps, explain = setting()
    before = Everything(classifier.model)
    found = parameter_randomisation(
        classifier, batch, maps, PAIRS, explain, order=order, weights=weights, seed=4
    )
    before.assert_same(classifier.model)
    assert found.layers == ("fc", "features.4", "features.3", "features.1", "features.0")
    twin = make("plain").eval()
    for step, path in enumerate(found.layers):
        twin = make("plain").eval() if order == "independent" else twin
        randomise(twin.get_submodule(path), weights, 4 + step, path)
        after = explain(attrib.split(twin, spec=SPEC), batch, PAIRS)
        for row in range(3):
            want = stats.spearmanr(maps[row].flatten(), after[row].flatten()).statistic
            assert float(found.spearman[step, row]) == pytest.approx(want, abs=1e-4)
    score = Randomisation(order=order, weights=weights, seed=4)(
        classifier, batch, maps, PAIRS, explain
    )
    torch.testing.assert_close(score, found.spearman.mean(0))
    assert found.ssim.max() <= 1
    assert found.ssim.std() > 0.01


def test_what_becomes_of_weights():
    module = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(40, 50))
    kept = [p.detach().clone() for p in module.parameters()]
    state = torch.get_rng_state()
    randomise(module, "permuted", 0)
    for now, before in zip(module.parameters(), kept, strict=True):
        assert torch.equal(now.flatten().sort().values, before.flatten().sort().values)
        assert not torch.equal(now, before)
    randomise(module, "gaussian", 0)
    now, before = module[0].weight.detach(), kept[0]
    assert float((now.std() / before.std()).log().abs()) < 0.1
    assert float(now.abs().max()) > float(before.abs().max())  # a normal has tails, a uniform none
    randomise(module, "own", 0)
    bound = 1 / math.sqrt(40)
    assert bound * 0.98 < float(module[0].weight.detach().abs().max()) <= bound
    assert not torch.equal(module[0].weight, module[2].weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_without_an_initialisation_is_named():
    class Scaled(Pooled):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    classifier = attrib.split(Scaled(), spec=SPEC)
    assert layers_of(classifier.model)[-1] == ""
    explain = explain_by("cam")
    maps = explain(classifier, images(), PAIRS)
    with pytest.raises(InputError, match=r"the whole \(Scaled\) has no .*'permuted'"):
        Randomisation()(classifier, images(), maps, PAIRS, explain)
    Randomisation(weights="permuted")(classifier, images(), maps, PAIRS, explain)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", sorted(AWKWARD))
def test_model_pictures_maps_and_rng_are_left_as_they_were(name, kind):
    classifier, batch, maps, explain = setting(kind)
    classifier.model.features.train()
    given = batch.clone(), maps.clone()
    before = Everything(classifier.model)
    scores = resolve_metric(name)(classifier, batch, maps, PAIRS, explain)
    assert scores.shape == (3,)
    assert scores.isfinite().all()
    assert not scores.requires_grad
    before.assert_same(classifier.model)
    assert torch.equal(batch, given[0])
    assert torch.equal(maps, given[1])


@pytest.mark.parametrize("name", NAMES)
def test_model_is_left_as_it_was_when_it_raises(name):
    class Failing(Pooled):
        fail = False

        def forward(self, x):
            if self.fail:
                raise IndexError("the user's own error")
            return super().forward(x)

    model = Failing()
    classifier, explain = attrib.split(model, spec=SPEC), explain_by("cam")
    maps = explain(classifier, images(), PAIRS)
    model.fail = True
    before = Everything(model)
    if name == "sparseness":
        return
    with pytest.raises(IndexError, match="the user's own error"):
        resolve_metric(name)(classifier, images(), maps, PAIRS, explain)
    before.assert_same(model)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_singles_and_chunks_do_not_show(name, monkeypatch):
    classifier, batch, maps, explain = setting()
    metric = resolve_metric(name)
    whole = metric(classifier, batch, maps, PAIRS, explain)
    monkeypatch.setattr("attrib.metrics.base.CHUNK_VALUES", 2 * batch[0].numel())
    torch.testing.assert_close(
        metric(classifier, batch, maps, PAIRS, explain), whole, rtol=1e-4, atol=1e-5
    )
    for row in range(3):
        one = Targets(image=torch.tensor([0]), label=PAIRS.label[row : row + 1])
        i = int(PAIRS.image[row])
        alone = metric(classifier, batch[i : i + 1], maps[row : row + 1], one, explain)
        torch.testing.assert_close(alone[0], whole[row], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_no_pairs_give_no_scores(name):
    classifier, batch, maps, explain = setting()
    none = Targets(image=PAIRS.image[:0], label=PAIRS.label[:0])
    assert resolve_metric(name)(classifier, batch, maps[:0], none, explain).shape == (0,)


@pytest.mark.parametrize("name", ["deletion(steps=2)", "insertion(steps=2)", "road"])
def test_maps_without_an_order_have_no_score(name):
    classifier, batch, maps, _ = setting()
    maps[0] = 3
    maps[1, 4, 4] = torch.nan
    assert resolve_metric(name)(classifier, batch, maps, PAIRS).isnan().tolist() == [1, 1, 0]


def test_scores_of_a_class():
    classifier, batch, _, _ = setting()
    logits = classifier.forward(batch).logits[PAIRS.image]

    def same(pair, _variant):
        return batch[PAIRS.image[pair]]

    own = logits.gather(1, PAIRS.label[:, None])
    want = {
        "logit": own,
        "probability": logits.softmax(1).gather(1, PAIRS.label[:, None]),
        "accuracy": (logits.argmax(1) == PAIRS.label).float()[:, None],
    }
    for score, values in want.items():
        torch.testing.assert_close(ask(classifier, batch, PAIRS, same, 1, score), values)
    spec = ModelSpec(input_size=(32, 32), multi_label=True)
    many = attrib.split(classifier.model, spec=spec)
    torch.testing.assert_close(ask(many, batch, PAIRS, same, 1, "probability"), own.sigmoid())
    assert torch.equal(ask(many, batch, PAIRS, same, 1, "accuracy"), (own > 0).float())


def test_a_chunk_that_does_not_fit_is_halved():
    classifier, batch, maps, _ = setting()
    want = Deletion(steps=5)(classifier, batch, maps, PAIRS)
    sizes = []

    def refuse(_module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    classifier.model.register_forward_pre_hook(refuse)
    with pytest.warns(MemoryWarning, match="going on with batch="):
        found = Deletion(steps=5)(classifier, batch, maps, PAIRS)
    torch.testing.assert_close(found, want)
    assert max(sizes) > 4
    assert max(sizes[-3:]) <= 4


def test_bad_arguments():
    classifier, batch, maps, _ = setting()
    with pytest.raises(InputError, match=r"shape \(3, 32, 32\), got \(3, 8, 8\)"):
        check_maps(classifier, batch, maps[:, :8, :8], PAIRS)
    wrong = Targets(image=PAIRS.image, label=torch.tensor([0, 1, 5]))
    with pytest.raises(TargetError, match=r"class indices lie in \[0, 5\), got 0 to 5"):
        Deletion()(classifier, batch, maps, wrong)
    with pytest.raises(UnknownNameError, match="unknown metric 'deltion'; did you mean 'deletion'"):
        resolve_metric("deltion")
    with pytest.raises(SpecError, match=r"steps is .*at least 1, got 0"):
        resolve_metric("deletion(steps=0)")
    for name in ("max-sensitivity", "randomisation"):
        with pytest.raises(InputError, match="pass explain="):
            resolve_metric(name)(classifier, batch, maps, PAIRS)
    for spec, match in {
        "road(percent=(0,))": "between 0 and 100",
        "road(percent=())": "between 0 and 100",
        "infidelity(side=0.0)": "fraction in",
    }.items():
        with pytest.raises(InputError, match=match):
            resolve_metric(spec)
    assert all(format_spec(resolve_metric(spec)) == spec for spec in NAMES)


@pytest.mark.skipif(importlib.util.find_spec("quantus") is None, reason="needs quantus")
@pytest.mark.filterwarnings("ignore")
class TestQuantus:
    """Where Quantus computes the same thing it gives the same value."""

    def test_sparseness(self):
        import quantus

        maps = torch.randn(3, 8, 9)
        metric = quantus.Sparseness(disable_warnings=True, display_progressbar=False)
        want = metric(
            model=None,
            x_batch=np.zeros((3, 3, 8, 9)),
            y_batch=np.zeros(3),
            a_batch=maps[:, None].numpy(),
        )
        np.testing.assert_allclose(gini(maps), want, rtol=1e-5)

    def test_pixel_flipping_is_a_deletion_curve(self):
        import quantus

        classifier, batch, _, _ = setting(size=(12, 12))
        maps = torch.rand(3, 12, 12)
        pairs = Targets(image=torch.arange(3), label=PAIRS.label)
        metric = quantus.PixelFlipping(
            features_in_step=36, perturb_baseline=0.0, disable_warnings=True, normalise=False,
            display_progressbar=False, abs=False,
        )  # fmt: skip
        want = metric(
            model=classifier.model.eval(), x_batch=batch.numpy(), y_batch=PAIRS.label.numpy(),
            a_batch=maps[:, None].numpy(), softmax=True,
        )  # fmt: skip
        found = curve("deletion", classifier, batch, maps, pairs, steps=12)
        np.testing.assert_allclose(found[:, 1:], np.stack(want), rtol=1e-4)

    def test_imputation(self):
        from quantus.functions.perturb_func import noisy_linear_imputation

        image = images(1, (12, 12))[0]
        missing = torch.rand(12, 12) < 0.5
        flat = np.flatnonzero(missing.numpy().ravel())
        want = noisy_linear_imputation(arr=image.numpy(), indices=flat, noise=0.0)
        found = impute(image[None].double(), missing[None])[0]
        np.testing.assert_allclose(found, want.reshape(3, 12, 12), atol=1e-4)
