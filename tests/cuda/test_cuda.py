"""The device path, without any data: the same answers as on the CPU, and no way back to it."""

import pytest
import torch

import attrib
from attrib.localize import largest_component, largest_component_batched
from attrib.methods import METHODS
from tests.models import SPEC, Everything, images, make
from tests.test_localize import ADVERSARIAL

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_components_are_the_cpu_ones(name):
    masks = torch.from_numpy(ADVERSARIAL[name])[None].repeat(3, 1, 1)
    here, there = largest_component(masks), largest_component(masks.cuda())
    assert there.masks.is_cuda
    assert torch.equal(here.masks, there.masks.cpu())
    assert torch.equal(here.boxes, there.boxes.cpu())
    assert torch.equal(here.areas, there.areas.cpu())


def test_a_thousand_masks_at_once():
    masks = torch.rand(1000, 224, 224, generator=torch.Generator().manual_seed(0)) < 0.4
    here, there = largest_component(masks), largest_component_batched(masks.cuda())
    assert torch.equal(here.boxes, there.boxes.cpu())


@pytest.mark.parametrize("method", list(METHODS))
def test_maps_and_boxes_are_the_cpu_ones(method):
    model = make("plain")
    here = attrib.Explainer(model, method, spec=SPEC)(images(4), [0, 1, 2, 3])
    model.cuda()
    before, state = Everything(model), torch.cuda.get_rng_state()
    there = attrib.Explainer(model, method, spec=SPEC)(images(4).cuda(), [0, 1, 2, 3])
    before.assert_same(model)
    assert torch.equal(state, torch.cuda.get_rng_state())
    assert there.maps.is_cuda
    torch.testing.assert_close(here.maps, there.maps.cpu(), rtol=1e-2, atol=1e-3)
    exact = type(there)(**{**vars(there), "maps": here.maps.cuda()})
    boxes = attrib.localize(exact).boxes
    assert boxes.is_cuda
    assert torch.equal(attrib.localize(here).boxes, boxes.cpu())


def test_explain_stays_on_the_device_until_asked():
    e = attrib.explain("demo", torch.rand(3, 200, 150))
    assert e.heatmap.is_cuda
    assert e.mask.is_cuda
    assert e.to_dict()["results"][0]["status"] in ("ok", "negative")
