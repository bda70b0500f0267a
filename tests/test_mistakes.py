"""Wrong arguments as users give them: without the type checks that the other tests run under."""

import json
import subprocess
import sys

import pytest

SETUP = """
import json, sys, numpy, torch, attrib
from attrib.targets import resolve_targets
model = attrib.load_model("demo")
explainer = attrib.Explainer(model, "cam")
picture = numpy.zeros((50, 40, 3), "uint8")
answers = {}
for call in json.load(sys.stdin):
    try:
        eval(call)
    except attrib.AttribError as error:
        answers[call] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""

MISTAKES = {
    "attrib.Explainer(model, 'infocm')": "unknown method 'infocm'; did you mean 'infocam'",
    "attrib.Explainer(model, 3)": "a method is a spec string .* got 3",
    "attrib.Explainer('resnet5000')": "unknown model 'resnet5000'; did you mean 'resnet",
    "attrib.Explainer('torchvision/resnet19')": "unknown model .*did you mean 'torchvision/resnet1",
    "attrib.Explainer(3)": "got int",
    "attrib.METHODS.make('cam(region=2.5)')": "cam: region is a whole number of at least 1, got 2",
    "attrib.METHODS.make('cam(region=True)')": "region is a whole number of at least 1, got True",
    "attrib.METHODS.make(\"cam(border='x')\")": "border is one of 'full', 'same', got 'x'",
    "attrib.METHODS.make(\"infocam+(contrast='x')\")": "contrast is one of 'image', 'region'",
    "attrib.METHODS.make('gradcam(layer=4)')": "gradcam: layer is text, got 4",
    "attrib.METHODS.make('gradcam(relu=1)')": "relu is True or False, got 1",
    "explainer.explain(picture, 1.5)": "targets are .* got float",
    "explainer.explain(picture, [[1.5]])": "a class is an index or a label name, got 1.5",
    "explainer.explain(picture, 'rabit')": "unknown label 'rabit'; did you mean 'rabbit'",
    "explainer.explain(picture, 99)": "class 99 is out of range; there are 8",
    "explainer.explain([picture] * 2, [1, 2, 3])": "got 3 targets for 2 images",
    "explainer.explain(picture, threshold=20)": r"fraction threshold lies in \[0, 1\], got 20",
    "explainer.explain(picture, rule='best')": "rule is 'fraction', .* got 'best'",
    "explainer.explain(picture, normalize='z')": "normalize is 'minmax' or 'max', got 'z'",
    "explainer.explain(picture, resize='cubic')": "resize is .* got 'cubic'",
    "explainer.explain(picture, batch_size=0)": "batch_size is 1 or more, got 0",
    "explainer.explain('no.jpg')": "no.jpg' does not exist",
    "explainer.explain([picture, 'no.jpg'])": "picture 1: .*no.jpg' does not exist",
    "explainer.explain(7)": "a picture is a path, .* got int",
    "explainer.explain(picture).save('x.gif')": "'x.gif'; end the name in .png, .json, .npz",
    "explainer.explain(picture, [[]]).heatmap": "explained for no class",
    "attrib.Explainer(model, fit='zoom').explain(picture)": "fit .*'zoom'",
    "explainer(torch.zeros(3, 96, 96))": r"images are normalised floats \[b, 3, h, w\], got .*96",
    "explainer(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))": "got torch.uint8",
    "attrib.split('resnet50')": "got str; attrib.load_model",
    "attrib.load_model('local-dir:/nowhere')": "no config.json",
    "attrib.load_model('demo', weights='x.pt')": "comes with its own weights",
}


@pytest.fixture(scope="module")
def answers():
    done = subprocess.run(
        [sys.executable, "-c", SETUP],
        input=json.dumps(list(MISTAKES)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("call", MISTAKES)
def test_a_mistake_is_answered_with_what_to_do(answers, call):
    import re

    assert call in answers, "it was accepted"
    assert re.search(MISTAKES[call], answers[call]), answers[call]
