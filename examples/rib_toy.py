"""The toy experiment of RIB's paper: what each layer hears of a picture, and what RIB adds.

Twos and eights, some with a circle or a square that tells the class too. HGR is the fraction of a
region's pixels on which a layer depends with a gradient above 0.3. The paper does not say how
gradients are normalised. Without it the fall from G_5 to G_6 is mostly one of scale: G_5 belongs to
a sum over all cells, G_6 to their mean.

python examples/rib_toy.py                      # the digits of scikit-learn: seconds
python examples/rib_toy.py --mnist FOLDER       # FOLDER holds MNIST/raw: a minute or two
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.datasets.digits import MarkedDigits, marked_digits
from attrib.files import replacing
from attrib.methods.rib import RIB, rib
from attrib.models.learner import Learner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

REGIONS = ("R_D", "R_ND", "R_BG")
SIDE = 28
HIGH = 0.3
"""From this gradient on a pixel counts."""
NORMALISED = {"own": (2, 3), "per_image": (0, 2, 3), "none": None}
"""Over which axes of `[layers or steps, pictures, h, w]` the maximum is taken that divides."""
VANISHED, FLAT = 0.2, 0.25
"""What the words of the findings mean: see `findings`."""
BATCH, LEARNING_RATE = 32, 1e-3
SHOWN = 4  # pictures in the figure


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    started = time.perf_counter()
    data = marked_digits(args.mnist, "train", seed=args.seed)
    test = marked_digits(args.mnist, "test", fraction=1, seed=args.seed)
    net = train(data, args.epochs)
    print(f"seed {args.seed}: trained on {len(data)} pictures")
    print(f"{accuracy(net, test):.1%} of {len(test)} test pictures right, all of them marked")
    shown = first(test, args.pictures)
    options = RIB(
        steps=args.steps,
        lr=args.lr,
        pooling=args.pooling,
        preset="paper",
        scales=(1.0,),
        loss_scales=(1.0,),
        flip=False,
        train_from=0,
    )
    layers, steps = gradient_maps(net, shown), adapted_maps(net, shown, options)
    for how in args.normalise:
        print(report(hgr(normalised(layers, how), shown), hgr(normalised(steps, how), shown), how))
    with replacing(args.out) as temporary:
        draw(temporary, shown, normalised(layers, how), normalised(steps, how))
    print(f"wrote {args.out} after {time.perf_counter() - started:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder that holds MNIST/raw")
    parser.add_argument("--epochs", type=int, help="of training; 3 for MNIST, else 20")
    parser.add_argument("--steps", type=int, default=10, help="of RIB")
    parser.add_argument("--lr", type=float, default=2e-4, help="learning rate of RIB")
    parser.add_argument("--pooling", choices=("gap", "gndrp"), default="gap")
    parser.add_argument("--pictures", type=int, help="to average over; 100 of MNIST, else 25")
    parser.add_argument(
        "--normalise",
        choices=tuple(NORMALISED),
        nargs="+",
        default=["own"],
        help="divide each map by its own maximum, or by its picture's over all layers (steps); "
        "of several the last is drawn",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/rib_toy.png"))
    args = parser.parse_args()
    epochs, pictures = (20, 25) if args.mnist is None else (3, 100)
    args.epochs = epochs if args.epochs is None else args.epochs
    args.pictures = pictures if args.pictures is None else args.pictures
    return args


class Net(nn.Module):
    """Five convolutional layers, average pooling and a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        )
        self.fc = nn.Linear(64, 2)

    def features(self, x: Tensor) -> Iterator[Tensor]:
        """Yield T_1 to T_5, then the logits."""
        for layer in self.layers:
            x = layer(x)
            yield x
        yield self.fc(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        *_, logits = self.features(x)
        return logits


def train(data: MarkedDigits, epochs: int) -> Net:
    """Train on the sigmoid of two logits, as classifiers of several classes at once are."""
    net, target = Net(), F.one_hot(data.labels, 2).float()
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data)).split(BATCH):
            loss = F.binary_cross_entropy_with_logits(net(data.images[chosen]), target[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(net: Net, data: MarkedDigits) -> float:
    return (net(data.images).argmax(1) == data.labels).float().mean().item()


def first(data: MarkedDigits, count: int) -> MarkedDigits:
    return MarkedDigits(
        images=data.images[:count],
        labels=data.labels[:count],
        digit=data.digit[:count],
        mark=data.mark[:count],
    )


def gradient_maps(net: Net, data: MarkedDigits) -> Float[Tensor, "6 m h w"]:
    """Compute |G_l|: of the sum of T_l for l = 1 to 5, of the true class's logit for l = 6."""
    images = data.images.clone().requires_grad_()
    *features, logits = net.features(images)
    sums = [t.sum() for t in features] + [logits.gather(1, data.labels[:, None]).sum()]
    grads = [torch.autograd.grad(s, images, retain_graph=True)[0] for s in sums]
    return torch.stack(grads)[:, :, 0].abs()


def adapted_maps(net: Net, data: MarkedDigits, options: RIB) -> Float[Tensor, "_k m h w"]:
    """Compute |G_6| before RIB and after each of its steps, one picture at a time."""
    spec = attrib.ModelSpec(input_size=(SIDE, SIDE), mean=(0.0,), std=(1.0,), fit="squash")
    learner = Learner(attrib.split(net, spec=spec), 0)
    out = []
    for image, label in zip(data.images[:, None], data.labels, strict=True):
        rows = [logit_gradient(net, {}, image, int(label))]
        for k in range(1, options.steps + 1):  # the loop does not stop in between: begin anew
            trace = rib(learner, [image], F.one_hot(label, 2) > 0, (), replace(options, steps=k))
            rows.append(logit_gradient(net, trace.parameters, image, int(label)))
        out.append(torch.stack(rows))
    return torch.stack(out, 1)


def logit_gradient(
    net: Net, parameters: dict[str, Tensor], image: Float[Tensor, "1 1 h w"], label: int
) -> Float[Tensor, "h w"]:
    image = image.clone().requires_grad_()
    logit = functional_call(net, parameters, (image,))[0, label]
    return torch.autograd.grad(logit, image)[0][0, 0].abs()


def normalised(maps: Float[Tensor, "k m h w"], how: str) -> Float[Tensor, "k m h w"]:
    axes = NORMALISED[how]
    if axes is None:
        return maps
    return maps / maps.amax(axes, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def regions(data: MarkedDigits) -> Bool[Tensor, "3 m h w"]:
    return torch.stack([data.digit, data.mark, ~(data.digit | data.mark)])


def hgr(maps: Float[Tensor, "k m h w"], data: MarkedDigits) -> Float[Tensor, "k 3"]:
    """Average each region's high gradient ratio over the pictures that have the region."""
    region = regions(data)
    high = (maps > HIGH)[:, None] & region
    return (high.sum((3, 4)) / region.sum((2, 3))).nanmean(2)


def report(layers: Float[Tensor, "6 3"], steps: Float[Tensor, "_k 3"], how: str) -> str:
    return "\n".join(
        [
            f"\nHGR, gradients normalised: {how}",
            *table(layers, [f"G_{layer}" for layer in range(1, 7)]),
            "G_6 during RIB",
            *table(steps, [f"step {k}" for k in range(len(steps))]),
            *(
                f"{'holds' if ok else 'does not hold'}: {text}"
                for text, ok in findings(layers, steps)
            ),
        ]
    )


def table(rows: Float[Tensor, "k 3"], names: Sequence[str]) -> list[str]:
    lines = [f"{'':8}" + "".join(f"{region:>8}" for region in REGIONS)]
    for name, row in zip(names, rows.tolist(), strict=True):
        lines.append(f"{name:8}" + "".join(f"{value:8.3f}" for value in row))
    return lines


def findings(layers: Float[Tensor, "6 3"], steps: Float[Tensor, "_k 3"]) -> list[tuple[str, bool]]:
    """Say for each of the paper's observations whether it is seen here."""
    (_, _, bg1), (_, _, bg2), *_, (d5, nd5, _), (d6, nd6, _) = layers.tolist()
    d, nd, bg = (steps[-1] - steps[0]).tolist()
    return [
        (f"R_BG falls from G_1 to G_2 ({bg1:.3f} to {bg2:.3f})", bg2 < bg1),
        (
            f"R_ND nearly vanishes from G_5 to G_6: at most {VANISHED:.0%} of it is left, less "
            f"than of R_D ({nd5:.3f} to {nd6:.3f}, R_D {d5:.3f} to {d6:.3f})",
            nd6 <= VANISHED * nd5 and nd6 * d5 < d6 * nd5,
        ),
        (f"RIB raises R_D and R_ND of G_6 ({d:+.3f}, {nd:+.3f})", min(d, nd) > 0),
        (
            f"R_BG stays about flat: it moves at most {FLAT:.0%} of the smaller rise ({bg:+.3f})",
            abs(bg) <= FLAT * min(d, nd),
        ),
    ]


def draw(
    path: Path,
    data: MarkedDigits,
    layers: Float[Tensor, "6 m h w"],
    steps: Float[Tensor, "_k m h w"],
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 8.4), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, height_ratios=(5, 3.2))
    draw_maps(above, data, torch.cat([layers, steps[-1:]]))
    left, right = below.subplots(1, 2, sharey=True)
    names = [f"G$_{layer}$" for layer in range(1, 7)]
    draw_curves(left, hgr(layers, data), names, "layer")
    draw_curves(right, hgr(steps, data), [str(k) for k in range(len(steps))], "RIB step, G$_6$")
    left.set_ylabel(f"HGR: pixels above {HIGH}")
    right.legend(frameon=False)
    figure.savefig(path, dpi=120)


def draw_maps(figure: SubFigure, data: MarkedDigits, maps: Float[Tensor, "7 m h w"]) -> None:
    """Draw a row per picture; each map is as bright as its own maximum allows."""
    count = min(SHOWN, len(data))
    titles = ["picture", *(f"G$_{layer}$" for layer in range(1, 7)), "G$_6$ after RIB"]
    grid = figure.subplots(count, len(titles), squeeze=False)
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    for i, row in enumerate(grid):
        row[0].imshow(data.images[i, 0], cmap="gray")
        for axis, shown in zip(row[1:], maps[:, i], strict=True):
            axis.imshow(shown, cmap="magma", vmin=0)
            axis.contour(data.mark[i], levels=[0.5], colors=["#00e5ff"], linewidths=1)
        for axis in row:
            axis.set_axis_off()


def draw_curves(axis: Axes, rows: Float[Tensor, "k 3"], names: Sequence[str], label: str) -> None:
    for values, region, colour in zip(
        rows.T, REGIONS, ("#0072b2", "#d55e00", "#555555"), strict=True
    ):
        name = f"{region[0]}$_{{{region[2:]}}}$"
        axis.plot(range(len(values)), values, marker="o", markersize=4, color=colour, label=name)
    axis.set_xticks(range(len(names)), names)
    axis.set_xlabel(label)
    axis.set_ylim(-0.02, 1.02)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
