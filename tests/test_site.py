"""The built documentation: nothing on it comes from elsewhere, and its notebooks were run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FETCHED = (
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?((?:https?:)?//[^\"'\s>]+)",
    r"<link\b(?![^>]*\brel=[\"']?canonical)[^>]*\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)",
    r"(?:@import\s+|\burl\()\s*[\"']?((?:https?:)?//[^\"'\s)]+)",
)
"""What a browser fetches by itself; a link to be clicked is none of it."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "mkdocstrings", "latex2mathml", "nbconvert", "ipykernel"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def fetched(text):
    return [address for pattern in FETCHED for address in re.findall(pattern, text)]


def test_what_is_fetched_is_seen():
    assert fetched('<script async src="https://a.b/c.js"></script>') == ["https://a.b/c.js"]
    assert fetched("<link rel=stylesheet href=//a.b/c.css>") == ["//a.b/c.css"]
    assert fetched("@font-face{src:url(https://a.b/c.woff)}") == ["https://a.b/c.woff"]
    assert fetched('<a href="https://a.b">there</a><script src="assets/own.js"></script>') == []


def test_nothing_is_fetched_from_elsewhere(site):
    pages = [p for p in site.rglob("*") if p.suffix in (".html", ".css")]
    assert len(pages) > 50
    found = {str(p.relative_to(site)): fetched(p.read_text(encoding="utf-8")) for p in pages}
    assert {page: addresses for page, addresses in found.items() if addresses} == {}


@pytest.mark.parametrize("name", [p.stem for p in (ROOT / "docs" / "notebooks").glob("*.ipynb")])
def test_notebooks_were_run(site, name):
    text = (site / "notebooks" / name / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'src="(\.\./assets/[^"]+\.png)"', text)
    assert pictures
    for picture in pictures:
        assert (site / "notebooks" / name / picture).is_file()
    assert "Traceback" not in text
    assert "stderr" not in text
    assert (site / "notebooks" / f"{name}.ipynb").is_file()
