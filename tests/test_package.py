"""What is built from the sources installs, finds its own files, and runs."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BACKEND = "import sys, setuptools.build_meta as b; getattr(b, f'build_{sys.argv[1]}')(sys.argv[2])"
SMOKE = """
import attrib, pathlib, sys
assert pathlib.Path(attrib.__file__).is_relative_to(sys.prefix), attrib.__file__
assert attrib.__version__ == "{version}"
"""

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def built(kind: str, out: Path) -> Path:
    """Build in a copy, so that nothing is left among the sources."""
    setuptools = pytest.importorskip("setuptools", "77")
    assert setuptools
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not names:
        pytest.skip("what belongs to the sources is known in a clone only")
    for name in names:
        copy = out / "sources" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
    run(sys.executable, "-c", BACKEND, kind, out, cwd=out / "sources")
    (found,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return found


def test_the_source_distribution_is_the_clone(tmp_path):
    with tarfile.open(built("sdist", tmp_path)) as archive:
        held = {name.split("/", 1)[-1] for name in archive.getnames()}
    clone = {
        path.relative_to(tmp_path / "sources").as_posix()
        for path in (tmp_path / "sources").rglob("*")
        if path.is_file() and not path.relative_to(tmp_path / "sources").parts[0].startswith(".")
    }
    clone = {name for name in clone if ".egg-info/" not in name and "/." not in name}
    assert clone - held == set()


def test_the_wheel_holds_all_of_the_package_and_nothing_else(tmp_path):
    with zipfile.ZipFile(built("wheel", tmp_path)) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = tmp_path / "sources"
    package = {p.relative_to(sources).as_posix() for p in (sources / "attrib").rglob("*.*")}
    assert held == {name for name in package if "__pycache__" not in name}


def test_the_wheel_installs_and_the_demo_runs(tmp_path):
    """In an environment of its own, which borrows only the libraries of this one."""
    wheel = built("wheel", tmp_path)
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    version = wheel.name.split("-")[1]
    run(python, "-c", SMOKE.format(version=version), cwd=tmp_path)
    command = python.with_name("attrib")
    assert version in run(command, "--version", cwd=tmp_path)
    run(command, "demo", "--out", "out", cwd=tmp_path)
    picture = next((tmp_path / "out").rglob("*.png"))
    page = tmp_path / "page.html"
    arguments = ("--model", "demo", "--methods", "cam,gradcam", "--out", page)
    run(command, "compare", picture, *arguments, cwd=tmp_path)
    assert "<html" in page.read_text(encoding="utf-8")
