"""Training a mask model: what it learns, that it resumes, and its optimiser."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from attrib.bottleneck import ARCHITECTURES, MaskModel, MaskOptions, mask_statistics
from attrib.bottleneck.mask_terms import masked
from attrib.errors import InputError, SpecError
from attrib.fit import SOAP, MaskModelConfig, checkpoint, fit_mask_model
from attrib.fit import mask_model as training
from tests.mask_models import SMALL, corner_task

CONFIG = MaskModelConfig(epochs=2, warm_up=2, batch_size=32, rate=1.5, control="gate", target=30)


def fresh(classes=2, architecture=SMALL, **options):
    torch.manual_seed(0)
    options = MaskOptions(**options)
    return MaskModel(architecture, channels=1, classes=classes, options=options)


@pytest.mark.parametrize(("optimiser", "beta"), [("adam", 0.01), ("soap", 0.005)])
def test_training_hides_pixels_and_keeps_the_class(optimiser, beta, tmp_path):
    images, labels, regions = corner_task(256)
    model = fresh()
    before = mask_statistics(model, images, labels, regions)
    config = MaskModelConfig(
        epochs=12,
        warm_up=0,
        batch_size=16,
        optimiser=optimiser,
        lr=2e-2,
        control="fixed",
        beta=beta,
    )
    state = torch.random.get_rng_state()
    report = fit_mask_model(model, images, labels, out=tmp_path, config=config)
    assert torch.equal(state, torch.random.get_rng_state())
    after = mask_statistics(model, images, labels, regions)
    assert before.area.min() > 0.8
    assert after.probability[:, 0, 9:, 9:].mean() < 0.3  # noise
    assert after.vae < 0.8 * before.vae
    assert after.accuracy > 0.9 > before.accuracy
    last = report["history"][-1]
    want = last["cross_entropy"] + beta * (last["vae"] - last["entropy"])
    assert last["loss"] == pytest.approx(want, rel=1e-3, abs=1e-4)
    parts = sum(last[f"vae_{name}"] for name in ("mask", "pixels", "kl"))
    assert last["vae"] == pytest.approx(parts, rel=1e-3)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 13))
    assert not (tmp_path / training.WARM_UP).exists()


@pytest.mark.parametrize("objective", ["ib", "ceb", "cmi"])
@pytest.mark.parametrize("stops", [1, 3])
def test_an_interrupted_run_ends_in_the_same_bytes(objective, stops, tmp_path, monkeypatch):
    images, labels, _ = corner_task(96)
    options = {"objective": objective, "randomise": objective == "ib"}
    whole = fresh(**options)
    report = fit_mask_model(whole, images, labels, out=tmp_path / "whole", config=CONFIG)
    saved, seen = checkpoint.save, []

    def save(*args):
        saved(*args)
        seen.append(1)
        if len(seen) == stops:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(KeyboardInterrupt):
        fit_mask_model(fresh(**options), images, labels, out=tmp_path / "cut", config=CONFIG)
    model = fresh(**options)
    again = fit_mask_model(model, images, labels, out=tmp_path / "cut", config=CONFIG)
    assert again == report
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    for file in ("model.safetensors", "log.jsonl", "fit.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    done = fresh(**options)
    assert fit_mask_model(done, images, labels, out=tmp_path / "cut", config=CONFIG) == report
    assert torch.equal(done.mask_logits(images[:4]), whole.mask_logits(images[:4]))


def test_a_folder_of_another_run_is_refused(tmp_path):
    images, labels, _ = corner_task(64)
    fit_mask_model(fresh(), images, labels, out=tmp_path, config=CONFIG)
    others = [
        (fresh(hard=True), images, CONFIG, "options"),
        (fresh(), images + 0.1, CONFIG, "digest"),
        (fresh(), images, replace(CONFIG, lr=0.5), "lr is"),
        (MaskModel(SMALL, channels=1, classes=2), images, CONFIG, "weights"),
    ]
    for model, pictures, config, says in others:
        with pytest.raises(InputError, match=says):
            fit_mask_model(model, pictures, labels, out=tmp_path, config=config)


def test_a_warm_up_teaches_the_classifier_and_begins_the_mask_with_it(tmp_path):
    images, labels, _ = corner_task(256)
    model = fresh(architecture=ARCHITECTURES["mnist"])
    images = nn.functional.interpolate(images, size=28)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = MaskModelConfig(epochs=1, warm_up=5, batch_size=16, lr=0.0)
    fit_mask_model(model, images, labels, out=tmp_path, config=config)
    last = ("mask.steps.15.weight", "mask.steps.15.bias")
    for name, value in model.state_dict().items():
        learnt = name.startswith(("classifier.", "mask.")) and name not in last
        assert torch.equal(value, before[name]) != learnt, name
    whole = torch.ones_like(images)
    assert (model.classify(images, whole).argmax(1) == labels).float().mean() > 0.9
    half = list(model.classifier.steps)[:8]  # four convolutions with their rectifiers
    seen, own = masked(images, whole, shift=1), images
    for step, mine in zip(half, model.mask.steps, strict=False):
        seen, own = step(seen), mine(own)
    torch.testing.assert_close(own, seen)
    logits = model.mask_logits(images)
    assert logits.std() < 0.5  # the last layer is as it was: mostly open
    assert logits.mean() > 1


def test_a_warm_up_serves_other_joint_trainings(tmp_path):
    images, labels, _ = corner_task(64)
    fit_mask_model(fresh(), images, labels, out=tmp_path / "one", config=CONFIG)
    shutil.copytree(tmp_path / "one" / training.WARM_UP, tmp_path / "two" / training.WARM_UP)
    other = replace(CONFIG, lr=1e-3, epochs=1)
    fit_mask_model(fresh(hard=True), images, labels, out=tmp_path / "two", config=other)
    other = replace(other, whole=0.25)
    with pytest.raises(InputError, match="whole"):
        fit_mask_model(fresh(hard=True), images, labels, out=tmp_path / "two", config=other)


def test_in_the_warm_up_masks_come_last(tmp_path, monkeypatch):
    images, labels, _ = corner_task(64)
    model, shown = fresh(), []
    classify = model.classify
    monkeypatch.setattr(model, "classify", lambda x, m: shown.append(m.mean()) or classify(x, m))
    config = replace(CONFIG, epochs=1, warm_up=4, batch_size=16, whole=0.5, lr=0.0)
    fit_mask_model(model, images, labels, out=tmp_path, config=config)
    warm_up = torch.stack(shown[:16])
    assert (warm_up[:8] == 1).all()
    assert (warm_up[8:] < 1).all()


@pytest.mark.parametrize(
    ("images", "config", "says"),
    [
        (torch.rand(0, 1, 16, 16), CONFIG, "0 pictures"),
        (torch.full((4, 1, 16, 16), math.nan), replace(CONFIG, warm_up=0), "step 1 of epoch 1"),
    ],
)
def test_what_cannot_be_learnt_from_is_named(images, config, says, tmp_path):
    with pytest.raises(InputError, match=says):
        fit_mask_model(
            fresh(), images, torch.zeros(len(images)).long(), out=tmp_path, config=config
        )


@pytest.mark.parametrize(
    ("options", "error"),
    [({"whole": 1.5}, InputError), ({"rate": 0.5}, InputError), ({"epochs": 0}, SpecError)],
)
def test_constants_out_of_their_range_are_named(options, error):
    with pytest.raises(error, match=next(iter(options))):
        MaskModelConfig(**options)


def test_soap_written_out():
    """The update of the paper's algorithm, with the axes written out in float64."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 2, 2, dtype=torch.float64))
    optimizer = SOAP([weight], lr=0.1, betas=(0.8, 0.7), eps=1e-6, every=2)
    want = weight.detach().clone().view(3, 4)
    momentum = squares = torch.zeros(3, 4, dtype=torch.float64)
    for step in range(6):
        gradient = torch.randn(3, 4, dtype=torch.float64)
        weight.grad = gradient.view_as(weight).clone()
        optimizer.step()
        if step == 0:
            rows, columns = gradient @ gradient.T, gradient.T @ gradient
            left, right = torch.linalg.eigh(rows)[1], torch.linalg.eigh(columns)[1]
            continue
        momentum = 0.8 * momentum + 0.2 * gradient
        squares = 0.7 * squares + 0.3 * (left.T @ gradient @ right) ** 2
        turned = left.T @ momentum @ right / (1 - 0.8**step)
        turned = (turned / ((squares / (1 - 0.7**step)).sqrt() + 1e-6)).clamp(-1, 1)
        want = want - 0.1 * left @ turned @ right.T
        torch.testing.assert_close(weight.detach().view(3, 4), want)
        rows = 0.7 * rows + 0.3 * gradient @ gradient.T
        columns = 0.7 * columns + 0.3 * gradient.T @ gradient
        if step % 2 == 0:
            order = torch.diag(left.T @ rows @ left).argsort(descending=True)
            squares, left = squares[order], torch.linalg.qr(rows @ left[:, order])[0]
            order = torch.diag(right.T @ columns @ right).argsort(descending=True)
            squares, right = squares[:, order], torch.linalg.qr(columns @ right[:, order])[0]


def test_soap_goes_down_a_narrow_valley():
    """A quadratic whose axes are not those of the weight: Adam at the same rate is behind."""
    torch.manual_seed(0)
    turn = [torch.linalg.qr(torch.randn(6, 6))[0] for _ in range(2)]
    scale = torch.logspace(0, 2, 6)
    found = {}
    for kind in (SOAP, torch.optim.Adam):
        weight = nn.Parameter(torch.ones(6, 6))
        optimizer = kind([weight], lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            value = (scale[:, None] * scale * (turn[0] @ weight @ turn[1]).square()).sum()
            value.backward()
            optimizer.step()
        found[kind] = value.item()
    assert found[SOAP] < found[torch.optim.Adam] / 5


def test_soap_refuses_what_it_cannot_do():
    weight = nn.Parameter(torch.ones(()))
    with pytest.raises(InputError, match="every 1 or more"):
        SOAP([weight], every=0)
    optimizer = SOAP([weight], lr=0.1)
    with pytest.raises(InputError, match="closure"):
        optimizer.step(lambda: 0.0)
    for _ in range(3):
        weight.grad = torch.ones(())
        optimizer.step()
    assert weight.item() == pytest.approx(0.8, abs=1e-5)
