"""How often every method waits for a GPU, counted on one that is not there.

What a model is asked once only is not counted: each method explains twice. Passes back through the
network are beyond a GPU that is not there, and are stood in for; nothing in them comes to the host.
"""

import copy

import pytest

import attrib
from attrib.methods import METHODS
from tests.models import SPEC, images, make
from tests.pretend_gpu import no_gradients
from tests.reference.test_around import vit

PAIRS, EXPLAINED, STEPS = 3, 2, 2
GRID = "parts='grid', count=4"
WAITS = {
    "ablationcam": 2,  # whether the rest of the model gives the logits; whose targets are whose
    "cam": 0,
    "captum": 2 * PAIRS,
    "deconvolution": 1,
    "deeplift": 1,
    "eigencam": 0,  # of torch's own decomposition there is one more on a GPU that is there
    f"feature-ablation({GRID})": 1,  # whose targets are whose
    "fuse": 0,
    "generic-attention": 1,
    "gradcam": 0,
    "gradcam(layer='features.5')": 1,
    "gradcam++": 0,
    "gradcam++(layer='features.5')": 1,
    "guided-backprop": 1,
    "guided-gradcam": 1,
    "hirescam": 0,
    "hirescam(layer='features.5')": 1,
    f"iba(steps={STEPS})": 1,  # whether the rest of the model gives the logits
    "infocam": 0,
    "infocam+": 0,
    "input-x-gradient": 1,
    f"integrated-gradients(steps={STEPS})": 3 * PAIRS,
    f"kernel-shap({GRID}, samples=8)": 1 + EXPLAINED,  # and for scores, to fit models to
    "layercam": 0,
    "layercam(layer='features.5')": 1,
    f"lime({GRID}, samples=8)": 1 + EXPLAINED,
    "lime(samples=8)": 1 + 2 * EXPLAINED,  # and for pixels, to find superpixels in
    "lrp": 1,
    "occlusion(window=16, stride=16)": 1,
    f"rib(steps={STEPS})": 11,  # for each picture, and in each step whether it explodes
    "rollout": 0,
    "saliency": 1,
    f"shapley-sampling({GRID}, samples=2)": 1,
    "scorecam": 1,
    "smooth(samples=2)": 0,
    "tta": 0,
    "xgradcam": 0,
    "xgradcam(layer='features.5')": 1,
}
ELSEWHERE = {"gradient-shap", "smoothgrad"}
"""Captum draws noise on the GPU, which one that is not there cannot."""


def test_every_method_is_in_the_table():
    known = {spec.split("(")[0] for spec in WAITS} | ELSEWHERE
    trained = {name for name in METHODS if METHODS[name].needs_weights}
    assert known | trained == set(METHODS)


@pytest.mark.parametrize("spec", WAITS)
def test_a_method_waits_as_often_as_it_must(spec, waits, monkeypatch):
    no_gradients(monkeypatch)
    attends = METHODS[spec.split("(")[0]].needs_attention
    model = vit().float() if attends else make("plain")
    here = attrib.split(model, spec=SPEC)
    there = here.of(copy.deepcopy(model).cuda())
    there.__dict__["gradient_layer"] = here.gradient_layer if attends else "features.5"
    explainer = attrib.Explainer(there, spec)
    for _ in range(2):
        waits.clear()
        found = explainer(images(3), [[0, 1], [], [3]])
    assert found.maps.device.type == "cuda"
    assert len(waits) == WAITS[spec], waits[:60]
