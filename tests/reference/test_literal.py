"""Each method against its equation written out slowly, in float64."""

import pytest
import torch
import torchvision

import attrib
from attrib.models import split
from tests.models import SPEC, MlpHead, images, make

X = images(2).double()
LABELS = [1, 3]


@pytest.fixture
def model():
    return make("plain").double()


def features(model, x):
    return model.eval().features(x)


def maps(model, spec, **options):
    return attrib.Explainer(model, spec, spec=SPEC, **options)(X, LABELS).maps


def region_sums(plane, r):
    """Every r x r window that touches the plane, summed one by one."""
    u, v = plane.shape
    out = torch.zeros(u + r - 1, v + r - 1, dtype=plane.dtype)
    for a in range(u + r - 1):
        for b in range(v + r - 1):
            out[a, b] = plane[max(0, a - r + 1) : a + 1, max(0, b - r + 1) : b + 1].sum()
    return out


def test_cam(model):
    g, w = features(model, X), model.fc.weight
    want = torch.stack([sum(w[y, k] * g[i, k] for k in range(12)) for i, y in enumerate(LABELS)])
    torch.testing.assert_close(maps(model, "cam"), want)


def test_cam_identity(model):
    found = attrib.Explainer(model, "cam", spec=SPEC)(X, LABELS)
    logits = model.eval()(X)
    for i, y in enumerate(LABELS):
        torch.testing.assert_close(found.maps[i].mean() + model.fc.bias[y], logits[i, y])


@pytest.mark.parametrize("r", [1, 3, 4])
def test_infocam(model, r):
    g, w = features(model, X), model.fc.weight
    for i, y in enumerate(LABELS):
        rest = sum(w[m] for m in range(5) if m != y) / 4
        plane = torch.einsum("k,kuv->uv", w[y] - rest, g[i])
        got = maps(model, f"infocam(region={r})")[i]
        torch.testing.assert_close(got, region_sums(plane, r))


def test_infocam_plus(model):
    g, w, logits = features(model, X), model.fc.weight, model.eval()(X)
    for i, y in enumerate(LABELS):
        least = min((m for m in range(5) if m != y), key=lambda m, i=i: logits[i, m])
        plane = torch.einsum("k,kuv->uv", w[y] - w[least], g[i])
        torch.testing.assert_close(maps(model, "infocam+")[i], region_sums(plane, 4))


def test_infocam_plus_per_region(model):
    g, w = features(model, X), model.fc.weight
    for i, y in enumerate(LABELS):
        sums = [region_sums(torch.einsum("k,kuv->uv", w[m], g[i]), 4) for m in range(5)]
        rest = torch.stack([s for m, s in enumerate(sums) if m != y])
        got = maps(model, "infocam+(contrast='region')")[i]
        torch.testing.assert_close(got, sums[y] - rest.amin(0))


@pytest.mark.parametrize("r", [2, 3, 4, 5])
def test_same_border_is_the_middle_of_full(model, r):
    full = maps(model, f"cam(region={r})")
    same = maps(model, f"cam(region={r}, border='same')")
    start = r // 2
    torch.testing.assert_close(same, full[:, start : start + 8, start : start + 8])


def test_two_classes_make_both_contrasts_one():
    from tests.models import Pooled

    model = Pooled(classes=2).double()
    batch = images(4).double()
    a = attrib.Explainer(model, "infocam", spec=SPEC)(batch, [0, 1, 0, 1]).maps
    b = attrib.Explainer(model, "infocam+", spec=SPEC)(batch, [0, 1, 0, 1]).maps
    torch.testing.assert_close(a, b)


def test_the_least_likely_class_is_contrasted_with_the_next(model):
    worst = model.eval()(X).argmin(1).tolist()
    found = attrib.Explainer(model, "infocam+", spec=SPEC)(X, worst)
    assert found.maps.abs().amax((1, 2)).min() > 0.01


def gradients(model, layer_output, y, i):
    (g,) = torch.autograd.grad(model.fc(layer_output.mean((2, 3)))[i, y], layer_output)
    return g[i]


