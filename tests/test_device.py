"""What can be told about the way through a GPU without one."""

import pytest
import torch

import attrib
from attrib.errors import InputError
from attrib.localize import cut_values, normalize, to_source
from attrib.localize.heatmap import covered
from attrib.methods import resolve
from attrib.models import classifier as module
from attrib.models.classifier import weighted
from attrib.types import Frame
from tests.models import SPEC, Everything, MlpHead, images, make

CLASS_MAPS = ["cam", "infocam", "infocam+", "infocam+(region=1)", "cam(region=3, border='same')"]
CROPPED = Frame(source=(40, 48), resized=(40, 48), offset=(4, 8), tensor=(32, 32))


@pytest.mark.parametrize("targets", [None, [0, 4, 2], [[0, 1], [], [3]]])
@pytest.mark.parametrize("method", CLASS_MAPS)
def test_no_map_depends_on_a_look_at_values(method, targets):
    """On the meta device there are none: `.item()`, `.tolist()`, `nonzero` and `bool` all raise."""
    here = attrib.split(make("plain"), spec=SPEC)
    want = attrib.Explainer(here, method)(images(3), targets)
    found = attrib.Explainer(here.of(make("plain").to("meta")), method)(
        images(3).to("meta"), targets
    )
    assert found.maps.device.type == "meta"
    assert found.maps.shape == want.maps.shape


@pytest.mark.parametrize("frame", [CROPPED, Frame(source=(9, 7), resized=(8, 8), tensor=(8, 8))])
@pytest.mark.parametrize("rule", ["fraction", "absolute"])
def test_neither_does_a_heatmap(frame, rule):
    maps = torch.zeros(2, 4, 4, device="meta")
    seen = covered(frame, maps.device)
    heat, low, high = normalize(to_source(maps, frame), "minmax", seen)
    cut = cut_values(heat, low, high, [0.2, 0.5], rule, seen)
    assert cut.shape == (2, 2)
    assert heat.shape == (2, *frame.source)


@pytest.mark.parametrize("chunk", [1, 100, 1 << 24])
def test_weighing_by_row_is_weighing_by_image(chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_CELLS", chunk)
    classifier = attrib.split(make("plain"), spec=SPEC)
    grid = classifier.forward(images(3)).grid.double()
    image = torch.tensor([0, 0, 2])
    weights = torch.randn(3, grid.shape[1], dtype=torch.float64)
    want = torch.einsum("nk,nkuv->nuv", weights, grid[image])
    torch.testing.assert_close(weighted(grid, image, weights), want)
    assert weighted(grid, image[:0], weights[:0]).shape == (0, *grid.shape[2:])


def test_nothing_seen_has_no_range():
    heat, low, high = normalize(torch.rand(2, 3, 4), "minmax", torch.zeros(3, 4) > 0)
    assert not heat.any()
    assert not low.any()
    assert not high.any()


# Half precision


@pytest.mark.parametrize("name", ["plain", "in-place", "bias-free", "mlp"])
@pytest.mark.parametrize("method", ["cam", "infocam", "infocam+", "tta(method='infocam+')"])
def test_the_network_runs_in_half_and_the_rest_does_not(method, name):
    model = MlpHead() if name == "mlp" else make(name)
    tapped = []
    handles = [
        module.register_forward_hook(lambda _m, _x, y: tapped.append(y.dtype))
        for module in model.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    parts = {"features": "body", "head": "top"} if name == "mlp" else {}
    split = attrib.split(model, spec=SPEC, **parts)
    tapped.clear()
    before = Everything(model)
    found = attrib.Explainer(split, method, spec=SPEC, autocast="bfloat16")(images(3))
    assert {*tapped} == {torch.bfloat16}
    before.assert_same(model)
    for handle in handles:
        handle.remove()
    want = attrib.Explainer(split, method, spec=SPEC)(images(3), found.targets)
    assert found.maps.dtype == found.logits.dtype == torch.float32
    assert want.exact == (name != "mlp")
    assert not found.exact
    assert not torch.equal(found.maps, want.maps)
    span = float(want.maps.max() - want.maps.min())
    torch.testing.assert_close(found.maps, want.maps, rtol=0, atol=0.03 * span)


def test_sums_are_not_taken_in_half():
    """The maps are those that the weights give on the half-precision features, to float32."""
    explainer = attrib.Explainer(make("plain"), "cam", spec=SPEC, autocast="bfloat16")
    found, grid = explainer(images(2), 1), explainer.classifier.forward(images(2)).grid
    weight = explainer.classifier.weight[1].double()
    want = torch.einsum("k,bkuv->buv", weight, grid.double())
    torch.testing.assert_close(found.maps.double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "method", ["gradcam", "tta(method='gradcam')", "smooth(method='cam')", "saliency"]
)
def test_autocast_is_refused_where_it_means_nothing(method):
    with pytest.raises(InputError, match="autocast is for methods that read class maps"):
        attrib.Explainer(make("plain"), method, spec=SPEC, autocast="bfloat16")


def test_only_half_types_are_named():
    from attrib.explain import _in_half

    with pytest.raises(InputError, match="'bfloat16', 'float16' or None, got 'int8'"):
        _in_half.__wrapped__(attrib.split(make("plain"), spec=SPEC), resolve("cam"), "int8")


def test_half_weights_need_no_autocast():
    with pytest.raises(InputError, match=r"has torch\.bfloat16"):
        attrib.Explainer(make("plain").bfloat16(), "cam", spec=SPEC, autocast="bfloat16")
