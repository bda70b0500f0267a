"""How much a classifier's logits tell about mutual information, where the truth is known.

Table 2 of the infoCAM paper: points of five overlapping Gaussians, as many of each or not, are
classified by four linear layers of width 100, trained with softmax or with PC-softmax. The mean
PMI of test points is set beside the Monte Carlo value of the true densities. The numbers of points
are the paper's with --scale 1; the optimiser and the early stop are ours.

A class is said where PMI is highest, as in the paper. Two columns go beyond it: `softmax - log P`
takes the prior off the logits of softmax, which is all that its estimate lacks; `+P` puts it back
on those of PC-softmax, as the most accurate answer needs.

python examples/gaussian_mi.py                          # a twentieth of the points: seconds
python examples/gaussian_mi.py --scale 1 --epochs 20    # all points: minutes
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attrib.information import (
    gaussian_log_densities,
    gaussian_mixture,
    mutual_information,
    pc_cross_entropy,
    true_mi,
)

COUNTS = {
    "balanced": (12_000,) * 5,
    "imbalanced": (6_000, 12_000, 18_000, 24_000, 30_000),
}
HELD_OUT = 5
"""A fifth of the points validates, another tests."""
WIDTH, BATCH, LEARNING_RATE, PATIENCE = 100, 500, 1e-3, 8

Points = tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]


def main() -> None:
    args = parse_arguments()
    started = time.perf_counter()
    for name, counts in COUNTS.items():
        scaled = [round(args.scale * count) for count in counts]
        print(f"\n{name}: {', '.join(map(str, scaled))} points")
        print(f"{'':22}{'softmax':>17}{'softmax - log P':>17}{'PC-softmax':>17}")
        print(f"dim{'true MI':>11}{'Bayes':>8}" + f"{'MI':>10}{'acc.':>7}" * 3 + f"{'+P':>8}")
        for dimension in args.dimensions:
            print(row(dimension, scaled, args), flush=True)
    print(f"\nnats; seed {args.seed}; {time.perf_counter() - started:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=0.05, help="of the paper's point counts")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--epochs", type=int, default=40, help="at most; validation stops earlier")
    parser.add_argument("--samples", type=int, default=100_000, help="for the true value")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def row(dimension: int, counts: list[int], args: argparse.Namespace) -> str:
    """Compare the truth with what the two networks say of the same test points."""
    prior = torch.tensor(counts) / sum(counts)
    equal = torch.full_like(prior, 1 / len(counts))
    truth = true_mi(dimension, prior, args.samples, args.seed, bootstrap=1)
    parts = split(gaussian_mixture(dimension, counts, args.seed))
    points, labels = parts[-1]
    bayes = accuracy(gaussian_log_densities(points) + prior.log(), labels)
    softmax = corrected = logits_of_trained(parts, equal, args)
    if not torch.equal(prior, equal):
        corrected = logits_of_trained(parts, prior, args)
    shown = [
        scores(softmax, labels, equal),
        scores(softmax - prior.log(), labels, prior),
        scores(corrected, labels, prior),
    ]
    cells = "".join(f"{value:10.3f}{right:7.1%}" for value, right in shown)
    both = accuracy(corrected + prior.log(), labels)
    return f"{dimension:3}{truth.value:11.3f}{bayes:8.1%}{cells}{both:8.1%}"


def split(data: Points) -> tuple[Points, Points, Points]:
    """Cut points, which come in random order, into training, validation and test."""
    points, labels = data
    held = len(points) // HELD_OUT
    sizes = (len(points) - 2 * held, held, held)
    a, b, c = zip(points.split(sizes), labels.split(sizes), strict=True)
    return a, b, c


def logits_of_trained(
    parts: tuple[Points, Points, Points], prior: Float[Tensor, " 5"], args: argparse.Namespace
) -> Float[Tensor, "n 5"]:
    """Train with PC-softmax; equal priors make it ordinary softmax. Return test logits."""
    training, validation, test = parts
    torch.manual_seed(args.seed)
    net = network(training[0].shape[1])
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    best, kept, waited = float("inf"), net.state_dict(), 0
    for _ in range(args.epochs):
        for chosen in torch.randperm(len(training[0])).split(BATCH):
            loss = pc_cross_entropy(net(training[0][chosen]), training[1][chosen], prior)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            judged = pc_cross_entropy(net(validation[0]), validation[1], prior).item()
        waited += 1
        if judged < best:
            best, kept, waited = judged, copy.deepcopy(net.state_dict()), 0
        if waited == PATIENCE:
            break
    net.load_state_dict(kept)
    with torch.no_grad():
        return net(test[0])


def network(dimension: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dimension, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, len(COUNTS["balanced"])),
    )


def scores(
    logits: Float[Tensor, "n 5"], labels: Int[Tensor, " n"], prior: Float[Tensor, " 5"]
) -> tuple[float, float]:
    """Mutual information and the accuracy of the class with the highest PMI."""
    found = mutual_information(logits, labels, prior, bootstrap=1)
    return found.value, accuracy(logits, labels)


def accuracy(logits: Float[Tensor, "n 5"], labels: Int[Tensor, " n"]) -> float:
    return (logits.argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    main()
