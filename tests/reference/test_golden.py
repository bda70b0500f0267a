"""Published implementations' outputs, replayed through the public interface."""

import numpy as np
import pytest
import torch
from torch import nn

import attrib
from attrib.localize import largest_component, normalize, to_source
from attrib.types import Frame, ModelSpec

SPECS = {
    "cam_R4": "cam(region=4)",
    "cam_R3": "cam(region=3)",
    "infocam_R4": "infocam",
    "infocam_R3": "infocam(region=3)",
    "infocamplus_R4": "infocam+",
    "infocamplus_R3": "infocam+(region=3)",
    "infocamplus_R4_perregion_ref": "infocam+(contrast='region')",
}
MEANS = {"cam": "cam", "infocam_noR": "infocam(region=1)", "infocamplus_noR": "infocam+(region=1)"}


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "infocam.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def explain(golden):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.fc = nn.Identity(), nn.Linear(12, 200)
            self.fc.weight.data = torch.from_numpy(golden["fc_weight"])
            self.fc.bias.data = torch.from_numpy(golden["fc_bias"])

        def forward(self, x):
            return self.fc(self.features(x).mean((2, 3)))

    spec = ModelSpec(input_size=(14, 14), mean=(0.5,) * 12, std=(0.5,) * 12)
    classifier = attrib.split(Head(), features="features", head="fc", spec=spec)
    features = torch.from_numpy(golden["features"])
    labels = torch.from_numpy(golden["target"])
    return lambda method: attrib.Explainer(classifier, method)(features, labels)


@pytest.mark.parametrize("key", SPECS)
def test_region_maps(golden, explain, key):
    want = torch.from_numpy(golden[f"{key}/map"])[:, 0].float()
    torch.testing.assert_close(explain(SPECS[key]).maps, want, rtol=0, atol=1e-3)


@pytest.mark.parametrize("key", MEANS)
def test_maps_without_region_are_means_over_the_twelve_channels(golden, explain, key):
    want = torch.from_numpy(golden[f"{key}/map"])[:, 0]
    torch.testing.assert_close(explain(MEANS[key]).maps / 12, want, rtol=0, atol=1e-3)


def test_logits(golden, explain):
    torch.testing.assert_close(explain("cam").logits, torch.from_numpy(golden["logits"]))


@pytest.mark.parametrize("key", ["cam", "infocam_noR", "infocamplus_noR", "cam_R4", "infocam_R4"])
def test_boxes_at_224(golden, explain, key):
    """Bicubic, range, 0.2031 for the colour map's 0.2; contour area may pick another component."""
    maps = explain((SPECS | MEANS)[key]).maps
    frame = Frame(source=(224, 224), resized=(14, 14), tensor=(14, 14))
    heat, _, _ = normalize(to_source(maps, frame, "bicubic"))
    boxes = largest_component(heat >= 0.2031).boxes
    want = torch.from_numpy(golden[f"{key}/boxes"])
    assert (boxes - want).abs().max() <= 2
