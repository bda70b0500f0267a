"""`attrib app`: a web page on which a visitor explains pictures of their own."""

from attrib.app.limits import AppOptions, deadline, held, read_upload
from attrib.app.page import build, serve
from attrib.app.studio import Answer, Studio, cut, draw, pack

__all__ = [
    "Answer",
    "AppOptions",
    "Studio",
    "build",
    "cut",
    "deadline",
    "draw",
    "held",
    "pack",
    "read_upload",
    "serve",
]
