"""The page itself, in Gradio: what is shown, and which function answers to what."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from attrib.app.limits import AppOptions, read_upload
from attrib.app.studio import Answer, Studio, cut, draw, pack
from attrib.errors import AttribError, InputError, MissingExtraError

__all__ = ["build", "serve"]

ANY_CLASS = ("the most likely", "")
"""Name and value of the first choice of a class."""
PARTS = ["heatmap", "mask", "box"]
START = ("infocam+", "gradcam", "layercam")
"""Methods that are chosen at the start, where they are offered."""
STATE_AGE = 1800
"""Seconds after which the answer of a visitor who left is forgotten, and the files deleted."""
SESSIONS = 16
"""Visitors whose answers are remembered."""
DPI = 110


def serve(options: AppOptions, *, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Show the page until it is interrupted; whatever visitors left is deleted then.

    Args:
        options: What the page offers and where it stops.
        host: Address to listen at; by default this machine only.
        port: Of the address.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with tempfile.TemporaryDirectory(prefix="attrib-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads lie there too; read when gradio loads
        build(options, Path(folder)).launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=int(options.max_megabytes * 1e6),
            state_session_capacity=SESSIONS,
            footer_links=[],
            ssr_mode=False,
            theme=_theme(),
        )


def build(options: AppOptions, folder: Path) -> Any:
    """Lay the page out.

    Args:
        options: What it offers and where it stops.
        folder: For the files that visitors download.

    Returns:
        A `gradio.Blocks` with its queue, ready to launch.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    gr = _gradio()
    with gr.Blocks(
        title="attrib", analytics_enabled=False, delete_cache=(STATE_AGE, STATE_AGE)
    ) as page:
        gr.Markdown("# Where did the classifier look?")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                asked = _questions(gr, options)
            with gr.Column(scale=3):
                shown = _answers(gr)
        _wire(gr, _Desk(studio=Studio(options), folder=folder), asked, shown)
    page.queue(
        max_size=options.queue, default_concurrency_limit=options.concurrency, api_open=False
    )
    return page


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    picture: Any
    model: Any
    target: Any
    methods: Any
    explain: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shown:
    maps: Any
    text: Any
    threshold: Any
    parts: Any
    pack: Any
    file: Any
    answer: Any


def _questions(gr: Any, options: AppOptions) -> _Asked:
    limits = f"up to {options.max_megabytes:g} MB, {options.max_megapixels:g} megapixels"
    start = [m for m in START if m in options.methods] or list(options.methods[:1])
    return _Asked(
        picture=gr.File(
            label=f"Picture ({limits})", file_types=["image"], height=140, elem_id="picture"
        ),
        model=gr.Dropdown(
            list(options.models),
            value=options.models[0],
            label="Model",
            allow_custom_value=options.allow_models,
            elem_id="model",
        ),
        target=gr.Dropdown(
            [ANY_CLASS],
            value="",
            label="Class (choose, or type a name or number)",
            allow_custom_value=True,
            elem_id="target",
        ),
        methods=gr.Dropdown(
            list(options.methods), value=start, multiselect=True, label="Methods", elem_id="methods"
        ),
        explain=gr.Button("Explain", variant="primary", elem_id="explain"),
    )


def _answers(gr: Any) -> _Shown:
    return _Shown(
        maps=gr.Image(
            label="Maps", format="png", interactive=False, buttons=["fullscreen"], elem_id="maps"
        ),
        text=gr.Textbox(label="Result", interactive=False, lines=3, elem_id="result"),
        threshold=gr.Slider(0.05, 0.95, 0.2, step=0.05, label="Threshold", elem_id="threshold"),
        parts=gr.CheckboxGroup(PARTS, value=PARTS, label="Show", elem_id="parts"),
        pack=gr.Button("Make a zip of the results", elem_id="pack"),
        file=gr.File(label="Results", interactive=False, elem_id="file"),
        answer=gr.State(Answer(explanations={}, failures={}), time_to_live=STATE_AGE),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Desk:
    """What answers to the page's events."""

    studio: Studio
    folder: Path

    def classes(self, path: str | None, model: str) -> list[tuple[str, str]]:
        if path is None:
            return [ANY_CLASS]
        top = self.studio.predict(read_upload(path, self.studio.options), model)
        return [ANY_CLASS, *((f"{label}  {score:.1%}", str(c)) for label, score, c in top)]

    def explain(
        self,
        path: str | None,
        model: str,
        target: str | None,
        methods: list[str],
        threshold: float,
        parts: list[str],
    ) -> tuple[Answer, Image.Image | None, str, None]:
        if path is None:
            raise InputError("drop a picture first")
        picture = read_upload(path, self.studio.options)
        answer = self.studio.explain(picture, model, target or "", methods)
        return *self.redraw(answer, threshold, parts), None

    def redraw(
        self, answer: Answer, threshold: float, parts: list[str]
    ) -> tuple[Answer, Image.Image | None, str]:
        answer = cut(answer, threshold)
        return answer, _pixels(answer, parts), _text(answer)

    def download(self, answer: Answer) -> str:
        if not answer.explanations:
            raise InputError("there is nothing to pack; explain a picture first")
        return str(pack(answer, self.folder))


def _wire(gr: Any, desk: _Desk, asked: _Asked, shown: _Shown) -> None:
    def classes(path: str | None, model: str) -> Any:
        return gr.Dropdown(choices=desk.classes(path, model), value="")

    for event in (asked.picture.change, asked.model.change):
        _on(gr, event, classes, [asked.picture, asked.model], asked.target)
    drawn = [shown.answer, shown.maps, shown.text]
    controls = [shown.threshold, shown.parts]
    questions = [asked.picture, asked.model, asked.target, asked.methods]
    _on(gr, asked.explain.click, desk.explain, [*questions, *controls], [*drawn, shown.file])
    for event in (shown.threshold.release, shown.parts.change):
        _on(gr, event, desk.redraw, [shown.answer, *controls], drawn)
    _on(gr, shown.pack.click, desk.download, [shown.answer], shown.file)


def _on(gr: Any, event: Any, answer: Callable[..., Any], inputs: Any, outputs: Any) -> None:
    """Let a function answer to an event; what attrib refuses is shown to the visitor."""

    def told(*values: Any) -> Any:
        with _refusals(gr):
            return answer(*values)

    event(told, inputs, outputs, api_visibility="private", concurrency_id="work")


@contextmanager
def _refusals(gr: Any) -> Iterator[None]:
    try:
        yield
    except AttribError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _pixels(answer: Answer, parts: list[str]) -> Image.Image | None:
    if not answer.explanations:
        return None
    buffer = BytesIO()
    draw(answer, parts).savefig(buffer, format="png", dpi=DPI)
    return Image.open(buffer)


def _text(answer: Answer) -> str:
    lines = [
        f"{spec}: {e.label} {e.score:.1%}, "
        + (f"box {' '.join(map(str, e.box))}" if e.box else "nothing to localise")
        for spec, e in answer.explanations.items()
    ]
    return "\n".join(lines + [f"{spec} failed: {why}" for spec, why in answer.failures.items()])


def _theme() -> Any:
    """Use the visitor's own fonts, so that nothing is fetched."""
    fonts = ["system-ui", "sans-serif"]
    return _gradio().themes.Default(font=fonts, font_mono=["monospace"])


def _gradio() -> Any:
    try:
        import gradio
    except ImportError:
        raise MissingExtraError("gradio", "app") from None
    return gradio
