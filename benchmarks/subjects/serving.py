"""What an explanation costs a service, over the prediction alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import attrib
from benchmarks.harness import OURS, Budget, Candidate, Effort, Table, call, measure
from benchmarks.models import build

TITLE = "Serving"
ABOUT = (
    "One picture at a time, by infocam+, over the plain forward pass: `explain` from a picture in "
    "memory, with preprocessing; `Explainer()` from a tensor to raw maps; and what "
    "`Explainer.export` writes, maps and box of the largest component in one graph, as a torch "
    "program and in onnxruntime of as many threads that do not spin, there beside the same network "
    "alone."
)
BUDGET = Budget(seconds=15, least=3, most=31, warm=2)
MODELS = ("torchvision/mobilenet_v2", "torchvision/resnet50")
METHOD = "infocam+"
ONNX = ("onnx", "onnxscript", "onnxruntime")


def tables(effort: Effort, models: Sequence[str] = MODELS) -> Iterator[Table]:
    """Measure every way to serve each model."""
    for name in models:
        yield _table(name, build(name), effort)


def _table(name: str, model: nn.Module, effort: Effort) -> Table:
    explainer = attrib.Explainer(model, METHOD)
    size = explainer.classifier.spec.input_size
    coarse = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = F.interpolate(coarse, size, mode="bicubic")
    pixels = (images[0].sigmoid() * 255).byte().permute(1, 2, 0).numpy()
    program = explainer.export()
    exported, notes = _in_onnxruntime(explainer, images)
    candidates = [
        call("torch", "forward", _quietly(model, images)),
        call(OURS, "explain, from a picture", partial(explainer.explain, Image.fromarray(pixels))),
        call(OURS, "Explainer, raw maps", partial(explainer, images)),
        call(OURS, "torch.export program", _quietly(program.program.module(), images)),
        *exported,
    ]
    notes = [_checked("torch", program.metadata), *notes]
    return measure(f"{name}, {size[0]} x {size[1]} pixels", candidates, BUDGET, effort, notes=notes)


def _quietly(function: Callable[[Tensor], Any], images: Tensor) -> Callable[[], Any]:
    return torch.no_grad()(partial(function, images))


def _in_onnxruntime(
    explainer: attrib.Explainer, images: Tensor
) -> tuple[list[Candidate], list[str]]:
    """List the network alone and the program; without onnxruntime, say so."""
    if absent := [name for name in ONNX if not find_spec(name)]:
        return [], [f"{', '.join(absent)} missing; pip install 'attrib[export]'"]
    program = explainer.export(format="onnx")
    alone = _plain(explainer.classifier.model, images)
    return [
        call("onnxruntime", "network alone", _session(alone, images)),
        call(OURS, "onnx program, in onnxruntime", _session(program.program, images)),
    ], [_checked("onnx", program.metadata)]


def _checked(kind: str, metadata: dict[str, Any]) -> str:
    found = metadata["checked"]
    return (
        f"The {kind} program's maps differ by up to {found['maps']:.0e} of the largest value, its "
        f"boxes by {found['boxes']} pixels."
    )


def _plain(model: nn.Module, images: Tensor) -> Any:
    """Export the model without any explanation."""
    found = torch.onnx.export(
        model, (images,), dynamo=True, verbose=False, opset_version=18, input_names=["images"]
    )
    return found.model_proto


def _session(program: Any, images: Tensor) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # its threads would spin for a while, and slow down whatever comes next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    ready = onnxruntime.InferenceSession(program.SerializeToString(), options)
    return partial(ready.run, None, {"images": images.numpy()})
