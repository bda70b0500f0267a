"""What can be told about the way through a GPU without one."""

import copy

import pytest
import torch

import attrib
from attrib.errors import InputError
from attrib.localize import normalize
from attrib.methods.cam import region_sum
from attrib.models import evidence as module
from attrib.models import under_autocast
from attrib.models.evidence import weighted
from attrib.types import Targets
from tests.models import SPEC, Everything, MlpHead, images, make

CONTRAST = "infocam+(contrast='region')"
CLASS_MAPS = ["cam", "infocam", "infocam+", "infocam+(region=1)", "cam(region=3, border='same')"]


# Where the host waits, on a GPU that is not there


unplaced = pytest.mark.filterwarnings("ignore::attrib.errors.DegenerateMapWarning")
RESULTS = ["transfer.py to_host"]
SIZES = ["localize.py _by_frame"]


def explainers(method, name, **options):
    """The same explainer on the CPU and on the GPU."""
    model = MlpHead() if name == "mlp" else make(name)
    parts = {"features": "body", "head": "top"} if name == "mlp" else {}
    here = attrib.split(model, spec=SPEC, **parts)
    there = here.of(copy.deepcopy(model).cuda())
    return [attrib.Explainer(split, method, **options) for split in (here, there)]


@unplaced
@pytest.mark.parametrize("name", ["plain", "mlp", "in-place"])
@pytest.mark.parametrize("targets", [None, [[0, 1], [], [3]]])
@pytest.mark.parametrize("method", [*CLASS_MAPS, "tta(method='infocam+')"])
def test_from_images_to_boxes_the_host_waits_once(method, targets, name, waits):
    here, there = explainers(method, name)
    given = images(3)
    want = attrib.localize(here(given, targets))
    waits.clear()
    found = attrib.localize(there(given, targets))
    assert waits == RESULTS
    assert found.boxes.device.type == "cuda"
    assert torch.equal(found.boxes.cpu(), want.boxes)
    assert found.status == want.status


def test_contrasts_of_regions_do_not_wait(waits):
    here, there = explainers(CONTRAST, "plain")
    waits.clear()
    found = there(images(3), [[0, 1], [], [3]]).maps
    assert waits == []
    torch.testing.assert_close(found.cpu(), here(images(3), [[0, 1], [], [3]]).maps)


@pytest.mark.parametrize(
    ("method", "check"), [("scorecam", []), ("ablationcam", ["cut.py _agrees"])]
)
def test_trials_wait_once_to_know_whose_targets_are_whose(method, check, waits):
    here, there = explainers(method, "plain")
    for explainer in (here, there):
        explainer.classifier.__dict__["gradient_layer"] = "features.5"
    want = here(images(3), [[0, 1], [], [3]]).maps
    waits.clear()
    found = there(images(3), [[0, 1], [], [3]]).maps
    assert waits == check + RESULTS
    torch.testing.assert_close(found.cpu(), want)


def test_targets_on_the_gpu_are_checked_in_one_go(waits):
    _, there = explainers("cam", "plain")
    pairs = Targets(image=torch.tensor([0, 0, 2]).cuda(), label=torch.tensor([0, 1, 3]).cuda())
    given = images(3)
    waits.clear()
    there(given, pairs)
    assert waits == RESULTS


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam"])
def test_gradients_wait_once_to_know_how_many_passes(method, waits, monkeypatch):
    """The passes themselves are beyond a GPU that is not there."""
    monkeypatch.setattr("torch.autograd.grad", lambda _y, x, _seed, **_: (torch.ones_like(x),))
    _, there = explainers(f"{method}(layer='features.5')", "plain")
    waits.clear()
    there(images(3), [[0, 1], [], [3]])
    assert waits == RESULTS


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam"])
def test_gradients_that_are_known_are_not_waited_for(method, waits):
    here, there = explainers(method, "plain")
    want = here(images(3), [[0, 1], [], [3]]).maps
    waits.clear()
    found = there(images(3), [[0, 1], [], [3]]).maps
    assert waits == []
    torch.testing.assert_close(found.cpu(), want)


