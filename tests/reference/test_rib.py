"""RIB against the published implementation's outputs, and against the loop written out slowly."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.errors import InputError
from attrib.methods import RIB, Pool
from attrib.methods.rib import RIBRunner, gndrp, multi_scale_cam, rib
from attrib.methods.rib.loop import run
from attrib.models.learner import Learner, boundary
from attrib.registry import format_spec
from attrib.types import ModelSpec
from tests.models import SPEC, Everything, MlpHead, Pooled, images, make

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Bottleneck(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        width = outputs // 4
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


class Net(nn.Module):
    """The small network of the golden files: output stride 16, head without bias."""

    def __init__(self, weights):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.layer1, self.layer2 = Bottleneck(8, 16, 1), Bottleneck(16, 32, 2)
        self.layer3, self.layer4 = Bottleneck(32, 64, 2), Bottleneck(64, 128, 1)
        self.classifier = nn.Conv2d(128, 20, 1, bias=False)
        state = {k: v for k, v in self.state_dict().items() if k.endswith("tracked")}
        self.load_state_dict(state | weights)

    def forward(self, x):
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.classifier(x.mean((2, 3), keepdim=True)).flatten(1)


def split(weights):
    spec = ModelSpec(input_size=(96, 96))
    return attrib.split(Net(weights), features="layer4", head="classifier", spec=spec)


def normalised(pixels):
    values = torch.from_numpy(((pixels / 255.0 - MEAN) / STD).astype(np.float32))
    return values.movedim(-1, -3)


def mirrored(pixels):
    image = normalised(pixels)[None]
    return torch.cat([image, image.flip(3)])


def multi_hot(labels, classes=20):
    out = torch.zeros(classes, dtype=torch.bool)
    out[torch.as_tensor(labels)] = True
    return out


def load(shared, name):
    with np.load(shared / "golden" / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def weights_of(golden, prefix):
    return {
        k.removeprefix(prefix): torch.from_numpy(v)
        for k, v in golden.items()
        if k.startswith(prefix)
    }


@pytest.mark.parametrize("name", ["rib_main", "rib_gap"])
def test_published_loop(shared, name):
    golden = load(shared, name)
    classifier = split(weights_of(golden, "w0/"))
    steps = int(golden["K"])
    options = RIB(
        steps=steps,
        lr=float(golden["lr"]),
        tau=float(golden["score_th"]),
        margin=float(golden["stop_th"]),
        explode=float(golden["explode_th"]),
        explode_ratio=float(golden["explode_ratio"]),
        weight_decay=float(golden["weight_decay"]),
        pooling="gap" if name == "rib_gap" else "gndrp",
    )
    others = [
        (normalised(golden["others_u8"][k]), torch.from_numpy(golden["others_labels"][k]).bool())
        for k in range(steps)
    ]
    before = Everything(classifier.model)
    views = [mirrored(golden[f"ms_u8_{i}"]) for i in range(4)]
    trace = rib(classifier, views, multi_hot(golden["labels"]), others, options, keep_maps=True)
    before.assert_same(classifier.model)

    assert (trace.stopped_at, trace.reason) == (None, "")
    for i in range(4):
        want = golden[f"sum_cam_scale{i}"]
        assert np.abs(trace.sums[i].numpy() - want).max() <= 1e-4 * want.max()
    for k in range(steps):
        want = golden[f"cam_step{k}_scale0"]
        assert np.abs(trace.step_maps[k].numpy() - want).max() <= 1e-4 * want.max()
        np.testing.assert_allclose(trace.logits[k].numpy(), golden["logits"][k], atol=1e-3)
    np.testing.assert_allclose(trace.losses, golden["loss"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(trace.target_logits, golden["target_logit_sum"], rtol=1e-4)
    np.testing.assert_allclose(trace.learning_rates, golden["lr_used"], rtol=0, atol=1e-12)
    changed = weights_of(golden, "wK/")
    assert trace.parameters.keys() == changed.keys()
    for key, value in changed.items():
        torch.testing.assert_close(trace.parameters[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tau", [0.3, 0.4, 0.5])
@pytest.mark.parametrize("which", ["shared", "perrow"])
def test_published_pooling(shared, tau, which):
    golden = load(shared, "gndp2d")
    x = torch.from_numpy(golden["x"]).requires_grad_()
    labels = torch.from_numpy(golden["labels"]).bool()
    if which == "shared":
        labels = multi_hot(golden["valid_shared"]).expand(4, -1)
    out = gndrp(x, labels, tau)
    (gradient,) = torch.autograd.grad(out, x, torch.from_numpy(golden["upstream"]))
    np.testing.assert_allclose(out.detach(), golden[f"out_{which}_{tau}"], atol=1e-6)
    np.testing.assert_allclose(gradient, golden[f"grad_{which}_{tau}"], atol=1e-6)


def test_classes_beyond_the_twentieth_are_pooled_like_any_other(shared):
    golden = load(shared, "gndp2d")
    x, labels = torch.from_numpy(golden["x24"]), multi_hot([3, 22], 24).expand(2, -1)
    ours, theirs = gndrp(x, labels, 0.4), torch.from_numpy(golden["out24_valid_3_22"])
    torch.testing.assert_close(ours[:, :20], theirs[:, :20])
    torch.testing.assert_close(theirs[:, 22], torch.from_numpy(golden["gap24"])[:, 22])
    assert (ours[:, 22] < theirs[:, 22]).all()


def test_published_multi_scale_maps(shared):
    golden = load(shared, "irn_make_cam")
    classifier = split(weights_of(golden, "w/"))
    for i in range(int(golden["n_images"])):
        views = [mirrored(golden[f"ms_u8_{i}_{s}"]) for s in range(4)]
        sums = multi_scale_cam(classifier, views)
        keys = torch.from_numpy(golden[f"keys_{i}"])
        want = torch.from_numpy(golden[f"cam_{i}"])
        resized = [F.interpolate(s[None, keys], want.shape[1:], mode="bilinear")[0] for s in sums]
        cam = torch.stack(resized).sum(0)
        cam /= cam.amax((1, 2), keepdim=True) + 1e-5
        torch.testing.assert_close(cam, want, rtol=0, atol=1e-5)


def literal(model, views, labels, others, options):
    """The authors' loop, step by step, with the whole network run every time."""
    net = copy.deepcopy(model).eval()
    head = list(net.fc.parameters())
    trunk = list(net.features.parameters())
    sums, losses = [0] * len(views), []
    for k in range(options.steps):
        rows, targets = [], []
        for i, view in enumerate(views):
            cam = torch.einsum("ck,bkuv->bcuv", net.fc.weight, net.features(view))
            r = cam[0].relu() + cam[1].relu().flip(2)
            sums[i] = sums[i] + r.detach()
            if k and i == 0:
                own = r[labels]
                lit = own / (own.amax((1, 2), keepdim=True) + 1e-5) > options.explode
                if lit.any(0).double().mean() > options.explode_ratio:
                    return sums, losses, k, "explode"
            if options.scales[i] in options.loss_scales:
                rows.append(literal_pool(cam, labels.expand(2, -1), options.tau))
                targets.append(labels.expand(2, -1))
        own = sum((r * t).sum() for r, t in zip(rows, targets, strict=True))
        cam = torch.einsum("ck,bkuv->bcuv", net.fc.weight, net.features(others[k][0]))
        rows.append(literal_pool(cam, others[k][1], options.tau))
        targets.append(others[k][1])
        loss = -sum((r * t).sum() for r, t in zip(rows, targets, strict=True))
        losses.append(loss.item())
        decay = (1 - k / options.steps) ** 0.9
        every = trunk + head
        gradients = torch.autograd.grad(loss, every, allow_unused=True)
        with torch.no_grad():
            for p, g in zip(every, gradients, strict=True):
                if g is None:
                    continue
                g = g + options.weight_decay * p
                state = momentum.setdefault((id(net), id(p)), None)
                momentum[id(net), id(p)] = g if state is None else options.momentum * state + g
                rate = (
                    options.lr * decay * (options.head_factor if any(p is h for h in head) else 1)
                )
                p -= rate * momentum[id(net), id(p)]
        if abs(own.item()) > options.margin:
            return sums, losses, k, "margin"
    return sums, losses, None, ""


