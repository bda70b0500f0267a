"""What every method promises, on models that are awkward on purpose."""

import pytest
import torch

import attrib
from attrib.methods import resolve, untrained
from attrib.models import split
from attrib.registry import format_spec
from attrib.types import Targets
from tests.models import AWKWARD, SPEC, Everything, Flat, Pooled, images, make

SHORT = {
    "feature-ablation": "feature-ablation(count=6)",
    "gradient-shap": "gradient-shap(samples=3)",
    "iba": "iba(steps=2, samples=2)",
    "integrated-gradients": "integrated-gradients(steps=3)",
    "kernel-shap": "kernel-shap(samples=12, count=6)",
    "lime": "lime(samples=12, count=6)",
    "occlusion": "occlusion(window=16, stride=16)",
    "rib": "rib(steps=2, scales=(1.0, 0.5), loss_scales=(1.0,))",
    "shapley-sampling": "shapley-sampling(samples=2, count=6)",
    "smooth": "smooth(samples=2)",
    "smoothgrad": "smoothgrad(samples=3)",
}
NAMES = [SHORT.get(name, name) for name in untrained()]
CLASS_MAPS = [name for name in NAMES if resolve(name).needs_class_maps]
ANY_MODEL = [name for name in NAMES if name not in CLASS_MAPS]
PIXELS = ("gradients of pixels", "perturbed pictures", "other")
SLOW = (*PIXELS, "features, tried one by one", "around another method")
PER_TARGET = [name for name in NAMES if resolve(name).per_target]
PAIRS = Targets(image=torch.tensor([0, 0, 2]), label=torch.tensor([1, 4, 0]))