@unplaced
@pytest.mark.parametrize("rule", ["fraction", "absolute", "percentile", "otsu"])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_from_pictures_to_boxes_the_host_waits_for_results_alone(fit, rule, waits):
    here, there = explainers("infocam+", "plain", fit=fit)
    generator = torch.Generator().manual_seed(3)
    pictures = torch.randint(256, (3, 3, 40, 60), dtype=torch.uint8, generator=generator)
    threshold = {"percentile": [60, 90], "otsu": 0.5}.get(rule, 0.25)
    want = here.explain(pictures, [[0, 1], [], [3]], threshold=threshold, rule=rule)
    waits.clear()
    found = there.explain(pictures, [[0, 1], [], [3]], threshold=threshold, rule=rule)
    assert waits == 2 * RESULTS  # of `localize`, then scores and classes
    for here, there in zip(want, found, strict=True):
        assert there.scores == pytest.approx(here.scores, abs=1e-3)
        boxes, others = here.localization.boxes, there.localization.boxes
        torch.testing.assert_close(others.cpu(), boxes, rtol=0, atol=1)  # resized in float there


@unplaced
def test_pictures_of_several_sizes_are_told_apart_by_the_host(waits):
    _, there = explainers("infocam+", "plain", fit="crop")
    pictures = [torch.randint(256, (3, h, 50), dtype=torch.uint8) for h in (40, 50)]
    waits.clear()
    there.explain(pictures, [1, 2])
    assert waits == SIZES + 2 * RESULTS


def test_a_wait_is_found(waits):
    """The instrument itself: what waits is written down, and what mixes devices fails."""
    x = torch.arange(4.0).to("cuda", non_blocking=True)
    assert waits == []
    for look in (float, bool):
        look(x.sum())
    assert x[x > 1].nonzero().cpu().tolist() == [[0], [1]]
    torch.ones(3).cuda()
    assert x[torch.tensor([3, 1])].device.type == "cuda"
    assert len(waits) == 7
    with pytest.raises(RuntimeError, match="and on the CPU"):
        x + torch.ones(4)


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


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["plain", "in-place", "bias-free", "mlp"])
@pytest.mark.parametrize("method", [*CLASS_MAPS, "tta(method='infocam+')", CONTRAST])
def test_the_network_runs_in_half_and_the_rest_does_not(method, name, precision):
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
    found = attrib.Explainer(split, method, spec=SPEC, autocast=precision)(images(3))
    assert {*tapped} == {getattr(torch, precision)}
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


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("spec", CLASS_MAPS)
def test_sums_are_not_taken_in_half(spec, precision):
    """The maps are those that the weights give on the half-precision features, to float32."""
    explainer = attrib.Explainer(make("plain"), spec, spec=SPEC, autocast=precision)
    found, method = explainer(images(2), 1), explainer.method
    features = explainer.classifier.forward(images(2))
    classes = method.classes(features.logits, found.targets)
    weight = classes.of_weights(explainer.classifier.weight.double())
    cells = torch.einsum("nk,nkuv->nuv", weight, features.grid.double())
    want = region_sum(cells, method.region, method.border)
    torch.testing.assert_close(found.maps.double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", [None, "bfloat16", "float16"])
def test_an_answer_says_what_the_network_computed_in(precision):
    picture = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    explainer = attrib.Explainer(make("plain"), "cam", spec=SPEC, autocast=precision)
    found = explainer.explain(picture, 1).to_dict()
    assert found["model"]["precision"] == (f"{precision} autocast" if precision else "float32")
    assert found["exact"] == (precision is None)


def test_half_precision_is_not_exported():
    explainer = attrib.Explainer(make("plain"), "cam", spec=SPEC, autocast="bfloat16")
    with pytest.raises(InputError, match="bfloat16 autocast; export from an Explainer without"):
        explainer.export()


@pytest.mark.parametrize(
    "method", ["gradcam", "tta(method='gradcam')", "smooth(method='cam')", "saliency"]
)
def test_autocast_is_refused_where_it_means_nothing(method):
    with pytest.raises(InputError, match="autocast is for methods that read class maps"):
        attrib.Explainer(make("plain"), method, spec=SPEC, autocast="bfloat16")


def test_only_half_types_are_named():
    with pytest.raises(InputError, match="'bfloat16', 'float16' or None, got 'int8'"):
        under_autocast.__wrapped__(attrib.split(make("plain"), spec=SPEC), "int8")


def test_half_weights_need_no_autocast():
    with pytest.raises(InputError, match=r"has torch\.bfloat16"):
        attrib.Explainer(make("plain").bfloat16(), "cam", spec=SPEC, autocast="bfloat16")
