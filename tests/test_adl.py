"""The layer that hides what a classifier already looks at."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import attrib
from attrib.errors import InputError, SplitError
from attrib.models.adl import ADL, adl_inserted, adl_places, insert_adl
from tests.models import MlpHead, Pooled, Shared, images, make

HIDE, WEIGHT = torch.tensor(0.0), torch.tensor(1 - 1e-7)


def literal(x, gamma, hide):
    """Cell by cell, image by image."""
    out = torch.empty_like(x)
    for image, result in zip(x, out, strict=True):
        activity = image.mean(0)
        highest = activity.max()
        for a in range(image.shape[1]):
            for b in range(image.shape[2]):
                here = activity[a, b]
                factor = float(here < gamma * highest) if hide else here.sigmoid()
                result[:, a, b] = image[:, a, b] * factor
    return out


def test_published_layer(shared):
    with np.load(shared / "golden" / "infocam.npz", allow_pickle=False) as golden:
        x = torch.from_numpy(golden["adl/x"])
        layer = ADL(*golden["adl/rate_thr"].tolist())
        for name, draw in (("drop", HIDE), ("importance", WEIGHT)):
            np.testing.assert_allclose(layer(x, draw), golden[f"adl/{name}"], atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_both_masks_are_the_definition(gamma, sign):
    x = sign * torch.rand(3, 4, 5, 6, dtype=torch.float64) * torch.tensor([1, 10, 0.1])[
        :, None, None, None
    ]  # fmt: skip
    layer = ADL(0.75, gamma)
    torch.testing.assert_close(layer(x, HIDE), literal(x, gamma, True))
    torch.testing.assert_close(layer(x, WEIGHT), literal(x, gamma, False))


def test_the_draw_is_below_p_to_hide():
    x = torch.rand(2, 3, 4, 4)
    layer = ADL(0.25)
    assert torch.equal(layer(x, torch.tensor(0.24)), layer(x, HIDE))
    assert torch.equal(layer(x, torch.tensor(0.25)), layer(x, WEIGHT))
    assert torch.equal(ADL(1.0)(x, WEIGHT), layer(x, HIDE))
    assert torch.equal(ADL(0.0)(x, HIDE), layer(x, WEIGHT))


def test_cells_are_hidden_as_often_as_p_says_and_in_the_whole_batch_at_once():
    x = torch.rand(4, 3, 5, 5) + 0.1
    layer = ADL()
    runs = torch.stack([layer(x) for _ in range(2000)]).eq(0).flatten(2).any(2)
    assert torch.equal(runs.any(1), runs.all(1))
    assert runs[:, 0].float().mean().item() == pytest.approx(0.75, abs=4 * (0.1875 / 2000) ** 0.5)


def test_gradients_flow_through_what_is_kept_and_through_the_weights():
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    layer = ADL()
    (gradient,) = torch.autograd.grad(layer(x, HIDE).sum(), x)
    assert torch.equal(gradient, (layer(x, HIDE) != 0).double())
    assert torch.autograd.gradcheck(lambda x: layer(x, WEIGHT), x)


def test_in_evaluation_nothing_happens_to_anything():
    x = torch.rand(2, 7)
    state = torch.get_rng_state()
    assert ADL().eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)
    assert not ADL().state_dict()
    assert repr(ADL()) == "ADL(p=0.75, gamma=0.8)"


def test_bad_input():
    for p, gamma in ((1.5, 0.8), (0.75, -0.1), (float("nan"), 0.8)):
        with pytest.raises(InputError, match=r"p and gamma are in \[0, 1\], got"):
            ADL(p, gamma)
    with pytest.raises(
        InputError, match=r"got \(2, 7\); put it behind a module that returns a map"
    ):
        ADL()(torch.rand(2, 7))


class Block(nn.Module):
    """Neither it nor its parent is a sequence; it runs whatever children it has."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"a": nn.Conv2d(3, 6, 3, bias=False), "b": nn.ReLU()})

    def forward(self, x, *, scale=1.0):
        for child in self.parts.values():
            x = child(x)
        return x * scale


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.fc = Block(), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.block(x, scale=2.0).mean((2, 3)))


@pytest.mark.parametrize(
    ("build", "places"),
    [
        (Custom, ["block"]),
        (Custom, ["block.parts.a"]),
        (Pooled, ["features"]),
        (Pooled, ["features.2", "features.5"]),
    ],
)
def test_the_named_modules_are_followed_and_nothing_else_changes(build, places):
    plain = build()
    changed = copy.deepcopy(plain)
    insert_adl(changed, places, p=1.0, gamma=0.5)
    x = images(2)
    assert list(changed.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in changed.named_modules()] == [n for n, _ in plain.named_modules()]
    plain.load_state_dict(changed.state_dict())
    changed.load_state_dict(plain.state_dict())
    assert torch.equal(changed.eval()(x), plain.eval()(x))

    layer, seen = ADL(1.0, 0.5), []
    for place in places:
        plain.get_submodule(place).register_forward_hook(
            lambda module, inputs, output: seen.append(1) or layer(output)
        )
    want = plain.train()(x)
    assert len(seen) == len(places)
    assert torch.equal(changed.train()(x), want)
    assert not torch.equal(changed(x), changed.eval()(x))


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_pickles_keep_it_and_share_nothing(twin_of):
    model = Custom()
    insert_adl(model, ["block"], p=1.0, gamma=0.3)
    twin = twin_of(model)
    assert type(twin.block) is type(model.block)
    assert isinstance(twin.block, Block)
    x = images(2)
    want = model(x)
    assert torch.equal(twin(x), want)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin(x), want)


