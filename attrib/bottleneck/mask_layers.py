"""Small convolutional networks from one line each, in the notation of the IB mask paper."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attrib.errors import InputError

__all__ = ["LineNet", "receptive_field", "settle"]

TOKEN = re.compile(r"(Cs|C|T)([1-9])([1-9])(\d+)|(FC|R|Pad|S)(\d+)|(R|Avg)|(\|)")
SLOPE = 0.2
"""Of the leaky rectifier; the paper gives none."""
LAST_STD = 0.01
"""Of the weights of a layer without a rectifier: outputs begin near zero."""


@dataclass(frozen=True, kw_only=True)
class _Layer:
    kind: str
    kernel: int = 1
    stride: int = 1
    number: int = 0


def _parse(line: str) -> list[_Layer]:
    layers = []
    for word in line.split():
        match = TOKEN.fullmatch(word)
        if match is None:
            raise InputError(
                f"cannot read {word!r} in {line!r}; layers look like C3216 (convolution, kernel 3, "
                "stride 2, 16 channels), Cs3116, T3216, FC24, S7, R28, R, Pad1, Avg, |"
            )
        conv, kernel, stride, depth, named, number, bare, switch = match.groups()
        if conv:
            layers.append(
                _Layer(kind=conv, kernel=int(kernel), stride=int(stride), number=int(depth))
            )
        else:
            layers.append(_Layer(kind=named or bare or switch, number=int(number or 0)))
    return layers


class LineNet(nn.Module):
    """A chain of layers written as one line.

    | word | layer |
    |---|---|
    | `C3216` | convolution: kernel 3, stride 2, 16 channels, no padding |
    | `Cs3216` | the same, padded so that only the stride makes the grid smaller |
    | `T3216` | transposed convolution, padded so that the grid grows by the stride |
    | `R28`, `R` | bilinear resize to 28 x 28, or to the size of the input |
    | `Pad1` | a border of zeros |
    | `FC24` | fully connected, on the flattened input |
    | `S7` | reshape a vector to channels of 7 x 7 |
    | `Avg` | mean over the grid |
    | `|` | rectifiers before it are ReLU6, after it leaky; without it all are leaky |

    A rectifier follows every layer with weights but the last one. Weights begin normal with He's
    variance (those of the last layer small), biases at zero; the paper says nothing about it.

    Args:
        line: Words separated by spaces.
        inputs: Shape `(k, h, w)` of an input, or `(k,)` of a vector.
        outputs: Channels of the last layer instead of those in the line; None keeps them.
        rectify_last: A rectifier follows the last layer too.
        relu6: Every rectifier is ReLU6.
        beside: Channels of a picture that joins the input of every convolution, resized to it.

    Raises:
        InputError: a word that is no layer, or a grid that a layer does not fit on.
    """

    def __init__(
        self,
        line: str,
        inputs: tuple[int, ...],
        *,
        outputs: int | None = None,
        rectify_last: bool = False,
        relu6: bool = False,
        beside: int = 0,
    ) -> None:
        super().__init__()
        self.line, self.beside = line, beside
        layers = _parse(line)
        weighty = [i for i, layer in enumerate(layers) if layer.kind in ("C", "Cs", "T", "FC")]
        switch = next((i for i, layer in enumerate(layers) if layer.kind == "|"), 0)
        steps = list[nn.Module]()
        shape = inputs
        for i, layer in enumerate(layers):
            number = outputs if outputs and i == weighty[-1] else layer.number
            step, shape = _build(layer, shape, number, beside, inputs)
            if step is not None:
                steps.append(step)
            if i in weighty and (rectify_last or i != weighty[-1]):
                steps.append(nn.ReLU6() if relu6 or i < switch else nn.LeakyReLU(SLOPE))
        self.steps = nn.ModuleList(steps)
        self.shape = shape
        self.apply(_begin)
        if not rectify_last:
            nn.init.normal_(list(self.parameters())[-2], std=LAST_STD)

    def forward(self, x: Tensor, beside: Float[Tensor, "b _j h w"] | None = None) -> Tensor:
        """Run the chain on `[b, k, h, w]` or `[b, k]`."""
        size = x.shape[2:]
        for step in self.steps:
            if isinstance(step, nn.Conv2d | nn.ConvTranspose2d) and beside is not None:
                x = torch.cat([x, _resized(beside, x.shape[2:])], 1)
            x = _resized(x, step.size or size) if isinstance(step, _Resize) else step(x)
        return x


def _begin(module: nn.Module) -> None:
    """Keep the signal's size from layer to layer; PyTorch's own start lets narrow nets starve."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        fan = module.weight[0].numel()
        if isinstance(module, nn.ConvTranspose2d):  # a cell hears every stride-th of its kernel
            taps = math.prod(module.kernel_size) / math.prod(module.stride)
            fan = round(module.in_channels * taps)
        nn.init.normal_(module.weight, std=math.sqrt(2 / max(1, fan)))
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


