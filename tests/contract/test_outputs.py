"""What every method promises on models that return more than logits."""

import json

import pytest
import torch
from torch import nn

import attrib
from attrib.bottleneck.aib_attached import AttachedAIB, load_attached
from attrib.errors import InputError, SplitError, WeightsError
from attrib.models.output import logits_of
from tests.contract.test_methods import NAMES
from tests.models import RETURNING, SPEC, Answer, Everything, Flat, images, make

KINDS = ["mapping", *(pytest.param(k, marks=pytest.mark.slow) for k in RETURNING if k != "mapping")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_those_of_the_model_that_returns_logits_alone(name, kind):
    model, output = make(kind), RETURNING[kind][1]
    before = Everything(model)
    found = attrib.Explainer(model, name, spec=SPEC, output=output)(images(2), [[1, 4], [0]])
    before.assert_same(model)
    bare = attrib.Explainer(make("plain"), name, spec=SPEC)(images(2), [[1, 4], [0]])
    assert torch.equal(found.logits, bare.logits)
    torch.testing.assert_close(found.maps, bare.maps, rtol=1e-5, atol=1e-6)
    assert found.exact


@pytest.mark.parametrize("kind", RETURNING)
def test_a_model_comes_apart_wherever_its_logits_are(kind):
    classifier = attrib.split(make(kind), spec=SPEC, output=RETURNING[kind][1])
    assert (classifier.exact, classifier.linear, classifier.num_classes) == (True, "fc", 5)
    named = attrib.split(
        make(kind), features="features", head="fc", spec=SPEC, output=RETURNING[kind][1]
    )
    assert torch.equal(named.forward(images(2)).grid, classifier.forward(images(2)).grid)
    assert torch.equal(
        named.predict(images(2)), attrib.split(make("plain"), spec=SPEC).predict(images(2))
    )


class Wrapped(nn.Module):
    """A transformer of timm's as hubs wrap them: fused attention inside, an object outside."""

    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer

    def forward(self, x):
        return Answer(loss=None, logits=self.transformer(x), maps=x)


@pytest.mark.parametrize(
    "name", ["rollout", "generic-attention", "gradcam", "scorecam", "saliency"]
)
def test_a_transformer_that_returns_an_object(name):
    from timm.models.vision_transformer import VisionTransformer

    inner = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=2, num_classes=5
    ).eval()
    found = attrib.Explainer(Wrapped(inner), name, spec=SPEC, output="logits")(images(2), [3, 0])
    bare = attrib.Explainer(inner, name, spec=SPEC)(images(2), [3, 0])
    torch.testing.assert_close(found.maps, bare.maps, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.logits, bare.logits)


def test_a_model_of_timms_whose_forward_says_more():
    from timm.models.resnet import BasicBlock, ResNet

    class Teacher(ResNet):
        def forward(self, x):
            features = self.forward_features(x)
            return {"features": features, "logits": self.forward_head(features)}

    model = Teacher(BasicBlock, [1, 1, 1, 1], num_classes=5).eval()
    spec = attrib.ModelSpec(input_size=(64, 64))
    classifier = attrib.split(model, spec=spec, output="logits")
    assert (classifier.exact, classifier.linear) == (True, "fc")


def test_a_model_without_class_maps_returns_more_too():
    class Pair(Flat):
        def forward(self, x):
            return super().forward(x), x

    found = attrib.Explainer(Pair(), "gradcam", spec=SPEC, output=0)(images(2))
    assert found.maps.shape == (2, 4, 4)
    with pytest.raises(SplitError, match="Name the two parts"):
        attrib.split(Pair(), spec=SPEC, output=0)


LOGITS = torch.zeros(1, 5)


@pytest.mark.parametrize(
    ("returned", "output", "message"),
    [
        (
            {"maps": LOGITS[..., None], "logits": LOGITS},
            None,
            "dict with maps, logits, .*output='lo",
        ),
        ((LOGITS, LOGITS), None, "tuple with 0, 1, expected logits .*output=0 or output=1"),
        (Answer(loss=None, logits=LOGITS, maps=LOGITS[0]), None, "Answer with .*: output='logits'"),
        ({"logits": LOGITS}, "logit", r"dict with logits, without 'logit'; .*output='logits'"),
        ((LOGITS,), 1, "tuple with 0, without 1"),
        (Answer(loss=None, logits=LOGITS, maps=LOGITS), "scores", "Answer .* without 'scores'"),
        (LOGITS, "logits", r"a tensor of shape \(1, 5\), without 'logits'; leave output= out"),
        ({"out": LOGITS[..., None]}, "out", r"output='out' gives a tensor of shape \(1, 5, 1\)"),
        (LOGITS[..., None], None, r"returns a tensor of shape \(1, 5, 1\), .*output=lambda"),
        (None, None, "returns NoneType, expected"),
        (LOGITS, lambda _: "text", "gives str, expected"),
    ],
)
def test_what_is_no_logits_is_described(returned, output, message):
    with pytest.raises(SplitError, match=message):
        logits_of(returned, output)


def test_a_classifier_keeps_the_output_that_it_was_split_with():
    classifier = attrib.split(make("tuple"), spec=SPEC, output=1)
    assert attrib.Explainer(classifier, "cam", output=1).classifier.output == 1
    with pytest.raises(InputError, match="give it to split"):
        attrib.Explainer(classifier, "cam", output=0)


@pytest.mark.parametrize(
    ("kind", "written"),
    [("mapping", "logits"), ("tuple", 1), ("function", "tests.models.squeezed")],
)
def test_files_say_where_the_logits_were(kind, written, tmp_path):
    model, output = make(kind), RETURNING[kind][1]
    picture = images(1)[0].sigmoid()
    e = attrib.explain(model, picture, method="cam", spec=SPEC, output=output)
    saved = json.loads(e.save(tmp_path / "e.json").read_text())
    assert saved["model"]["output"] == written
    bare = attrib.explain(make("plain"), picture, method="cam", spec=SPEC)
    assert "output" not in bare.to_dict()["model"]
    assert saved["results"] == bare.to_dict()["results"]
    found = attrib.compare(model, picture, ["cam", "gradcam"], spec=SPEC, output=output)
    assert found.to_dict()["model"]["output"] == written
    assert not any(row.failures for row in found.rows)


def test_what_was_trained_for_one_output_is_refused_for_another(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.a, self.b = (
                make("plain").features,
                nn.Linear(12, 5),
                nn.Linear(12, 5),
            )

        def forward(self, x):
            pooled = self.features(x).mean((2, 3))
            return self.a(pooled), self.b(pooled)

    model = Two()
    first, second = (attrib.split(model, spec=SPEC, output=i) for i in (0, 1))
    assert (first.linear, second.linear) == ("a", "b")
    AttachedAIB(first, latent=8).save(tmp_path / "a.safetensors")
    assert load_attached(tmp_path / "a.safetensors", first).classifier is first
    with pytest.raises(
        WeightsError, match=r"weights \w{16}, output=0; this is .*, output=1\. Load"
    ):
        load_attached(tmp_path / "a.safetensors", second)