def test_a_real_network_with_the_places_of_the_paper():
    from torchvision.models import resnet18

    plain = resnet18(num_classes=3)
    changed = copy.deepcopy(plain)
    insert_adl(changed, ["layer3.0", "layer4.0"], gamma=0.9)
    assert type(changed.layer3[0]).__name__ == "BasicBlockWithADL"
    assert type(changed.layer3[1]) is type(plain.layer3[1])
    x = images(2, (64, 64))
    assert torch.equal(changed.eval()(x), plain.eval()(x))
    before = [b.clone() for b in changed.buffers()]
    changed.train()(x).sum().backward()
    assert all(p.grad is not None for p in changed.parameters())
    assert not torch.equal(before[0], next(changed.buffers()))
    plain.load_state_dict(changed.state_dict())
    spec = attrib.ModelSpec(input_size=(64, 64))
    maps = [attrib.Explainer(m, "infocam", spec=spec)(x).maps for m in (changed, plain)]
    assert torch.equal(*maps)


def test_wrappers_are_looked_through():
    model = make("plain")
    insert_adl(nn.DataParallel(model), ["features"])
    assert type(model.features).__name__ == "SequentialWithADL"


def test_mistakes_change_nothing():
    model = MlpHead()
    kinds = [type(m) for m in model.modules()]
    for places, options, message in (
        ([], {}, "at least one place"),
        (["body.2", "body.2"], {}, "named twice"),
        (["body.2"], {"p": 2.0}, r"in \[0, 1\]"),
    ):
        with pytest.raises(InputError, match=message):
            insert_adl(model, places, **options)
    with pytest.raises(InputError, match="named twice"):
        insert_adl(Shared(), ["features.2", "features.5"])
    with pytest.raises(SplitError, match=r"no module 'body\.9'; body holds: 0, 1"):
        insert_adl(model, ["body.2", "body.9"])
    assert [type(m) for m in model.modules()] == kinds
    insert_adl(model, ["body.2"])
    with pytest.raises(InputError, match=r"ADL follows 'body\.2' already"):
        insert_adl(model, ["body.5", "body.2"])
    assert type(model.body[5]) is nn.ReLU


def test_a_place_that_returns_no_map_is_named_in_training():
    model = Pooled()
    insert_adl(model, ["fc"])
    model.eval()(images(2))
    with pytest.raises(InputError, match=r"got \(2, 5\); put it behind a module"):
        model.train()(images(2))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_a_place_that_returns_no_tensor():
    model = nn.Sequential(Pair())
    insert_adl(model, ["0"])
    with pytest.raises(InputError, match="got tuple; put it behind a module"):
        model(images(2))


def test_inserted_for_a_while():
    model = make("plain")
    classes = [type(m) for m in model.modules()]
    keys = list(model.state_dict())
    with adl_inserted(model, ["features.2"], gamma=0.9):
        assert type(model.features[2])._adl == (0.75, 0.9)
    assert [type(m) for m in model.modules()] == classes
    with pytest.raises(SplitError, match="too large"), adl_inserted(model, ["features.2"]):
        raise SplitError("too large")
    assert [type(m) for m in model.modules()] == classes
    assert list(model.state_dict()) == keys
    with adl_inserted(model, []):
        assert [type(m) for m in model.modules()] == classes
    with pytest.raises(SplitError), adl_inserted(model, ["features.2", "nowhere"]):
        pass
    assert [type(m) for m in model.modules()] == classes


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("resnet50", ("layer3.0", "layer4.0", "layer4.2")),
        ("test_resnet", ("layer3.0", "layer4.0")),
        ("vgg16", ("features.16", "features.23", "features.29")),
        ("mobilenetv2_100", ("blocks.2", "blocks.4", "blocks.6")),
    ],
)
def test_places(name, places):
    import timm

    model = timm.create_model(name)
    before = [type(m) for m in model.modules()]
    assert adl_places(model) == places
    assert [type(m) for m in model.modules()] == before
    if name == "vgg16":  # the third and fourth pooling, and what follows the last convolution
        assert [type(model.get_submodule(p)).__name__ for p in places] == [
            "MaxPool2d", "MaxPool2d", "ReLU"
        ]  # fmt: skip
        assert isinstance(model.features[28], nn.Conv2d)


def test_models_that_name_no_places():
    import timm

    for model in (make("plain"), timm.create_model("test_vit")):
        with pytest.raises(InputError, match=r"--adl layer3\.0,layer4\.0"):
            adl_places(model)