@pytest.fixture(params=sorted(AWKWARD))
def model(request):
    return make(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_model_input_and_rng_are_left_as_they_were(name, model):
    model.features.train()
    batch = images()
    given = batch.clone()
    before = Everything(model)
    explainer = attrib.Explainer(model, name, spec=SPEC)
    found = explainer(batch, PAIRS)
    assert found.maps.shape[0] == 3
    assert found.maps.isfinite().all()
    assert not found.maps.requires_grad
    assert not found.logits.requires_grad
    before.assert_same(model)
    assert torch.equal(batch, given)


@pytest.mark.parametrize("name", NAMES)
def test_model_is_left_as_it_was_when_it_raises(name):
    class Failing(Pooled):
        fail = False

        def forward(self, x):
            out = super().forward(x)
            if self.fail:
                raise IndexError("the user's own error")
            return out

    model = Failing()
    explainer = attrib.Explainer(model, name, spec=SPEC)
    explainer(images())  # so that what is found out lazily is known
    model.fail = True
    before = Everything(model)
    with pytest.raises(IndexError, match="the user's own error"):
        explainer(images())
    before.assert_same(model)


class Irreversible(torch.autograd.Function):
    """Hands on what it is given, and no gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *_):
        raise ArithmeticError("the user's own error, going back")


@pytest.mark.parametrize("name", NAMES)
def test_model_is_left_as_it_was_when_its_gradient_raises(name):
    class Failing(Pooled):
        fail = False

        def forward(self, x):
            maps = self.features(x)
            maps = Irreversible.apply(maps) if self.fail else maps
            return self.fc(maps.mean((2, 3)))

    model = Failing()
    explainer = attrib.Explainer(model, name, spec=SPEC)
    explainer(images())  # so that what is found out lazily is known
    model.fail = True
    before = Everything(model)
    try:
        explainer(images())
    except ArithmeticError as error:
        assert "going back" in str(error)  # noqa: PT017 - most methods have no gradient
    before.assert_same(model)


OWN_ARITHMETIC = ("plain", "bias-free", "in-place", "random", "twice")
EVERY_MODEL = [
    name if name in OWN_ARITHMETIC else pytest.param(name, marks=pytest.mark.slow)
    for name in sorted(AWKWARD)
]


@pytest.mark.parametrize("model", EVERY_MODEL, indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_deterministic_and_a_batch_is_its_singles(name, model):
    explainer = attrib.Explainer(model, name, spec=SPEC)
    batch = images(2)
    labels = [3, 0]
    whole = explainer(batch, labels)
    assert torch.equal(whole.maps, explainer(batch, labels).maps)
    for i in range(2):
        single = explainer(batch[i : i + 1], [labels[i]])
        torch.testing.assert_close(single.maps[0], whole.maps[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PER_TARGET)
def test_many_targets_in_one_pass_are_the_single_ones(name):
    model = make("plain")
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    explainer = attrib.Explainer(model, name, spec=SPEC)
    batch = images(3)
    explainer(batch)  # so that what is found out lazily is known
    model.register_forward_hook(count)
    explainer(batch)
    passes = calls
    assert passes == 1 or resolve(name).family == "around another method"
    together = explainer(batch, [[1, 4], [], [0]])
    assert calls == 2 * passes
    assert together.targets.image.tolist() == [0, 0, 2]
    for row, (image, label) in enumerate([(0, 1), (0, 4), (2, 0)]):
        alone = explainer(batch[image : image + 1], [label])
        torch.testing.assert_close(alone.maps[0], together.maps[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_target_gives_no_map(name):
    explainer = attrib.Explainer(make("plain"), name, spec=SPEC)
    found = explainer(images(2), [[], []])
    assert found.maps.shape[0] == 0
    assert found.logits.shape == (2, 5)


@pytest.mark.parametrize("name", NAMES)
def test_argmax_is_the_default_target(name):
    explainer = attrib.Explainer(make("plain"), name, spec=SPEC)
    found = explainer(images(3))
    assert torch.equal(found.targets.label, found.logits.argmax(1))
    assert torch.equal(found.targets.image, torch.arange(3))


@pytest.mark.parametrize("name", NAMES)
def test_spec_string_round_trip_and_provenance(name):
    method = resolve(name)
    assert resolve(format_spec(method)) == method
    found = attrib.Explainer(make("plain"), method, spec=SPEC)(images(1))
    assert resolve(found.method) == method
    assert found.input_size == (32, 32)
    assert found.exact
    assert found.normalize == method.normalize


@pytest.mark.parametrize("name", NAMES)
def test_non_square_input(name):
    spec = attrib.ModelSpec(input_size=(32, 48))
    found = attrib.Explainer(make("plain"), name, spec=spec)(images(2, (32, 48)))
    u, v = found.maps.shape[1:]
    assert (v - u) % 4 == 0
    assert v > u


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
)
def test_half_precision_model(name, dtype):
    model = make("plain").to(dtype)
    before = Everything(model)
    found = attrib.Explainer(model, name, spec=SPEC)(images(2))
    before.assert_same(model)
    assert found.maps.isfinite().all()


@pytest.mark.parametrize("name", ANY_MODEL)
def test_gradient_methods_work_where_there_are_no_class_maps(name):
    model = Flat()
    before = Everything(model)
    found = attrib.Explainer(model, name, spec=SPEC)(images(2))
    size = 32 if resolve(name).family in PIXELS else 4
    assert found.maps.shape == (2, size, size)
    before.assert_same(model)


@pytest.mark.parametrize("name", CLASS_MAPS)
def test_class_map_methods_refuse_a_flattening_head_and_say_what_to_do(name):
    with pytest.raises(attrib.AttribError, match=r"name the two parts|features="):
        attrib.Explainer(Flat(), name, spec=SPEC)


def test_no_leak_over_a_thousand_images():
    import gc

    model = make("plain")
    explainers = [attrib.Explainer(split(model, spec=SPEC), name) for name in NAMES]

    def sweep(batches: int) -> tuple[int, int]:
        for i in range(batches):
            batch = images(10, seed=i)
            for explainer in explainers:
                if explainer.method.family not in SLOW:
                    explainer(batch)
                elif i % 10 == 0:
                    explainer(batch[:1])
        gc.collect()
        hooks = sum(len(m._forward_hooks) for m in model.modules())
        return hooks, sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    hooks, tensors = sweep(2)
    later = sweep(100)  # a thousand images by each method; ten where it is slow
    assert hooks == later[0] == 0
    assert later[1] <= tensors  # fewer where something of before was let go of meanwhile