momentum: dict = {}


def literal_pool(cam, labels, tau):
    out = torch.zeros(cam.shape[:2], dtype=cam.dtype)
    for b in range(cam.shape[0]):
        for c in range(cam.shape[1]):
            plane = cam[b, c]
            keep = plane.detach() / plane.detach().max() < tau if labels[b, c] else plane == plane
            out[b, c] = (plane * keep).sum() / plane.numel()
    return out


def situation(steps):
    model = make("plain").double()
    views = [
        torch.cat([x, x.flip(3)]) for x in (images(1, s).double() for s in ((32, 32), (16, 16)))
    ]
    labels = multi_hot([1, 3], 5)
    others = [
        (images(3, (24, 24), seed=k).double(), multi_hot([k % 2 * 2], 5).expand(3, -1))
        for k in range(steps)
    ]
    return model, views, labels, others


@pytest.mark.parametrize(
    ("change", "stop"),
    [
        ({}, (None, "")),
        ({"margin": 0.01}, (None, "margin")),
        ({"explode_ratio": 0.02}, (1, "explode")),
        ({"lr": 0.3, "explode_ratio": 1.1}, (None, "")),
        ({"momentum": 0.9, "weight_decay": 0.05, "head_factor": 2.0}, (None, "")),
    ],
)
def test_the_loop_written_out(change, stop):
    model, views, labels, others = situation(10)
    options = RIB(**({"lr": 1e-2, "scales": (1.0, 0.5), "loss_scales": (1.0,), "train_from": 0,
                      "explode_ratio": 1.1} | change))  # fmt: skip
    momentum.clear()
    sums, losses, stopped_at, reason = literal(model, views, labels, others, options)
    classifier = attrib.split(model, spec=SPEC)
    trace = rib(classifier, views, labels, others, options)
    assert (trace.stopped_at, trace.reason) == (stopped_at, reason)
    assert reason == stop[1]
    np.testing.assert_allclose(trace.losses, losses, rtol=1e-9)
    for got, want in zip(trace.sums, sums, strict=True):
        torch.testing.assert_close(got, want)


