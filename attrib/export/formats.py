"""The two forms of a program, `torch.export` and ONNX: made, run and written."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from attrib.errors import ExportError, InputError, MissingExtraError
from attrib.export.graph import OUTPUTS, Graph

__all__ = ["ENTRY", "SUFFIXES", "Format", "format_for", "made", "runner", "write"]

Format = Literal["torch", "onnx"]
SUFFIXES: dict[str, Format] = {".pt2": "torch", ".onnx": "onnx"}
ENTRY = "attrib.json"
"""Under which name the metadata lie in a file."""
OPSET = 18
"""The first in which labels can spread: `ScatterElements` with `reduction="max"`."""
MANY = 2**31 - 1
"""Images in a batch at most; torch 2.7 takes no batch without an end."""


def format_for(path: Path | None, given: str | None) -> Format:
    """Tell the format from what was asked for and the file's ending, before any work is done.

    Raises:
        InputError: an ending or a format that is none, or two that differ.
        MissingExtraError: ONNX was asked for and its packages are not installed.
    """
    if given not in (None, *SUFFIXES.values()):
        raise InputError(f"format is 'torch' or 'onnx', got {given!r}")
    named = None if path is None else SUFFIXES.get(path.suffix.lower())
    wanted = given or named
    if path is not None and (named is None or named != wanted):
        raise InputError(
            f"a program is written to a name that ends in .pt2 (torch) or .onnx (onnx), got "
            f"{path.name!r}" + (f" with format={given!r}" if given else "")
        )
    if wanted == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            _need(package)
        return "onnx"
    return "torch"


def _need(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingExtraError(package, "export") from None


def made(graph: Graph, example: Float[Tensor, "b _ h w"], format: Format) -> Any:
    """Trace a graph for any number of images.

    Args:
        graph: What to trace.
        example: Two images or more, of the size that the program will take.
        format: `"torch"` or `"onnx"`.

    Returns:
        A `torch.export.ExportedProgram`, or an `onnx.ModelProto`.

    Raises:
        ExportError: the model does something that cannot be traced.
    """
    name = type(graph.model).__name__
    with torch.no_grad(), _named(f"{name} cannot be traced by torch.export"):
        batch = torch.export.Dim("batch", min=1, max=MANY)
        traced = torch.export.export(graph, (example,), dynamic_shapes=({0: batch},), strict=False)
    if format == "torch":
        return traced
    with _named(f"{name} cannot be written as ONNX"):
        found = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(OUTPUTS),
        )
    return found.model_proto  # type: ignore[union-attr]


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tracing runs the user's code, which may raise anything
        reason = str(error).strip().split("\n")[0]
        raise ExportError(f"{what}: {type(error).__name__}: {reason}") from error


def runner(program: Any, format: Format) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function that runs a program on images and gives what `Graph.forward` does."""
    if format == "torch":
        module: Callable[[Tensor], tuple[Tensor, ...]] = program.module()
        return module
    runtime = _need("onnxruntime")
    with _named("onnxruntime cannot load the program"):
        session = runtime.InferenceSession(
            program.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with _named("onnxruntime cannot run the program"):
            found = session.run(list(OUTPUTS), {"images": images.cpu().numpy()})
        return tuple(torch.from_numpy(array).to(images.device) for array in found)

    return run


def write(program: Any, metadata: dict[str, Any], path: Path) -> None:
    """Write a program with its metadata: a zip entry `attrib.json`, or ONNX's metadata."""
    text = json.dumps(metadata, indent=2)
    if metadata["format"] == "torch":
        stream = io.BytesIO()
        torch.export.save(program, stream, extra_files={ENTRY: text})
        path.write_bytes(stream.getbuffer())
        return
    onnx = _need("onnx")
    whole = onnx.ModelProto()
    whole.CopyFrom(program)
    onnx.helper.set_model_props(whole, {ENTRY: text})
    path.write_bytes(whole.SerializeToString())
