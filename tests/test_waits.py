"""How often methods wait for a GPU, counted on one that is not there."""

import copy

import pytest

import attrib
from tests.models import SPEC, images, make
from tests.pretend_gpu import no_gradients
from tests.reference.test_around import vit

WAITS = {
    "ablationcam": 2,
    "cam": 0,
    "captum": 6,
    "deeplift": 6,
    "eigencam": 0,
    "feature-ablation(parts='grid', count=4)": 54,
    "fuse": 1,
    "generic-attention": 5,
    "gradcam": 1,
    "guided-gradcam": 1,
    "iba(steps=2)": 6,
    "iba(steps=3)": 7,
    "integrated-gradients(steps=4)": 9,
    "integrated-gradients(steps=8)": 9,
    "lrp": 0,
    "occlusion(window=16, stride=16)": 12,
    "rib(steps=2)": 13,
    "rib(steps=3)": 17,
    "rollout": 4,
    "saliency": 0,
    "scorecam": 1,
    "smooth(samples=2)": 4,
    "smoothgrad(samples=2)": 3,
    "tta": 0,
}
"""Of three pictures with three targets between them."""


@pytest.mark.parametrize("spec", WAITS)
def test_methods_wait_as_often_as_the_docs_say(spec, waits, monkeypatch):
    no_gradients(monkeypatch)
    attention = spec in ("rollout", "generic-attention")
    model = vit().float() if attention else make("plain")
    here = attrib.split(model, spec=SPEC)
    there = here.of(copy.deepcopy(model).cuda())
    there.__dict__["gradient_layer"] = here.gradient_layer if attention else "features.5"
    explainer, given = attrib.Explainer(there, spec), images(3)
    waits.clear()
    explainer(given, [[0, 1], [], [3]])
    assert len(waits) == WAITS[spec], waits
