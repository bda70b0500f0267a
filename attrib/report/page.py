"""A page of pictures with a caption each, in one file that needs no other."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

__all__ = ["Row", "page"]

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table.facts { margin-bottom: 2rem }
table.facts td { padding: 0 1.5rem 0 0 }
figure { margin: 0 0 2rem; display: flex; gap: .5rem; flex-wrap: wrap }
figcaption { flex-basis: 100% }
img { max-width: 100% }
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """Pictures side by side.

    Args:
        caption: Above them.
        images: RGB or palette.
        names: What each of them is, for those who cannot see it.
    """

    caption: str
    images: Sequence[Image.Image]
    names: Sequence[str]


def page(title: str, facts: dict[str, str], rows: Sequence[Row], *, side: int = 280) -> str:
    """Write an HTML page.

    Args:
        title: Its heading.
        facts: A table above the pictures.
        rows: What to show, in order.
        side: Pictures are shrunk to this size in pixels.
    """
    table = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(value)}</td></tr>"
        for key, value in facts.items()
    )
    figures = "\n".join(_figure(row, side) for row in rows)
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f'<body><h1>{name}</h1><table class="facts">{table}</table>\n{figures}\n</body></html>\n'
    )


def _figure(row: Row, side: int) -> str:
    images = "".join(
        f'<img src="data:image/png;base64,{_encoded(image, side)}" alt="{html.escape(name)}">'
        for image, name in zip(row.images, row.names, strict=True)
    )
    return f"<figure><figcaption>{html.escape(row.caption)}</figcaption>{images}</figure>"


def _encoded(image: Image.Image, side: int) -> str:
    small = image.copy()
    palette = image.mode == "P"
    small.thumbnail((side, side), Image.Resampling.NEAREST if palette else Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
