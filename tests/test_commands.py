"""Every command on a full disk, in a folder that may not be written, and ended by Ctrl-C.

Each runs in a process of its own, with real signals, limits and permissions.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from typer.main import get_command

from attrib.cli import app
from attrib.datasets.scenes import CLASSES
from tests.forked import Trouble, run
from tests.seed_jobs import render

FIT = ["--epochs", "1", "--batch-size", "2", "--workers", "1"]
DATA = ["--dataset", "folder", "--root", "{data}", "--labels", "{data}/labels.csv"]
DEMO = ["--model", "demo"]
COMMANDS = {
    "explain": ["explain", "{data}/p0.png", *DEMO, "--format", "npz,json,png", "--out", "{out}"],
    "compare": ["compare", "{data}/p0.png", "{data}/p1.png", *DEMO, "--metrics", "sparseness",
                "--work", "{out}/work", "--out", "{out}/page.html"],
    "export": ["export", *DEMO, "--out", "{out}/demo.pt2"],
    "seeds": ["seeds", *DATA, *DEMO, "--scales", "1", "--format", "label,npz,rle",
              "--out", "{out}"],
    "demo": ["demo", "--scenes", "2", "--size", "64", "--out", "{out}"],
    "evaluate wsol": ["evaluate", "wsol", "--dataset", "scenes", *DEMO, "--limit", "2",
                      "--work", "{out}/work", "--save-maps", "{out}/maps",
                      "--json", "{out}/scores.json"],
    "evaluate seeds": ["evaluate", "seeds", "{data}/masks", *DATA, "--masks", "{data}/masks",
                       "--classes", ",".join(CLASSES), "--format", "label",
                       "--html", "{out}/p.html", "--json", "{out}/s.json"],
    "evaluate faithfulness": ["evaluate", "faithfulness", "{data}/p0.png", *DEMO, "--metrics",
                              "sparseness", "--work", "{out}/work", "--json", "{out}/f.json"],
    "fit classifier": ["fit", "classifier", *DATA, "--model", "test_resnet", "--no-pretrained",
                       "--crop", "64", "--long-side", "64", "72", *FIT, "--out", "{out}"],
    "fit aib": ["fit", "aib", *DATA, *DEMO, *FIT, "--out", "{out}"],
    "fit ib-mask": ["fit", "ib-mask", *DATA, *DEMO, *FIT, "--out", "{out}"],
    "fit aib-network": ["fit", "aib-network", "--dataset", "splits", "--root", "{splits}",
                        "--network", "vgg32", "--width", "0.05", *FIT, "--test-samples", "1", "1",
                        "--out", "{out}"],
}  # fmt: skip
SILENT = ("app", "methods", "models")
"""They write no files; tests/test_app.py ends the page by Ctrl-C."""
QUICK = ("explain", "seeds")
EVERY = [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in COMMANDS]


def test_no_command_is_left_out():
    known = get_command(app).commands
    names = {
        f"{group} {name}" if nested else group
        for group, command in known.items()
        for nested in [getattr(command, "commands", None)]
        for name in nested or [""]
    }
    assert names == {*COMMANDS, *SILENT}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Pictures, labels, masks; pictures of 32 x 32 in folders of splits and classes."""
    found = {name: tmp_path_factory.mktemp(name) for name in ("data", "splits", "scratch")}
    _fill(found["data"], found["splits"])
    return found


def _fill(data, splits):
    render(data, 4)
    rows = (data / "labels.csv").read_text().splitlines()[:-1]  # the last picture has no class
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
    noise = np.random.default_rng(0)
    for name in ("train/cat/0", "train/cat/1", "train/dog/0", "test/cat/0", "test/dog/0"):
        path = splits / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(path)


def run_command(name, places, out, **trouble):
    scratch = places["scratch"]
    arguments = [part.format(out=out, **places) for part in COMMANDS[name]]
    return run(arguments, Trouble(folder=str(out), **trouble), scratch)


def read(path: Path) -> None:
    """Read a whole file; what is half-written raises."""
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        [json.loads(line) for line in path.read_text().splitlines()]
    elif path.suffix == ".png":
        Image.open(path).load()
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            assert [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
    elif path.suffix in (".npz", ".pt", ".pt2"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    else:
        assert path.suffix == ".html", f"{path} is of a kind that is not looked into"
        assert path.read_text().rstrip().endswith("</html>")


def assert_whole(out: Path) -> int:
    """Every file under a folder is whole and under its own name; return how many there are."""
    files = [path for path in out.rglob("*") if path.is_file()]
    for path in files:
        assert not path.name.startswith("."), path
        read(path)
    return len(files)


def assert_one_line(done, *words):
    lines = [line for line in done.errors.splitlines() if line.startswith("attrib: ")]
    assert "Traceback" not in done.errors, done.errors
    told = [line for line in lines if "warning" not in line]
    assert len(told) == 1, done.errors
    for word in words:
        assert word in told[0]


@pytest.mark.parametrize("name", EVERY)
def test_on_a_disk_that_is_full(name, places, tmp_path):
    """No file may be larger than a hundred bytes."""
    out = tmp_path / "out"
    done = run_command(name, places, out, largest=100)
    assert done.status == 2, done.errors
    place = "config.json" if name == "fit classifier" else str(out)  # tried in a temporary folder
    assert_one_line(done, "cannot write", place, "File too large")
    assert_whole(out)


@pytest.mark.parametrize("name", EVERY)
def test_in_a_folder_that_may_not_be_written(name, places, tmp_path):
    out = tmp_path / "closed" / "out"
    out.parent.mkdir(mode=0o555)
    done = run_command(name, places, out, bound=True)
    assert done.status == 2, done.errors
    assert_one_line(done, str(out), "Permission denied")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("when", ["working", "writing"])
@pytest.mark.parametrize("name", EVERY)
def test_ctrl_c_and_the_command_repeated(name, when, places, tmp_path):
    out = tmp_path / "out"
    stopped = run_command(name, places, out, interrupt=when)
    if (name, when) == ("evaluate seeds", "working"):
        assert stopped.status == 0  # it runs no model
        return
    assert stopped.status == 130, stopped.errors
    assert_one_line(stopped, "attrib: stopped")
    left = assert_whole(out)
    done = run_command(name, places, out)
    assert done.status == 0, done.errors
    assert assert_whole(out) > left
