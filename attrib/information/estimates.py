"""Mutual information between inputs and labels, estimated by a classifier."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from attrib.errors import InputError
from attrib.information.pc_softmax import Prior, check_targets, checked_prior, pc_log_softmax
from attrib.surgery import device_of, inference

__all__ = ["MutualInformation", "estimate", "mutual_information", "pmi"]

GivenPrior = Prior | Literal["empirical"] | None
"""A probability per class, those counted on the targets, or None for equal ones."""


@dataclass(frozen=True, kw_only=True)
class MutualInformation:
    """An estimate in nats, with its percentile bootstrap interval over the samples.

    The interval says what another draw of samples would change. It does not say how far the
    classifier itself falls short of the true value, and it takes the prior for known.

    Args:
        value: The mean PMI of the samples.
        low: Lower end of the interval.
        high: Upper end.
        confidence: What the interval is meant to cover, in (0, 1).
        standard_error: Of `value`: standard deviation over the root of `samples`.
        samples: How many were averaged.
        entropy_of_labels: H(Y) of the prior, the most that mutual information can be.
    """

    value: float
    low: float
    high: float
    confidence: float
    standard_error: float
    samples: int
    entropy_of_labels: float


def pmi(
    logits: Float[Tensor, "n c"], targets: Int[Tensor, " _n"], prior: GivenPrior = None
) -> Float[Tensor, " n"]:
    r"""Estimate the point-wise mutual information of each input and its label.

    $$\mathrm{PMI}(x, y) = \log \frac{P(y|x)}{P(y)} \approx
    n_y - \log \sum_{y'} P(y')\, e^{n_{y'}}$$

    Qin et al., infoCAM, eq. 9 (equal priors: `log_softmax` plus log c) and eq. 10.

    The prior must be the one the network was trained with as PC-softmax; ordinary softmax is
    PC-softmax with equal priors. An ordinary network trained on classes of unequal frequency
    carries log P(y) in its logits. Take it off before: `pmi(logits - log_prior, targets, prior)`.

    Args:
        logits: One row per input.
        targets: The label of each.
        prior: Probability of each class; `"empirical"` counts them among the targets; None for
            equal ones.

    Returns:
        In nats; negative where the classifier finds the label less likely than it is by itself.

    Raises:
        InputError: the prior does not fit, or is empirical and a class has no target.
        TargetError: a class that the logits do not have, or another number of targets than rows.
    """
    check_targets(targets, logits)
    known = _resolved(prior, targets, logits.shape[1])
    index = targets.to(logits.device, torch.long)[:, None]
    return pc_log_softmax(logits, known).gather(1, index)[:, 0]


def mutual_information(
    logits: Float[Tensor, "n c"],
    targets: Int[Tensor, " _n"],
    prior: GivenPrior = None,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> MutualInformation:
    """Estimate the mutual information of inputs and labels: the mean of `pmi`, in nats.

    Over fresh samples with this prior it is on average at most the true value, and that at most
    H(Y). With `"empirical"` no estimate exceeds H(Y). With another prior than that of the samples
    it can: ordinary softmax overestimates by up to log c - H(Y) on unequal classes.

    Args:
        logits: One row per input, best of inputs that were not trained on.
        targets: The label of each.
        prior: As for `pmi`, which also says what an ordinary softmax network needs.
        bootstrap: How many times the samples are drawn anew for the interval.
        confidence: What the interval is to cover, in (0, 1).
        seed: Of the bootstrap; the process's random state is left alone.

    Raises:
        InputError: as for `pmi`; fewer than two samples, PMI that is not finite, an option out of
            range.
        TargetError: as for `pmi`.
    """
    if bootstrap < 1 or not 0 < confidence < 1:
        raise InputError(
            f"bootstrap is at least 1 and confidence in (0, 1), got {bootstrap} and {confidence}"
        )
    if len(logits) < 2:
        raise InputError(
            f"an interval takes two samples or more, got {len(logits)}; `pmi` is that of each"
        )
    check_targets(targets, logits)
    logits, targets = logits.detach().cpu().double(), targets.cpu()
    known = _resolved(prior, targets, logits.shape[1])
    values = pmi(logits, targets, known).numpy()
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"PMI of row {row} is {values[row]}; its logits must be finite")
    low, high = _interval(values, bootstrap, confidence, seed)
    return MutualInformation(
        value=float(values.mean()),
        low=low,
        high=high,
        confidence=confidence,
        standard_error=float(values.std() / len(values) ** 0.5),
        samples=len(values),
        entropy_of_labels=float(-(known * known.log()).sum()),
    )


def estimate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor] | list[Tensor]],
    prior: GivenPrior = None,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> MutualInformation:
    """Run a classifier over batches, then compute `mutual_information` of its logits.

    The model is run in evaluation mode, on its own device, and left as it was, like the batches
    and the process's random state.

    Args:
        model: Returns logits `[b, c]`.
        batches: Pairs of inputs as the model takes them and of labels `[b]`, such as a
            `DataLoader` yields.
        prior: As for `pmi`.
        bootstrap: As for `mutual_information`.
        confidence: As for `mutual_information`.
        seed: As for `mutual_information`.

    Raises:
        InputError: as for `mutual_information`; or the model returns something else than logits.
        TargetError: as for `pmi`.
    """
    device, logits, targets = device_of(model), list[Tensor](), list[Tensor]()
    with inference(model):
        for inputs, labels in batches:
            output = model(inputs.to(device, copy=True))
            if not isinstance(output, Tensor) or output.ndim != 2:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise InputError(f"the model returns {shape}; logits of shape (b, c) are expected")
            logits.append(output.to("cpu", copy=True))
            targets.append(labels.cpu())
    if not logits:
        raise InputError("no batches to estimate mutual information on; was the loader used up?")
    return mutual_information(
        torch.cat(logits),
        torch.cat(targets),
        prior,
        bootstrap=bootstrap,
        confidence=confidence,
        seed=seed,
    )


def _resolved(
    prior: GivenPrior | str, targets: Int[Tensor, " n"], classes: int
) -> Float64[Tensor, " _c"]:
    if prior is None:
        return torch.full((classes,), 1 / classes, dtype=torch.float64)
    if not isinstance(prior, str):
        return checked_prior(prior, classes)
    if prior != "empirical":
        raise InputError(f"prior is 'empirical', a probability per class or None, got {prior!r}")
    counts = torch.bincount(targets.cpu(), minlength=classes)
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        raise InputError(
            f"prior='empirical' counts the targets, and {len(missing)} of {classes} classes have "
            f"none, class {missing[0]} for one; give a probability per class"
        )
    return counts.double() / counts.sum()


def _interval(
    values: NDArray[np.float64], bootstrap: int, confidence: float, seed: int
) -> tuple[float, float]:
    rng, n = np.random.default_rng(seed), len(values)
    means = [values[rng.integers(n, size=n)].mean() for _ in range(bootstrap)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
