"""Several threads explain with one model at once: each gets what it would get alone."""

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch

import attrib
from attrib.bottleneck import MaskNetworkOptions
from attrib.bottleneck.aib_attached import AttachedAIB
from attrib.bottleneck.mask_attached import AttachedMask
from attrib.methods import METHODS
from attrib.randomness import kept_random_state, seeded
from tests.contract.test_methods import NAMES
from tests.models import SPEC, Everything, images, make

THREADS = 6
ROUNDS = 15


@pytest.fixture
def impatient():
    """Let threads take turns a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


def together(work, inputs):
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, inputs, timeout=120))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("method", ["cam", "infocam", "infocam+"])
@pytest.mark.parametrize("training", [True, False])
def test_maps_in_several_threads_are_those_of_one(method, training):
    model = make("plain").train(training)
    explainer = attrib.Explainer(model, method, spec=SPEC)
    before = Everything(model)
    inputs = [images(2, seed=seed) for seed in range(THREADS)] * ROUNDS
    alone = [explainer(x) for x in inputs[:THREADS]] * ROUNDS
    for one, other in zip(alone, together(explainer, inputs), strict=True):
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.maps, other.maps)
        assert torch.equal(one.targets.label, other.targets.label)
    before.assert_same(model)


@pytest.mark.usefixtures("impatient")
def test_explanations_in_several_threads_are_those_of_one():
    explainer = attrib.Explainer(attrib.load_model("demo", device="cpu").train(), "infocam+")
    pictures = [(images(1, (40, 50), seed)[0].sigmoid()) for seed in range(THREADS)] * 3
    alone = [explainer.explain(p) for p in pictures[:THREADS]] * 3
    for one, other in zip(alone, together(explainer.explain, pictures), strict=True):
        assert one.to_dict() == other.to_dict()
        assert torch.equal(one.heatmap, other.heatmap)


@pytest.mark.usefixtures("impatient")
def test_explainers_that_share_a_part_of_a_model_leave_it_in_training():
    whole = make("plain").train()
    part = torch.nn.Sequential(whole.features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    part.append(torch.nn.Linear(12, 4)).train()
    explainers = [attrib.Explainer(m, "cam", spec=SPEC) for m in (whole, part)]
    given = images(2)
    alone = [explainer(given).maps for explainer in explainers]
    found = together(lambda i: explainers[i % 2](given).maps, range(THREADS * ROUNDS))
    assert all(torch.equal(maps, alone[i % 2]) for i, maps in enumerate(found))
    assert all(module.training for module in (*whole.modules(), *part.modules()))


ATTENTION = [name for name in METHODS if METHODS[name].needs_attention]


def every_method(tmp_path, classifier):
    """Specs of all methods but those for transformers, with weights for those that need them."""
    AttachedAIB(classifier, latent=4).save(tmp_path / "aib")
    options = MaskNetworkOptions(width=4)
    AttachedMask(classifier, options=options).save(tmp_path / "ib-mask")
    trained = [name for name in METHODS if METHODS[name].needs_weights]
    return [*NAMES, *(f"{name}(weights={str(tmp_path / name)!r})" for name in trained)]


def transformer():
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}
    return timm.models.VisionTransformer(**size, num_classes=5)


def assert_undisturbed(model, specs, rounds):
    """Explain by all methods at once, each of them new to the model and with images of its own."""
    before = Everything(model)
    explainers = [attrib.Explainer(model, spec, spec=SPEC) for spec in specs]
    inputs = [images(2, seed=seed) for seed in range(len(specs))]
    alone = [attrib.Explainer(model, s, spec=SPEC)(x) for s, x in zip(specs, inputs, strict=True)]
    jobs = list(range(len(specs))) * rounds
    random.Random(0).shuffle(jobs)
    for i, found in zip(jobs, together(lambda i: explainers[i](inputs[i]), jobs), strict=True):
        assert torch.equal(found.logits, alone[i].logits), specs[i]
        assert torch.equal(found.maps, alone[i].maps), specs[i]
    before.assert_same(model)


@pytest.mark.usefixtures("impatient")
def test_all_methods_at_once_on_one_model_do_not_disturb_each_other(tmp_path):
    model = make("in-place").train()
    specs = every_method(tmp_path, attrib.split(model, spec=SPEC))
    assert len(specs) + len(ATTENTION) == len(list(METHODS))
    assert_undisturbed(model, specs, 2)


@pytest.mark.usefixtures("impatient")
def test_attention_at_once_with_other_methods():
    assert_undisturbed(transformer().train(), [*ATTENTION, "ablationcam", "iba(steps=2)"], 6)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("method", ["ablationcam", "iba(steps=2, samples=2)"])
def test_what_is_passed_over_is_so_in_one_thread(method):
    assert_undisturbed(make("plain"), [method, method, "cam"], 2 * ROUNDS)


def test_a_copy_is_of_the_model_and_not_of_what_threads_do_to_it():
    model = make("plain")
    given = images(1)
    want = model.eval()(given)
    with (
        attrib.surgery.passed_over(model, ["features.0"], "features.1", torch.zeros(1, 8, 16, 16)),
        attrib.surgery.replaced(model, "features.3", torch.zeros(1, 12, 8, 8)),
    ):
        assert not torch.equal(model(given), want)
        twin = attrib.surgery.frozen_copy(model)
        assert torch.equal(twin(given), want)
    assert torch.equal(model(given), want)
    assert all("forward" not in vars(m) and not m._forward_hooks for m in twin.modules())


def test_a_module_with_a_forward_of_its_own_gets_it_back_from_the_last_thread():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    model[0].forward = own = lambda x: x + 1
    barrier = threading.Barrier(2, timeout=30)

    def work(value):
        output = torch.full((1, 2), value)
        with attrib.surgery.passed_over(model, [], "0", output):
            barrier.wait()
            found = model(torch.zeros(1, 2))
            barrier.wait()
        return torch.equal(found, output)

    assert together(work, [3.0, 5.0]) == [True, True]
    assert vars(model[0])["forward"] is own


def test_random_states_are_known_to_one_thread_at_a_time_and_put_back():
    cpu, inside, leave = torch.device("cpu"), threading.Event(), threading.Event()
    before = torch.get_rng_state()

    def draws():
        with seeded(3, cpu):
            inside.set()
            leave.wait(30)
            return torch.rand(2), np.random.rand()

    with seeded(3, cpu):
        want = torch.rand(2), np.random.rand()
    with ThreadPoolExecutor(2) as pool, kept_random_state(cpu):
        first = pool.submit(draws)
        inside.wait(30)
        second = pool.submit(draws)  # waits for its turn
        with kept_random_state(cpu):  # begins and ends while the first draws
            pass
        leave.set()
        for found in (first.result(30), second.result(30)):
            assert torch.equal(found[0], want[0])
            assert found[1] == want[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_modules_are_listed_once_each():
    shared = torch.nn.Linear(2, 2)
    model = torch.nn.Sequential(shared, torch.nn.Sequential(shared, torch.nn.ReLU()))
    model.register_module("absent", None)
    found = list(attrib.surgery._every(model))
    assert len(found) == 4
    assert set(found) == set(model.modules())
