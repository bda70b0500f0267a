"""What the documentation's build adds: pictures of the methods, notebooks as they ran, and MathML.

The pictures are made by the demo model; MathML needs no script, and so no network, to be read.
"""

from __future__ import annotations

import functools
import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor

import attrib
from attrib.cli.demo import TUNED
from attrib.datasets.scenes import CLASSES, Scene, Scenes
from attrib.methods import METHODS
from attrib.report import Panel, figure

MARK = "<!-- picture -->"
INLINE = r'<span class="arithmatex">\\\((.*?)\\\)</span>'
BLOCK = r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>'
SPECS = {**TUNED, "fuse": "fuse(layers=('features.stage2', 'features.stage3'))"}
"""Where the defaults are for networks much larger than the demo's."""
LEARNED = """![infocam+, ib-mask and aib on four scenes](../assets/learned.png)

*Both learned methods on rendered scenes beside `infocam+`, trained for the demo model on 240 others
by `examples/posthoc.py`. White: the object; blue: the box.*"""


def on_files(files: Files, config: Any) -> Files:
    """Add a picture per method, and a page per notebook."""
    for name in METHODS:
        if not METHODS[name].needs_attention and not METHODS[name].needs_weights:
            files.append(File.generated(config, f"methods/assets/{name}.png", content=draw(name)))
    for path in sorted(Path(config["docs_dir"], "notebooks").glob("*.ipynb")):
        for name, content in ran(path):
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def ran(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """Run a notebook in an empty folder; yield its page and the pictures on it, by name."""
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        runner = ExecutePreprocessor(timeout=None, kernel_name="python3", coalesce_streams=True)
        runner.preprocess(notebook, {"metadata": {"path": folder}})
    resources = {"unique_key": path.stem, "output_files_dir": "assets"}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources)
    text = text.replace("![png]", "![What the cell above shows]")
    text += (
        f"\n*Made of [this notebook], run when the page was built.*\n\n[this notebook]: {path.name}"
    )
    yield f"{path.stem}.md", text
    yield from resources["outputs"].items()


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put a method's picture, or why there is none, into its page; link to pages of notebooks."""
    markdown = markdown.replace(".ipynb)", ".md)")
    name = page.file.src_uri.removeprefix("methods/").removesuffix(".md")
    if MARK not in markdown:
        return markdown
    if METHODS[name].needs_weights:
        return markdown.replace(MARK, LEARNED)
    if METHODS[name].needs_attention:
        return markdown.replace(MARK, "*The demo model is no transformer: no picture here.*")
    caption = (
        f"*`{SPECS.get(name, name)}` on rendered scenes, whose classes are told by a small head. "
        "White: the object; blue: the box.*"
    )
    return markdown.replace(MARK, f"![{name} on three scenes](assets/{name}.png)\n\n{caption}")


def on_page_content(content: str, **_: Any) -> str:
    """Turn every equation into MathML, which browsers draw by themselves."""
    content = re.sub(INLINE, lambda m: _mathml(m[1], "inline"), content, flags=re.DOTALL)
    return re.sub(BLOCK, lambda m: _mathml(m[1], "block"), content, flags=re.DOTALL)


def _mathml(latex: str, display: str) -> str:
    return convert(html.unescape(latex), display=display)


def draw(name: str) -> bytes:
    """Draw three scenes, each beside what a method finds in it."""
    explainer = attrib.Explainer(model(), SPECS.get(name, name))
    row = []
    for scene in scenes():
        found = explainer.explain(scene.image, scene.label)
        row.append(Panel(image=scene.image, truth=scene.box, title=CLASSES[scene.label]))
        row.append(Panel(image=scene.image, heatmap=found.heatmap, box=found.box, truth=scene.box))
    file = io.BytesIO()
    figure([row], size=1.6).savefig(file, format="png", dpi=90)
    return file.getvalue()


@functools.cache
def model() -> Any:
    return attrib.load_model("demo", device="cpu")


@functools.cache
def scenes() -> list[Scene]:
    data = Scenes(length=3, size=160, seed=0)
    return [data[i] for i in range(len(data))]