@torch.no_grad()
def settle(net: LineNet, x: Tensor, *, last: bool = True) -> None:
    """Give every unit a mean of a half and a variance of one on some inputs, before its rectifier.

    Args:
        net: Its weights and biases are changed, layer by layer.
        x: A few hundred inputs.
        last: Change the last layer too.
    """
    weighty = [step for step in net.steps if isinstance(step, nn.Conv2d | nn.Linear)]
    size = x.shape[2:]
    for step in net.steps:
        if isinstance(step, nn.Conv2d | nn.Linear) and (last or step is not weighty[-1]):
            out = step(x).transpose(0, 1).flatten(1)
            mean, std = out.mean(1), out.std(1).clamp(min=1e-4)
            step.weight.div_(std.view(-1, *[1] * (step.weight.ndim - 1)))
            step.bias.copy_(0.5 - mean / std)  # type: ignore[union-attr]
        x = _resized(x, step.size or size) if isinstance(step, _Resize) else step(x)


class _Resize(nn.Module):
    def __init__(self, size: tuple[int, ...] | None) -> None:
        super().__init__()
        self.size = size


def _resized(x: Float[Tensor, "b k _h _w"], size: tuple[int, ...]) -> Float[Tensor, "b k _u _v"]:
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear")


def _build(
    layer: _Layer, shape: tuple[int, ...], number: int, beside: int, inputs: tuple[int, ...]
) -> tuple[nn.Module | None, tuple[int, ...]]:
    """Make one layer for inputs of a shape; return it and the shape of its outputs."""
    k, *grid = shape
    match layer.kind:
        case "|":
            return None, shape
        case "C" | "Cs" | "T":
            return _convolution(layer, k + beside, grid, number)
        case "R":
            size = (number, number) if number else inputs[1:]
            return _Resize(size if number else None), (k, *size)
        case "Pad":
            return nn.ZeroPad2d(number), (k, *(side + 2 * number for side in grid))
        case "Avg":
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (k,)
        case "S":
            if k % number**2:
                raise InputError(f"S{number} needs a multiple of {number**2} numbers, got {k}")
            shape = (k // number**2, number, number)
            return nn.Unflatten(1, shape), shape
    cells = torch.Size(grid).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(k * cells, number)), (number,)


def _convolution(
    layer: _Layer, k: int, grid: list[int], number: int
) -> tuple[nn.Module, tuple[int, ...]]:
    kernel, stride = layer.kernel, layer.stride
    if layer.kind == "T":
        padding = kernel // 2
        surplus = stride + 2 * padding - kernel
        step = nn.ConvTranspose2d(k, number, kernel, stride, padding, surplus)
        return step, (number, *(side * stride for side in grid))
    padding = kernel // 2 if layer.kind == "Cs" else 0
    sides = [(side + 2 * padding - kernel) // stride + 1 for side in grid]
    if len(grid) != 2 or min(sides) < 1:
        raise InputError(f"a convolution of kernel {kernel} does not fit on a grid of {grid}")
    return nn.Conv2d(k, number, kernel, stride, padding), (number, *sides)


def receptive_field(line: str, side: int) -> int:
    """Return how many pixels in a row one cell of a chain's last grid depends on, at most.

    Args:
        line: Words as in `LineNet`, without `FC`, `S`, `T` and `Avg`.
        side: Of the picture, in pixels.

    Raises:
        InputError: a word that is no layer, or one of those four.
    """
    first = last = torch.arange(side)  # pixels that each cell depends on
    for layer in _parse(line):
        if layer.kind in ("FC", "S", "T", "Avg"):
            raise InputError(f"{line!r} has {layer.kind}, which sees the whole picture or grows it")
        if layer.kind != "|":
            low, high = _heard(layer, len(first), side)
            first, last = first[low.clamp(min=0)], last[high.clamp(max=len(first) - 1)]
    return int((last - first).max()) + 1


def _heard(layer: _Layer, grid: int, side: int) -> tuple[Int[Tensor, " i"], Int[Tensor, " i"]]:
    """Return the first and the last cell that each cell of the next grid depends on."""
    if layer.kind == "Pad":
        at = torch.arange(-layer.number, grid + layer.number).clamp(0, grid - 1)
        return at, at
    if layer.kind == "R":
        wanted = layer.number or side
        at = (torch.arange(wanted, dtype=torch.float64) + 0.5) * grid / wanted - 0.5
        return at.floor().long(), at.ceil().long()
    padding = layer.kernel // 2 if layer.kind == "Cs" else 0
    cells = (grid + 2 * padding - layer.kernel) // layer.stride + 1
    start = torch.arange(cells) * layer.stride - padding
    return start, start + layer.kernel - 1
