"""What can be told about the way through a GPU without one."""

import pytest
import torch

import attrib
from attrib.localize import cut_values, normalize, to_source
from attrib.localize.heatmap import covered
from attrib.models import classifier as module
from attrib.models.classifier import weighted
from attrib.types import Frame
from tests.models import SPEC, images, make

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