def leaf(model):
    return features(model, X).detach().requires_grad_()


def test_gradcam(model):
    a = leaf(model)
    for i, y in enumerate(LABELS):
        g = gradients(model, a, y, i)
        want = sum(g[k].mean() * a[i, k] for k in range(12)).relu()
        torch.testing.assert_close(maps(model, "gradcam")[i], want)


def test_gradcam_is_cam_over_the_grid_where_the_head_is_linear(model):
    torch.testing.assert_close(64 * maps(model, "gradcam(relu=False)"), maps(model, "cam"))


def test_hirescam(model):
    a = leaf(model)
    for i, y in enumerate(LABELS):
        want = (gradients(model, a, y, i) * a[i]).sum(0).relu()
        torch.testing.assert_close(maps(model, "hirescam")[i], want)


def test_layercam_at_an_inner_layer(model):
    model.eval()
    inner = model.features[:3](X).detach().requires_grad_()
    outer = model.features[3:](inner)
    for i, y in enumerate(LABELS):
        score = model.fc(outer.mean((2, 3)))[i, y]
        (g,) = torch.autograd.grad(score, inner, retain_graph=True)
        want = (g[i].relu() * inner[i]).sum(0).relu()
        got = maps(model, "layercam(layer='features.2')")[i]
        assert got.shape == (16, 16)
        torch.testing.assert_close(got, want)


def test_gradcam_plus_plus(model):
    a = leaf(model)
    for i, y in enumerate(LABELS):
        g = gradients(model, a, y, i)
        want = torch.zeros(8, 8, dtype=torch.float64)
        for k in range(12):
            below = 2 * g[k] ** 2 + a[i, k].sum() * g[k] ** 3
            alpha = torch.where(below != 0, g[k] ** 2 / below, 0)
            want += (alpha * g[k].relu()).sum() * a[i, k]
        torch.testing.assert_close(maps(model, "gradcam++")[i], want.relu())


def test_a_head_that_is_not_linear_is_applied_at_each_cell():
    model = MlpHead().double()
    classifier = split(model, features="body", head="top", spec=SPEC)
    assert not classifier.exact
    found = attrib.Explainer(classifier, "cam")(X, LABELS)
    assert not found.exact
    g = model.eval().body(X)
    for i, y in enumerate(LABELS):
        for u in range(8):
            for v in range(8):
                torch.testing.assert_close(found.maps[i, u, v], model.top(g[i, :, u, v])[y])


def test_contrasts_on_a_head_that_is_not_linear():
    model = MlpHead().double()
    classifier = split(model, features="body", head="top", spec=SPEC)
    planes = classifier.class_maps(classifier.forward(X).grid)
    got = attrib.Explainer(classifier, "infocam(region=1)")(X, LABELS).maps
    for i, y in enumerate(LABELS):
        rest = sum(planes[i, m] for m in range(5) if m != y) / 4
        torch.testing.assert_close(got[i], planes[i, y] - rest)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet18", "layer4"), ("mobilenet_v2", "features"), ("efficientnet_b0", "features")],
)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam"])
def test_a_known_gradient_is_the_one_that_comes_back(name, layer, method):
    torch.manual_seed(0)
    classifier = attrib.split(torchvision.models.get_model(name).double().eval())
    assert classifier.constant_gradient
    x = torch.randn(3, 3, 96, 64, generator=torch.Generator().manual_seed(0)).double()
    labels = [[1, 7], [], [3]]
    found = attrib.Explainer(classifier, f"{method}(relu=False)")(x, labels).maps
    want = attrib.Explainer(classifier, f"{method}(relu=False, layer={layer!r})")(x, labels).maps
    torch.testing.assert_close(found, want)
    assert want.abs().max() > 0


@pytest.mark.parametrize("name", ["densenet121", "convnext_tiny", "vit_b_16"])
def test_other_heads_gradients_are_not_taken_for_known(name):
    model = torchvision.models.get_model(name)
    if name == "vit_b_16":
        torch.nn.init.normal_(model.heads.head.weight)  # torchvision's is 0, which is any mean
    assert not attrib.split(model).constant_gradient
