"""Softmax against PC-softmax where some digits are rarer than others.

Table 3 of the infoCAM paper, MNIST: as many pictures of each digit, or only a part of the even
ones. The paper says a half (the default here), its code keeps a tenth (--keep 0.1). The test
pictures are thinned alike: the paper's two accuracies differ only where its test set is unequal
too. A digit is said where s is highest. With equal priors PC-softmax is softmax, so the balanced
network is trained once.

python examples/imbalanced_digits.py                    # the digits of scikit-learn: seconds
python examples/imbalanced_digits.py --mnist FOLDER     # FOLDER holds MNIST/raw: many minutes
python examples/imbalanced_digits.py --mnist FOLDER --per-class 500 --keep 0.1    # minutes
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from attrib.datasets.digits import digits
from attrib.information import pc_cross_entropy

CLASSES = 10
LEARNING_RATE, MOMENTUM, BATCH = 0.01, 0.5, 64

Digits = tuple[UInt8[Tensor, "m 28 28"], Int[Tensor, " m"]]


def main() -> None:
    args = parse_arguments()
    started = time.perf_counter()
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(args.seed, args.seed + args.repeats):
        for name, scores in compare(args, seed).items():
            found.setdefault(name, []).append(scores)
    print(f"\n{'':24}{'micro':>14}{'per class':>14}")
    for name, rows in found.items():
        print(f"{name:24}" + "".join(summary(column) for column in zip(*rows, strict=True)))
    runs = "" if args.repeats == 1 else f" (mean ± standard deviation of {args.repeats})"
    print(f"accuracy on test pictures{runs}; {time.perf_counter() - started:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder that holds MNIST/raw")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--per-class", type=int, help="training pictures of each digit; else all")
    parser.add_argument("--keep", type=float, default=0.5, help="fraction of even digits kept")
    parser.add_argument("--repeats", type=int, default=1, help="with another seed each")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def compare(args: argparse.Namespace, seed: int) -> dict[str, tuple[float, float]]:
    """Train and score three networks: micro and per-class accuracy of each."""
    generator = torch.Generator().manual_seed(seed)
    training = equalised(digits(args.mnist, "train"), generator, args.per_class)
    test = equalised(digits(args.mnist, "test"), generator)
    few, few_test = (thinned(data, args.keep) for data in (training, test))
    equal = torch.full((CLASSES,), 1 / CLASSES)
    counts = few[1].bincount(minlength=CLASSES)
    print(f"seed {seed}: {len(training[1])} pictures; imbalanced {counts.tolist()}", flush=True)
    plans = {
        "balanced, either": (training, test, equal),
        "imbalanced, softmax": (few, few_test, equal),
        "imbalanced, PC-softmax": (few, few_test, counts / counts.sum()),
    }
    return {
        name: accuracies(train(data, prior, args.epochs, seed), judged)
        for name, (data, judged, prior) in plans.items()
    }


def equalised(data: Digits, generator: torch.Generator, most: int | None = None) -> Digits:
    """Draw as many pictures of each digit as of the rarest, or `most`; a digit after the other."""
    images, labels = data
    count = int(labels.bincount(minlength=CLASSES).min())
    count = count if most is None else min(count, most)
    rows = []
    for digit in range(CLASSES):
        own = (labels == digit).nonzero().flatten()
        rows.append(own[torch.randperm(len(own), generator=generator)[:count]])
    return images[torch.cat(rows)], labels[torch.cat(rows)]


def thinned(data: Digits, keep: float) -> Digits:
    """Keep a fraction of the even digits of equalised ones."""
    images, labels = data
    rows = torch.arange(len(labels)).view(CLASSES, -1)
    kept = torch.cat([rows[1::2].flatten(), rows[::2, : round(keep * rows.shape[1])].flatten()])
    return images[kept], labels[kept]


class Net(nn.Sequential):
    """Two convolutions of 5 x 5, each pooled, and two fully connected layers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(800, 500),
            nn.ReLU(),
            nn.Linear(500, CLASSES),
        )

    def of(self, images: UInt8[Tensor, "m 28 28"]) -> Float[Tensor, "m 10"]:
        """Give the logits of 8-bit pictures."""
        return self(images[:, None].float() / 255)


def train(data: Digits, prior: Float[Tensor, " 10"], epochs: int, seed: int) -> Net:
    """Train with PC-softmax; equal priors make it ordinary softmax."""
    torch.manual_seed(seed)
    net, (images, labels) = Net(), data
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            loss = pc_cross_entropy(net.of(images[rows]), labels[rows], prior)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


@torch.no_grad()
def accuracies(net: Net, data: Digits) -> tuple[float, float]:
    """Compute the fraction of pictures that are right, and its mean over the digits."""
    images, labels = data
    right = torch.cat([net.of(part).argmax(1) for part in images.split(500)]) == labels
    own = [right[labels == digit].float().mean() for digit in range(CLASSES)]
    return right.float().mean().item(), torch.stack(own).mean().item()


def summary(values: tuple[float, ...]) -> str:
    found = 100 * torch.tensor(values)
    spread = "" if len(values) == 1 else f" ± {found.std():.2f}"
    return f"{f'{found.mean():.2f}{spread}':>14}"


if __name__ == "__main__":
    main()
