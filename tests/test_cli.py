import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from attrib.cli.demo import methods
from attrib.datasets.scenes import Scenes
from attrib.methods import FAMILIES, METHODS


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    scenes = Scenes(length=3, size=(100, 120), seed=2)
    paths = [folder / "a" / "one.jpg", folder / "b" / "one.jpg", folder / "two.png"]
    for i, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(scenes[i].image.permute(1, 2, 0).numpy()).save(path)
    return [str(p) for p in paths]


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def attrib_command(*arguments):
    command = [sys.executable, "-c", "from attrib.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_explain_writes_what_it_says(pictures, tmp_path):
    options = ("--model", "demo", "--out", tmp_path, "--format", "png,json,npz")
    done = run("explain", *pictures, *options)
    assert done.exit_code == 0, done.output
    names = {
        f"{stem}.{kind}" for stem in ("one", "one-2", "two") for kind in ("png", "json", "npz")
    }
    assert {p.name for p in tmp_path.iterdir()} == names
    for name in names:
        assert f"wrote {tmp_path / name}" in done.output
    saved = json.loads((tmp_path / "one-2.json").read_text())
    assert saved["picture"] == pictures[1]
    x0, y0, x1, y1 = saved["results"][0]["box"]
    assert f"{saved['results'][0]['label']}" in done.output
    assert f"box {x0} {y0} {x1} {y1}" in done.output


def test_json_goes_to_standard_output_alone(pictures):
    done = run(
        "explain", pictures[0], "--model", "demo", "--json", "--target", "cat", "--target", "3",
        "--method", "infocam+(region=2)", "--threshold", "60", "--rule", "percentile",
    )  # fmt: skip
    (answer,) = json.loads(done.stdout)
    assert answer["method"] == "infocam+(region=2)"
    assert [r["label"] for r in answer["results"]] == [
        "cat",
        attrib.load_model("demo").attrib_spec.labels[3],
    ]


def test_methods_and_models():
    text = run("methods").output
    for name in attrib.METHODS:
        assert f"{name} " in text
    assert "region=4, border='full'" in text
    for family in FAMILIES:
        assert f"{family}:\n" in text
    for name in METHODS:
        assert f"\n  {name} " in text
    rows = json.loads(run("methods", "--json").output)
    assert {row["name"] for row in rows} == set(attrib.METHODS)
    assert "torchvision/vgg16" in run("models", "vgg16").output.split()
    assert isinstance(run("models", "resnett5").exception, attrib.AttribError)


def test_demo(tmp_path):
    done = run("demo", "--scenes", 4, "--size", 96, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    for name in methods():
        assert f"\n{name} " in done.output
    with Image.open(tmp_path / "demo.png") as picture:
        assert min(picture.size) > 300
    saved = sorted((tmp_path / "scenes").iterdir())
    assert [attrib.explain("demo", path).label for path in saved] == [
        path.stem.split("-")[1] for path in saved
    ]
    assert len(saved) == 4


def test_evaluate_wsol(tmp_path):
    file = tmp_path / "out.json"
    done = run(
        "evaluate", "wsol", "--dataset", "scenes", "--model", "demo", "--method", "cam",
        "--limit", 5, "--json", file,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    assert {"gt_known_loc", "top1_loc", "threshold"} <= set(found["protocols"]["infocam"])
    assert (found["schema"], found["images"], found["method"]) == ("attrib.wsol/2", 5, "cam")
    for name in found["protocols"]:
        assert f"\n{name} " in done.output
    assert "oracle thresholds" in done.output
    assert "GT-known" in done.output


def test_version():
    assert run("--version").output.strip() == f"attrib {attrib.__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "no.jpg", "--model", "demo"), "attrib: picture 0: 'no.jpg' does not exist"),
        (("explain", "x", "--model", "demo", "--method", "infocm"), "did you mean 'infocam'"),
        (("explain", "x", "--model", "demo", "--format", "gif"), "takes png, json and npz"),
        (
            ("compare", str(Path(__file__).parent), "--model", "demo"),
            "one folder per class say --dataset folder",
        ),
        (("evaluate", "wsol", "--dataset", "cbu", "--model", "demo"), "did you mean 'cub'"),
        (("evaluate", "wsol", "--dataset", "cub", "--model", "demo"), "needs --root FOLDER"),
        (("evaluate", "wsol", "--dataset", "scenes"), "give --model, to make maps, or --maps"),
    ],
)
def test_mistakes_are_one_line_and_status_two(arguments, message):
    done = attrib_command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_warnings_are_one_line(tmp_path):
    Image.new("RGB", (50, 50)).save(tmp_path / "black.png")
    options = ("--model", "demo", "--method", "cam", "--target", "0")
    done = attrib_command("explain", str(tmp_path / "black.png"), *options)
    assert done.returncode == 0
    for line in done.stderr.splitlines():
        assert line.startswith("attrib: warning: ")
