"""What the README, the docs and the examples show, runs."""

import doctest
import glob
import importlib
import json
import os
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from attrib.cli.demo import save
from attrib.datasets.scenes import Scenes
from attrib.methods import METHODS

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
COMPILES = "2.14"
"""Of the versions of torch that were tried, the oldest whose compiler keeps to its memory."""
QUICK = {
    "posthoc": ["--scenes", "32", "--epochs", "1"],
    "train_demo": ["--steps", "4", "--scenes", "64", "--test-scenes", "16"],
}
"""Arguments of an example that takes long without."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    demo = Scenes(length=6, size=192, seed=0)
    save([demo[i] for i in range(len(demo))], tmp_path / "out" / "scenes")
    scenes = Scenes(length=2, size=128, seed=5)
    for i, name in enumerate(["bird.jpg", "other.jpg"]):
        Image.fromarray(scenes[i].image.permute(1, 2, 0).numpy()).save(tmp_path / name)
    runpy.run_path(str(ROOT / "examples" / "seeds.py"))["render"](
        tmp_path / "out" / "seeds" / "scenes", 4
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text_of(page):
    """Read a page; a notebook becomes text with its code in fences."""
    text = Path(ROOT / page).read_text(encoding="utf-8")
    if not str(page).endswith(".ipynb"):
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    fence = {"code": "```python\n{}\n```", "markdown": "{}"}
    return "\n\n".join(fence[kind].format(source) for kind, source in cells)


PAGES = ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))]
NOTEBOOKS = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.ipynb"))]
RUNNING = [page for page in PAGES + NOTEBOOKS if FENCE.search(text_of(page))]


@pytest.mark.filterwarnings("ignore::attrib.errors.DegenerateMapWarning")  # noise as images
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # of Captum, on a copy
@pytest.mark.parametrize("page", RUNNING)
def test_pages_run(page, folder, monkeypatch):
    """What is marked as Python or sh runs offline, in the order of the page; text need not."""
    if "torch.compile(" in text_of(page) and not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler")
    if "torch.compile(" in text_of(page) and torch.__version__ < COMPILES:
        pytest.skip(f"torch {torch.__version__} may write past its memory; {COMPILES} does not")
    monkeypatch.setattr(METHODS, "_classes", dict(METHODS._classes))  # a page registers a method
    names: dict[str, object] = {}
    for language, code in FENCE.findall(text_of(page)):
        if language == "python":
            exec(compile(code, page, "exec"), names)
        else:
            shell(code)
    if page == "README.md":
        assert (folder / "bird.png").exists()
        assert (folder / "out" / "bird.json").exists()
        assert names["found"].boxes.shape[1] == 4


def shell(code):
    """Run the lines that call attrib; the others set an environment up."""
    for line in code.replace("\\\n", " ").splitlines():
        if line.startswith("attrib"):
            words = shlex.split(line, comments=True)[1:]
            words = [found for word in words for found in sorted(glob.glob(word)) or [word]]
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([\w-]+)", (ROOT / page).read_text()):
        assert f"\n{target}:" in makefile


def test_what_tests_are_skipped_without_is_in_an_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = json.dumps([*project["optional-dependencies"].values()])
    asked = re.compile(r"(?:importorskip|find_spec)\(\"(\w+)\"")
    found = {
        name for path in (ROOT / "tests").rglob("*.py") for name in asked.findall(path.read_text())
    }
    assert {"selenium", "quantus"} <= found
    known_as = {"sklearn": "scikit-learn"}
    elsewhere = {"setuptools", "triton"}  # what builds, and what torch brings where there is a GPU
    assert [n for n in found - elsewhere if known_as.get(n, n) not in extras] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_run(path, tmp_path):
    done = subprocess.run(
        [sys.executable, str(path), *QUICK.get(path.stem, [])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    for written in re.findall(r"\bwrote (\S+)", done.stdout):
        assert (tmp_path / written).exists()


@pytest.mark.parametrize(
    "name", [m.name for m in pkgutil.walk_packages(attrib.__path__, "attrib.")]
)
def test_doctests(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_links_lead_somewhere():
    for page in ["CONTRIBUTING.md", *PAGES, *NOTEBOOKS]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(page)):
            if not link.startswith("http"):
                assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"


def test_every_page_has_a_place():
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    index = text_of("docs/index.md")
    for page in PAGES[1:]:
        name = page.removeprefix("docs/")
        assert f" {name}\n" in contents, name
        if "/" not in name and name != "index.md":
            assert f"({name})" in index, name


def test_every_method_has_a_page():
    pages = {page.stem for page in (ROOT / "docs" / "methods").glob("*.md")}
    assert pages == set(METHODS)
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in METHODS:
        page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
        assert f"methods/{name}.md" in contents
        assert f"::: {METHODS[name].__module__}.{METHODS[name].__qualname__}\n" in page
        assert "<!-- picture -->" in page


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_notebooks_hold_no_outputs_and_have_a_place(page):
    for cell in json.loads((ROOT / page).read_text(encoding="utf-8"))["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert page.removeprefix("docs/").replace(".ipynb", ".md") in contents
