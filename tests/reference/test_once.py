"""Methods of one pass there and back, by their equations and however pictures are dealt out."""

import pytest
import torch
import torchvision
from torch import nn

import attrib
from attrib.errors import MemoryWarning
from attrib.methods.baselines.rules import ACTIVATIONS
from tests.models import SPEC, Everything, Guarded, Pooled, images, make

ONCE = [
    "saliency",
    "input-x-gradient",
    "guided-backprop",
    "deconvolution",
    "guided-gradcam",
    "deeplift(reference='blur')",
    "lrp",
]
MANY = [[0, 3], [], [2], [1, 2, 4]]


@pytest.mark.parametrize("spec", ONCE)
def test_several_classes_and_small_batches_give_what_one_pair_gives(spec):
    model, batch = make("plain"), images(4)
    whole = attrib.Explainer(model, spec, spec=SPEC)(batch, MANY)
    name, _, options = spec.partition("(")
    small = f"{name}({options.removesuffix(')')}{', ' if options else ''}batch=3)"
    parted = attrib.Explainer(model, small, spec=SPEC)(batch, MANY)
    torch.testing.assert_close(parted.maps, whole.maps)
    torch.testing.assert_close(parted.logits, whole.logits)
    rows = [(i, label) for i, own in enumerate(MANY) for label in own]
    for got, (i, label) in zip(whole.maps, rows, strict=True):
        alone = attrib.Explainer(model, spec, spec=SPEC)(batch[i : i + 1], label)
        torch.testing.assert_close(got, alone.maps[0])


@pytest.mark.parametrize("spec", ONCE)
def test_a_batch_costs_one_pass(spec):
    model, passes = make("plain"), []
    explainer = attrib.Explainer(model, spec, spec=SPEC)
    explainer(images(1))  # Grad-CAM looks for its layer once
    model.features[0].register_forward_hook(lambda _m, _i, out: passes.append(len(out)))
    found = explainer(images(3), [[0, 1], [2], [3, 4]])
    assert passes == ([3, 3] if spec.startswith(("guided-gradcam", "deeplift")) else [3])
    torch.testing.assert_close(found.logits, attrib.Explainer(model, "cam")(images(3)).logits)


@pytest.mark.parametrize("spec", ONCE)
def test_half_the_batch_where_memory_runs_out_in_the_one_pass(spec):
    class Small(Pooled):
        def forward(self, x):
            if (len(x) > 1 and torch.is_grad_enabled()) or len(x) > 2:
                raise torch.OutOfMemoryError("no more")
            return super().forward(x)

    model = Small()
    model.load_state_dict(make("plain").state_dict())
    with pytest.warns(MemoryWarning, match="batch=1 instead of 2"):
        found = attrib.Explainer(model, spec, spec=SPEC)(images(2), MANY[2:])
    want = attrib.Explainer(make("plain"), spec, spec=SPEC)(images(2), MANY[2:])
    torch.testing.assert_close(found.maps, want.maps)
    torch.testing.assert_close(found.logits, want.logits)


@pytest.mark.parametrize("spec", ONCE)
def test_hooks_on_the_model_see_the_pictures_once_and_may_compute_anything(spec):
    model, seen = make("plain"), []
    explainer = attrib.Explainer(model, spec, spec=SPEC)
    want = explainer(images(2))
    model.register_forward_hook(lambda _m, given, out: seen.append((given[0], out.softmax(1))))
    before = Everything(model)
    found = explainer(images(2))
    before.assert_same(model)
    torch.testing.assert_close(found.maps, want.maps)
    ((pictures, probabilities),) = seen
    assert torch.equal(pictures, images(2))
    torch.testing.assert_close(probabilities.detach(), want.logits.softmax(1))
    assert "forward" not in vars(model)


def test_hooks_of_every_kind_stay_where_they_are():
    model = Guarded().requires_grad_(True)
    model.load_state_dict(make("plain").state_dict())
    found = attrib.Explainer(model, "deeplift", spec=SPEC)(images(2), 1)
    want = attrib.Explainer(make("plain"), "deeplift", spec=SPEC)(images(2), 1)
    torch.testing.assert_close(found.maps, want.maps)


class Activated(nn.Module):
    """A network of one activation, used at two places."""

    def __init__(self, name):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)
        self.name = name

    def forward(self, x):
        act = ACTIVATIONS[self.name]
        x = act(6 * self.first(x))
        return act(self.second(nn.functional.max_pool2d(x, 3, 2, 1))).mean((2, 3))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("reference", ["black", "blur"])
def test_deeplift_is_complete_with_every_activation(name, reference):
    from attrib.methods.baselines.run import reference as start_of

    model = Activated(name).double().eval()
    classifier = attrib.split(model, spec=SPEC, need="features")
    x = images(2).double()
    x[:, :, :8] = start_of(x, reference, SPEC)[:, :, :8]  # where nothing changes
    found = attrib.Explainer(classifier, f"deeplift(reference={reference!r})")(x, [1, 3])
    with torch.no_grad():
        change = model(x) - model(start_of(x, reference, SPEC))
    torch.testing.assert_close(found.maps.sum((1, 2)), change[[0, 1], [1, 3]])


def test_deeplift_where_nothing_changes_is_the_gradient():
    model = make("plain").double().eval()
    x = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    x[..., 16:, :] = 1e-3 * images(1).double()[..., 16:, :]
    found = attrib.Explainer(model, "deeplift", spec=SPEC)(x, 2).maps
    near = attrib.Explainer(model, "input-x-gradient", spec=SPEC)(x, 2).maps
    torch.testing.assert_close(found, near, rtol=0, atol=float(near.abs().max()) / 5)
    assert found.abs().max() > 0


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "squeezenet1_1"])
def test_relevance_is_conserved_without_biases(name):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    spec = attrib.ModelSpec(input_size=(64, 64))
    found = attrib.Explainer(model, "lrp(epsilon=1e-12)", spec=spec)(x, [3, 7])
    scores = found.logits[[0, 1], [3, 7]]
    torch.testing.assert_close(found.maps.sum((1, 2)), scores, rtol=1e-3, atol=1e-8)
    plain = attrib.Explainer(model, "input-x-gradient", spec=spec)(x, [3, 7])
    torch.testing.assert_close(found.maps, plain.maps, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("spec", "gated"), [("guided-backprop", True), ("deconvolution", False)])
def test_gradients_past_relus_written_out(spec, gated):
    model = make("plain").double().eval()
    conv, norm, _, conv2, norm2, _ = model.features
    x = images(1).double().requires_grad_()
    low = norm(conv(x))
    rectified = low.relu().detach().requires_grad_()
    high = norm2(conv2(rectified))
    back = model.fc.weight[2][None, :, None, None].expand_as(high) / 64
    back = back.relu() * ((high > 0) if gated else 1)
    (back,) = torch.autograd.grad(high, rectified, back)
    back = back.relu() * ((low > 0) if gated else 1)
    (back,) = torch.autograd.grad(low, x, back)
    found = attrib.Explainer(model, spec, spec=SPEC)(x.detach(), 2).maps
    torch.testing.assert_close(found, back.abs().sum(1))


@pytest.mark.parametrize("spec", ["saliency", "guided-backprop", "deeplift", "lrp"])
def test_the_graph_of_one_pass_is_let_go(spec):
    import gc

    explainer = attrib.Explainer(make("plain"), spec, spec=SPEC)

    def tensors():
        explainer(images(2), 1)
        gc.collect()
        return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    tensors()
    assert tensors() <= tensors()
