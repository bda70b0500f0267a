"""What one forward pass of noise tells about a model: its layers, its grid, its head.

Nothing here is configured by architecture; every claim about a model is checked on its outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attrib import surgery
from attrib.errors import SplitError
from attrib.models.anatomy import Anatomy, Tapped
from attrib.models.layout import Layout, Levels, Raw, detect
from attrib.models.output import Output, logits_of
from attrib.types import ModelSpec

if TYPE_CHECKING:
    from attrib.models.classifier import SpatialClassifier

__all__ = [
    "Call",
    "Findings",
    "close",
    "discover",
    "examine",
    "gradients_by",
    "last_differentiable_layer",
    "noise",
    "record",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One module's call in a forward pass."""

    path: str
    module: nn.Module
    input: object
    output: object


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What `examine` found out about a trunk and a head."""

    num_classes: int
    layout: Layout | Levels
    linear: str | None
    exact: bool
    note: str


def noise(model: nn.Module, spec: ModelSpec) -> Float[Tensor, "1 _ h w"]:
    """Make one image of normal noise from a generator of its own, on the model's device."""
    shape = (1, len(spec.mean), *spec.input_size)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return image.to(surgery.device_of(model), surgery.dtype_of(model), non_blocking=True)


@contextmanager
def probing(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Run as inference; say what was fed if the model cannot take it."""
    with surgery.inference(model):
        try:
            yield
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
            if isinstance(error, SplitError):
                raise
            raise SplitError(
                f"{type(model).__name__} failed on a probe of shape {tuple(images.shape)}: "
                f"{type(error).__name__}: {error}. If it takes another size or number of "
                "channels, pass spec=ModelSpec(input_size=(h, w), mean=..., std=...)"
            ) from error


def examine(model: nn.Module, spec: ModelSpec, anatomy: Anatomy) -> Findings:
    """Find the feature grid and check what applying the head at its cells gives.

    The checks are made on random features, large and of both signs, put in the place of the
    trunk's: an untrained or saturated trunk cannot make a bent head look straight.

    Raises:
        SplitError: the features form no grid, or the head cannot read a single cell.
    """
    images = noise(model, spec)
    with probing(model, images):
        raw, logits = anatomy.forward(model, images)
        layout = _layout(raw, spec, getattr(model, "num_prefix_tokens", None))
        raw = _random_like(raw)
        logits = anatomy.replay(model, images, raw)
        grid = anatomy.activate(layout.grid(raw, spec.input_size))  # type: ignore[arg-type]
        vectors = grid.flatten(2).squeeze(0).T
        maps = _read_cells(anatomy, model, vectors, layout, logits)
        exact = close(maps.mean(0), logits[0])
        linear = _find_linear(anatomy, model, vectors, layout, logits.shape[1])
    note = "" if exact else _why_inexact(linear)
    return Findings(
        num_classes=logits.shape[1], layout=layout, linear=linear, exact=exact, note=note
    )


def _random_like(raw: Raw) -> Raw:
    generator = torch.Generator().manual_seed(1)

    def draw(x: Tensor) -> Tensor:
        return 3 * torch.randn(x.shape, generator=generator).to(x)

    return draw(raw) if isinstance(raw, Tensor) else [draw(part) for part in raw]


def _layout(raw: Raw, spec: ModelSpec, prefix: int | None) -> Layout | Levels:
    if isinstance(raw, Tensor):
        layout = detect(raw, spec.input_size, prefix) or detect(raw, spec.input_size)
        if layout is not None:
            return layout
    elif raw and all(isinstance(part, Tensor) for part in raw):
        levels = [detect(part, spec.input_size) for part in raw]
        if all(level is not None for level in levels):
            found = tuple(level for level in levels if level is not None)
            widths = tuple(x.channels(part) for x, part in zip(found, raw, strict=True))
            return Levels(found, widths)
    shapes = [tuple(x.shape) for x in ([raw] if isinstance(raw, Tensor) else raw)]
    raise SplitError(
        f"features of shape {shapes} form no grid over a {spec.input_size} input; gradient "
        "methods such as 'gradcam' need none"
    )


def _read_cells(
    anatomy: Anatomy, model: nn.Module, vectors: Tensor, layout: Layout | Levels, logits: Tensor
) -> Tensor:
    try:
        maps = anatomy.cells(model, vectors, layout)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise SplitError(
            f"the head of {type(model).__name__} cannot be applied to a single cell ({error}); "
            "attrib.to_gap(model) makes a version with global average pooling, and gradient "
            "methods such as 'gradcam' work on the model as it is"
        ) from error
    if maps.shape != (len(vectors), logits.shape[1]):
        raise SplitError(
            f"the head gives {tuple(maps.shape)} for {len(vectors)} cells, expected "
            f"{(len(vectors), logits.shape[1])}; name the module that makes the logits as head="
        )
    return maps


def close(a: Tensor, b: Tensor) -> bool:
    """Tell whether all of a is within 1e-4, in half precision 2e-2, of the largest of b."""
    tolerance = 1e-4 if a.dtype in (torch.float32, torch.float64) else 2e-2
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


def _find_linear(
    anatomy: Anatomy, model: nn.Module, vectors: Tensor, layout: Layout | Levels, classes: int
) -> str | None:
    """Find the module whose weight is the whole head, tried on cells of both signs and sizes."""
    trial = torch.cat([vectors[:4], -3 * vectors[-4:]])
    want = None
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        weight = module.weight.flatten(1)
        if weight.shape != (classes, vectors.shape[1]):
            continue
        want = anatomy.cells(model, trial, layout) if want is None else want
        got = trial @ weight.T
        if close(got if module.bias is None else got + module.bias, want):
            return str(path)
    return None


def _why_inexact(linear: str | None) -> str:
    if linear is not None:
        return "the head is linear, but the logits are not its average over the grid"
    return "the head is not linear after average pooling; it is applied at each cell"


def discover(model: nn.Module, spec: ModelSpec, output: Output | None = None) -> Tapped | None:
    """Find the feature map of an unknown model by what its last linear layer is fed.

    The layer that gives the logits must read the average over the grid of some module's output,
    bare or rectified. Anything less certain is left to the user to name.
    """
    images = noise(model, spec)
    with probing(model, images):
        calls, logits = record(model, images, output, copy=True)
    head = next((c for c in reversed(calls) if _is_head(c, logits)), None)
    if head is None or not isinstance(head.input, Tensor):
        return None
    pooled = head.input.flatten()
    for call in reversed(calls[: calls.index(head)]):
        layout = detect(call.output, spec.input_size)
        if layout is None or layout.kind == "tokens":
            continue
        grid = layout.grid(call.output, spec.input_size)  # type: ignore[arg-type]
        for rectify in (False, True):
            mean = (grid.relu() if rectify else grid).mean((2, 3)).flatten()
            if mean.shape == pooled.shape and close(mean, pooled):
                return Tapped(call.path, head.path, rectify, output)
    return None


def _is_head(call: Call, logits: Tensor) -> bool:
    return (
        isinstance(call.module, nn.Linear | nn.Conv2d)
        and isinstance(call.output, Tensor)
        and call.output.numel() == logits.numel()
        and torch.equal(call.output.flatten(), logits.flatten())
    )


def record(
    model: nn.Module, images: Tensor, output: Output | None = None, *, copy: bool = False
) -> tuple[list[Call], Tensor]:
    """Run the model; list the calls of its modules in the order in which they ended."""
    calls: list[Call] = []

    def kept(value: object) -> object:
        return value.clone() if copy and isinstance(value, Tensor) else value

    with ExitStack() as hooks:
        for path, module in model.named_modules():

            def hear(
                inputs: Any, output: object, path: str = path, module: nn.Module = module
            ) -> None:
                first = kept(inputs[0]) if inputs else None
                calls.append(Call(path=path, module=module, input=first, output=kept(output)))

            if path:
                hooks.enter_context(surgery.hooked(module, hear))
        logits = logits_of(model(images), output)
    return calls, logits


def last_differentiable_layer(classifier: SpatialClassifier) -> str:
    """See `SpatialClassifier.gradient_layer`.

    Raises:
        SplitError: the logits depend on no layer that has a grid.
    """
    model, spec = classifier.model, classifier.spec
    images = noise(model, spec)
    widths: tuple[int, ...] = ()
    if classifier.anatomy is not None and isinstance(classifier.layout, Layout):
        with probing(model, images):
            raw, logits = classifier.anatomy.forward_leaf(model, images)
            gradient = gradients_by(logits, [raw])[0]  # type: ignore[list-item]
        if _on_grid(gradient, classifier.layout, spec):
            return ""
        widths = (classifier.layout.channels(raw),)  # type: ignore[arg-type]
    elif isinstance(classifier.layout, Levels):
        widths = classifier.layout.widths
    with probing(model, images), torch.enable_grad():
        calls, logits = record(model, images.requires_grad_(), classifier.output)
        calls = [c for c in calls if _is_candidate(c, spec, widths)]
        gradients = gradients_by(logits, [c.output for c in calls])  # type: ignore[misc]
    for call, gradient in reversed(list(zip(calls, gradients, strict=True))):
        layout = detect(call.output, spec.input_size)
        once = sum(c.path == call.path for c in calls) == 1
        if once and layout is not None and _on_grid(gradient, layout, spec):
            return call.path
    raise SplitError(f"the logits of {spec.name} depend on no layer with a grid over the picture")


def _is_candidate(call: Call, spec: ModelSpec, widths: tuple[int, ...]) -> bool:
    """Tell whether a call gives features: a grid of the right width, no query, key or value."""
    layout = detect(call.output, spec.input_size)
    if layout is None or not isinstance(call.output, Tensor) or not call.output.requires_grad:
        return False
    if isinstance(call.module, nn.Linear):
        return False
    return not widths or layout.channels(call.output) in widths


def gradients_by(logits: Tensor, outputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    """Differentiate a sum of all logits, each with a weight of its own; None for no influence."""
    if not outputs or not logits.requires_grad:
        return (None,) * len(outputs)
    weights = torch.linspace(-1, 1.3, logits.shape[1], device=logits.device, dtype=logits.dtype)
    return torch.autograd.grad(logits, outputs, weights.expand_as(logits), allow_unused=True)


def _on_grid(gradient: Tensor | None, layout: Layout, spec: ModelSpec) -> bool:
    return gradient is not None and bool(layout.grid(gradient, spec.input_size).any())
