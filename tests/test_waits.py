"""How often every method waits for a GPU, counted on one that is not there."""

import copy
from collections import Counter

import pytest
import torch

import attrib
from attrib.methods import METHODS
from tests.models import SPEC, images, make
from tests.pretend_gpu import no_gradients
from tests.reference.test_around import vit

SPECS = [
    "ablationcam",
    "captum",
    "cam",
    "deeplift",
    "eigencam",
    "feature-ablation(parts='grid', count=4)",
    "feature-ablation(parts='slic', count=4)",
    "fuse",
    "gradcam",
    "gradient-shap(samples=2)",
    "guided-gradcam",
    "iba(steps=2)",
    "integrated-gradients(steps=4)",
    "integrated-gradients(steps=8)",
    "kernel-shap(parts='grid', count=4, samples=8)",
    "kernel-shap(parts='grid', count=4, samples=16)",
    "lime(parts='grid', count=4, samples=8)",
    "lrp",
    "occlusion(window=16, stride=16)",
    "occlusion(window=16, stride=16, batch=1)",
    "rib(steps=2)",
    "rib(steps=3)",
    "scorecam",
    "shapley-sampling(parts='grid', count=4, samples=2)",
    "smooth(samples=2)",
    "smoothgrad(samples=2)",
    "saliency",
    "tta",
]


def test_survey(waits, monkeypatch):
    no_gradients(monkeypatch)
    for name in [*SPECS, "rollout", "generic-attention"]:
        try:
            att = name in ("rollout", "generic-attention")
            model = vit().float() if att else make("plain")
            here = attrib.split(model, spec=SPEC)
            there = here.of(copy.deepcopy(model).cuda())
            there.__dict__["gradient_layer"] = here.gradient_layer if att else "features.5"
            explainer = attrib.Explainer(there, name)
            given = images(3)
            waits.clear()
            explainer(given, [[0, 1], [], [3]])
            print(name, dict(Counter(waits)))
        except Exception as error:
            print(
                name,
                dict(Counter(waits)),
                "FAILED",
                type(error).__name__,
                str(error)[:150].replace("\n", " "),
            )
