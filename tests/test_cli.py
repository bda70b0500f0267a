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

DEMO = ("--model", "demo")


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
    command = [sys.executable, "-m", "attrib", *arguments]
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


def test_a_folder_is_every_picture_in_it(pictures, tmp_path):
    folder = tmp_path / "some"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(("b.png", "b.jpg", "b-2.png", ".hidden.png", "more/c.png")):
        (folder / name).write_bytes(Path(pictures[i % 2]).read_bytes())
    (folder / "notes.txt").write_text("no picture")
    done = run("explain", folder, pictures[2], *DEMO, "--batch-size", 2, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    paths = [folder / "b-2.png", folder / "b.jpg", folder / "b.png", pictures[2]]
    shown = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert shown == [str(path) for path in paths]
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert files == {"b-2.png", "b.png", "b-3.png", "two.png"}
    together, alone = (
        json.loads(run("explain", place, *DEMO, "--json", "--target", "cat").stdout)
        for place in (folder, folder / "b.jpg")
    )
    assert together[1]["results"][0]["box"] == alone[0]["results"][0]["box"]


@pytest.mark.parametrize("command", ["explain", "compare"])
def test_a_picture_that_cannot_be_read_is_named_and_left_out(command, pictures, tmp_path):
    options = (command, tmp_path, *DEMO, "--batch-size", 1)
    options += ("--metrics", "") if command == "compare" else ()
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "b.png").write_bytes(b"")
    none = run(*options)
    assert str(none.exception).startswith("none of 2 pictures could be read")
    (tmp_path / "b.png").write_bytes(Path(pictures[2]).read_bytes())
    done = run(*options)
    assert done.exit_code == 1
    assert (
        f"attrib: {tmp_path / 'a.png'} was left out: '{tmp_path / 'a.png'}' is in no picture"
        in (done.stderr)
    )
    assert "left out" not in done.stdout
    assert ("b.png" if command == "explain" else "\n1 picture, class predicted\n") in (
        f"\n{done.stdout}"
    )


def test_no_more_than_the_next_batch_is_read_beside_one(pictures, monkeypatch):
    read = []
    reader = sys.modules["attrib.images.reader"]
    plain = reader.read_image

    def counted(given):
        read.extend([given] if isinstance(given, Path) else [])  # what is read already comes again
        return plain(given)

    monkeypatch.setattr(reader, "read_image", counted)
    seen = []
    echo = sys.modules["attrib.cli.explain"].typer.echo
    monkeypatch.setattr(
        "attrib.cli.explain.typer.echo", lambda *a, **k: seen.append(len(read)) or echo(*a, **k)
    )
    assert run("explain", *3 * pictures, *DEMO, "--batch-size", 2).exit_code == 0
    assert 2 <= seen[0] <= 4
    assert seen[-1] == len(read) == 3 * len(pictures)


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


def test_evaluate_wsol_goes_on(tmp_path):
    command = ("evaluate", "wsol", "--dataset", "scenes", "--model", "demo", "--batch-size", 2)
    kept = (*command, "--work", tmp_path / "work")
    assert run(*kept, "--limit", 2).exit_code == 0
    once, again = run(*command, "--limit", 5), run(*kept, "--limit", 5)
    assert again.exit_code == 0, again.output
    assert again.output.splitlines()[:-1] == once.output.splitlines()[:-1]  # the last are seconds
    lines = (tmp_path / "work" / "journal" / "1-of-1.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [
        f"scored {at}:1" for at in ("0:2", "2:4", "4:5")
    ]
    other = run(*kept, "--limit", 5, "--method", "cam")
    assert other.exit_code != 0
    assert "method was 'infocam+', is 'cam'" in str(other.exception)


def test_version():
    assert run("--version").output.strip() == f"attrib {attrib.__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "no.jpg", "--model", "demo"), "attrib: 'no.jpg' does not exist"),
        (("explain", "x", "--model", "demo", "--method", "infocm"), "did you mean 'infocam'"),
        (("explain", "x", "--model", "demo", "--format", "gif"), "takes png, json and npz"),
        (
            ("explain", str(Path(__file__).parent), "--model", "demo"),
            "holds no pictures itself; name the folders in it that do\n",
        ),
        (
            ("evaluate", "faithfulness", "x.png", "--model", "demo", "--metrics", ""),
            "names no metric; for maps without scores run attrib compare",
        ),
        (
            ("compare", str(Path(__file__).parent), "--model", "demo"),
            "one folder per class say --dataset folder",
        ),
        (("evaluate", "wsol", "--dataset", "cbu", "--model", "demo"), "did you mean 'cub'"),
        (("evaluate", "wsol", "--dataset", "cub", "--model", "demo"), "needs --root FOLDER"),
        (("evaluate", "wsol", "--dataset", "scenes"), "give --model, to make maps, or --maps"),
        (
            ("evaluate", "wsol", "--dataset", "scenes", "--maps", "x", "--work", "y"),
            "--work is for maps that --model makes; those of --maps are scored anew",
        ),
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
