"""Several threads explain with one model at once: each gets what it would get alone."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import attrib
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


def test_modules_are_listed_once_each():
    shared = torch.nn.Linear(2, 2)
    model = torch.nn.Sequential(shared, torch.nn.Sequential(shared, torch.nn.ReLU()))
    model.register_module("absent", None)
    found = list(attrib.surgery._every(model))
    assert len(found) == 4
    assert set(found) == set(model.modules())