def test_every_constant_has_the_published_default():
    r = RIB()
    assert (r.steps, r.lr, r.head_factor, r.weight_decay, r.momentum) == (10, 8e-6, 10, 1e-4, 1e-4)
    assert (r.tau, r.margin, r.explode, r.explode_ratio, r.num_others) == (0.4, 600, 0.3, 0.7, 20)
    assert (r.scales, r.loss_scales) == ((1.0, 0.5, 1.5, 2.0), (1.0, 1.5, 2.0))


def test_the_text_of_the_paper():
    """Clamped margin, constant rate, normalised maps, K + 1 of them, mean over the selection."""
    model, views, labels, others = situation(3)
    classifier = attrib.split(model, spec=SPEC)
    options = RIB(
        steps=3, lr=1e-3, scales=(1.0, 0.5), loss_scales=(1.0,), preset="paper", margin=1e6
    )
    trace = rib(classifier, views, labels, others, options, keep_maps=True)
    assert len(set(trace.learning_rates)) == 1
    assert trace.sums[0].amax((1, 2))[labels].max() <= 4 + 1e-9
    parts = torch.stack([m / m.amax((1, 2), keepdim=True) for m in trace.step_maps])[:, labels]
    rest = trace.sums[0][labels] - parts.sum(0)
    torch.testing.assert_close(rest.amax((1, 2)), torch.ones(2, dtype=torch.float64))
    x = torch.tensor([[[[1.0, 4.0, 10.0, 2.0]]]])
    pooled = gndrp(x, torch.ones(1, 1, dtype=torch.bool), 0.4, preset="paper")
    assert pooled.item() == pytest.approx(7 / 3)
    clamped = rib(classifier, views, labels, others, options.__class__(
        **{**vars(options), "margin": -1e6, "weight_decay": 0.0}
    ))  # fmt: skip
    assert clamped.sums[0].isfinite().all()
    start = dict(model.named_parameters())
    for name, value in clamped.parameters.items():
        torch.testing.assert_close(value, start[name])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"explode_ratio": 0.02},
        {"explode_ratio": 0.02, "steps": 2},
        {"margin": 0.01},
        {"preset": "paper"},
        {"steps": 1},
    ],
)
def test_sums_alone_are_the_same_with_less_work(change):
    """The runner leaves out what is learned after the last map."""
    model, views, labels, _ = situation(3)
    kept = {"steps": 3, "lr": 1e-2, "scales": (1.0, 0.5), "loss_scales": (1.0,)}
    options = RIB(**(kept | {"explode_ratio": 1.1} | change))
    classifier = attrib.split(model, spec=SPEC)
    whole = rib(classifier, views, labels, options=options)
    lean = RIBRunner(classifier, options)(views, labels)
    assert len(lean.losses) == len(whole.losses) - (change in ({}, {"steps": 1}))
    for got, want in zip(lean.sums, whole.sums, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("loss", ["sigmoid", "tanh", "softsign"])
def test_saturating_losses_of_the_ablation(loss):
    model, views, labels, others = situation(2)
    classifier = attrib.split(model, spec=SPEC)
    options = RIB(steps=2, lr=1e-3, scales=(1.0, 0.5), loss_scales=(1.0,), loss=loss)
    trace = rib(classifier, views, labels, others, options)
    activation = {
        "sigmoid": torch.sigmoid,
        "tanh": lambda y: (y.tanh() + 1) / 2,
        "softsign": lambda y: (F.softsign(y) + 1) / 2,
    }[loss]
    rows = trace.logits[0]
    want = labels.expand(2, -1), others[0][1]
    want = F.binary_cross_entropy(activation(rows), torch.cat(want).double(), reduction="sum")
    assert trace.losses[0] == pytest.approx(want.item())


@pytest.mark.parametrize("stride", [0, 2, 4, 64])
def test_the_frozen_part_is_run_once_and_changes_nothing(stride):
    classifier = attrib.split(make("plain"), spec=SPEC)
    learner = Learner(classifier, stride)
    assert learner.caches == (stride >= 2)
    batch = images(2, (40, 56))
    want = classifier.class_maps(classifier.forward(batch).grid)
    torch.testing.assert_close(learner.class_maps(learner.prepare(batch)).detach(), want)


def test_boundary_is_the_last_stage_of_the_stride():
    import timm
    from torchvision.models import resnet18

    of_torchvision = boundary(attrib.split(resnet18(num_classes=3)), 8)
    assert of_torchvision.path == "layer2"
    assert of_torchvision.passed == ("conv1", "bn1", "relu", "maxpool", "layer1")
    of_timm = boundary(attrib.split(timm.create_model("mobilenetv2_035", num_classes=3)), 8)
    assert of_timm.path == "blocks.2"
    assert of_timm.passed == ("conv_stem", "bn1", "blocks.0", "blocks.1")
    whole = boundary(attrib.split(timm.create_model("test_vit", num_classes=3)), 8)
    assert whole.path == ""


def test_a_single_label_model_and_a_head_that_is_not_linear():
    method = "rib(steps=2, lr=0.01, scales=(1.0,), loss_scales=(1.0,))"
    found = attrib.Explainer(make("plain"), method, spec=SPEC)(images(2))
    assert found.maps.shape == (2, 8, 8)
    classifier = attrib.split(MlpHead(), features="body", head="top", spec=SPEC)
    assert attrib.Explainer(classifier, method)(images(2)).maps.isfinite().all()


def test_others_are_drawn_from_those_that_share_no_class():
    model = Pooled()
    labels = torch.eye(5, dtype=torch.bool).repeat(4, 1)
    pool = Pool(images=images(20), labels=labels)
    options = {
        "steps": 3, "scales": (1.0,), "loss_scales": (1.0,), "lr": 1e-3, "train_from": 0
    }  # fmt: skip
    one = attrib.Explainer(model, RIB(others=pool, num_others=6, **options), spec=SPEC)
    a, b = one(images(1), [2]), one(images(1), [2])
    assert torch.equal(a.maps, b.maps)
    other_order = attrib.Explainer(
        model, RIB(others=pool, num_others=6, seed=1, **options), spec=SPEC
    )
    assert not torch.equal(a.maps, other_order(images(1), [2]).maps)
    alone = attrib.Explainer(model, RIB(**options), spec=SPEC)(images(1), [2])
    assert not torch.equal(a.maps, alone.maps)
    with pytest.raises(InputError, match=r"16 pictures that share no class .* 17 are wanted"):
        attrib.Explainer(model, RIB(others=pool, num_others=17, **options), spec=SPEC)(
            images(1), [2]
        )


def test_bad_arguments():
    classifier = attrib.split(Pooled(), spec=SPEC)
    view = images(2)
    with pytest.raises(InputError, match="1 views for 4 scales"):
        rib(classifier, [view], multi_hot([1], 5))
    with pytest.raises(InputError, match="others for 1 steps, 10 are run"):
        rib(classifier, [view] * 4, multi_hot([1], 5), [(view, torch.zeros(2, 5) > 0)])
    options = RIB(scales=(1.0,), loss_scales=(2.0,))
    with pytest.raises(InputError, match="loss_scales names none of the scales"):
        rib(classifier, [view], multi_hot([1], 5), options=options)
    pool = Pool(images=images(3), labels=torch.zeros(3, 5) > 0)
    assert format_spec(RIB(others=pool)) == "rib(others=<Pool of 3 pictures>)"
    with pytest.raises(attrib.AttribError, match=r"attrib\.seeds\.pool_of"):
        attrib.Explainer(Pooled(), "rib(others='expected')", spec=SPEC)(images(1))


def pooled_runner(model, expected, steps=1, **changed):
    labels = torch.eye(5, dtype=torch.bool).repeat(4, 1)
    labels[3, 1] = True
    pool = Pool(images=images(20).double(), labels=labels, expected=expected)
    options = RIB(
        others=pool, steps=steps, scales=(1.0,), loss_scales=(1.0,), lr=1e-3, explode_ratio=1.1,
        **changed,
    )  # fmt: skip
    return RIBRunner(attrib.split(model, spec=SPEC), options)


def test_expected_others_are_the_mean_over_all_disjoint_ones():
    """Drawing every disjoint picture at once is the expectation times their number."""
    model = make("plain").double()
    view = torch.cat([images(1), images(1).flip(3)]).double()
    for label, count in ((2, 16), (1, 15)):
        labels = multi_hot([label], 5)
        sampled = pooled_runner(model, False, num_others=count)
        expected = pooled_runner(model, True, num_others=count)
        prepared = sampled._learner.prepare(view)
        ends = [
            run(r._learner, [prepared], labels, r.pool.others(labels), r._options).parameters
            for r in (sampled, expected)
        ]
        for name, value in ends[0].items():
            torch.testing.assert_close(ends[1][name], value, rtol=1e-9, atol=1e-12)
            if name != "fc.bias":  # no part of the class maps
                assert not torch.equal(value, dict(model.named_parameters())[name]), name


def test_expected_others_are_taken_at_the_users_weights():
    """Also for the second picture, when the copy has been trained on the first."""
    model = make("plain").double()
    view = torch.cat([images(1), images(1).flip(3)]).double()
    runner = pooled_runner(model, True, steps=3, num_others=4)
    first, second = (runner([view], multi_hot([2], 5), "a") for _ in range(2))
    assert torch.equal(first.sums[0], second.sums[0])


def test_the_draw_is_the_pictures_own():
    model = make("plain").double()
    view = torch.cat([images(1), images(1).flip(3)]).double()
    labels, runner = multi_hot([2], 5), pooled_runner(model, False, steps=3, num_others=4)
    once, other, again = (runner([view], labels, key).sums[0] for key in ("a", "b", "a"))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_pool_that_is_too_small_says_for_which_classes(monkeypatch):
    runner = pooled_runner(make("plain").double(), False, num_others=16)
    runner.pool.others(multi_hot([2], 5))
    with pytest.raises(InputError, match=r"15 pictures .* classes \[1\], 16 are wanted"):
        runner.pool.others(multi_hot([1], 5))
    monkeypatch.setattr("attrib.methods.rib.others.IN_MEMORY", 1000)
    with pytest.raises(InputError, match="expected gradients of 6 sets of classes take"):
        pooled_runner(make("plain").double(), True)


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"channels_last": True}])
def test_faster_arithmetic_is_near(options):
    plain = {"steps": 3, "lr": 1e-3, "scales": (1.0,), "loss_scales": (1.0,)}
    want = attrib.Explainer(make("plain"), RIB(**plain), spec=SPEC)(images(2), [1, 2]).maps
    got = attrib.Explainer(make("plain"), RIB(**plain, **options), spec=SPEC)(images(2), [1, 2])
    assert got.maps.dtype == torch.float32
    torch.testing.assert_close(got.maps, want, rtol=0, atol=0.05 * float(want.max()))
