"""Captum's methods called by hand, as its documentation shows, to the maps of attrib.

Each function takes the work and gives maps `[n, h, w]`. Where a method draws, it is seeded as
attrib seeds it. ReLUs are not in place: Captum's rules for them do not work otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from captum import attr
from torch import Tensor

from attrib.methods.baselines.parts import least_squares, parts_of
from benchmarks.models import Work

__all__ = ["ByHand", "gradients", "integrated_gradients", "occlusion", "parts"]

ByHand = Callable[[Work], Tensor]
SUMS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda values: values.sum(1),
    "abs-sum": lambda values: values.abs().sum(1),
    "abs-max": lambda values: values.abs().amax(1),
}


def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


def gradients(layer: str, samples: int) -> dict[str, ByHand]:
    """List the methods of one backward pass, and those of `samples` of them, by attrib's specs."""
    own = partial(_of_pixels, own_layer=layer)
    return {
        "saliency": partial(own, attr.Saliency, "abs-max"),
        "input-x-gradient": partial(own, attr.InputXGradient, "sum"),
        "guided-backprop": partial(own, attr.GuidedBackprop, "abs-sum"),
        "deconvolution": partial(own, attr.Deconvolution, "abs-sum"),
        f"guided-gradcam(layer={layer!r})": partial(own, attr.GuidedGradCam, "abs-sum"),
        "deeplift": partial(own, attr.DeepLift, "sum"),
        "lrp": partial(own, attr.LRP, "sum"),
        f"gradient-shap(samples={samples})": partial(_gradient_shap, samples),
        f"smoothgrad(samples={samples})": partial(_smoothgrad, samples),
    }


def _of_pixels(kind: Any, channels: str, work: Work, *, own_layer: str) -> Tensor:
    guided = kind is attr.GuidedGradCam
    given = (work.model, work.model.get_submodule(own_layer)) if guided else (work.model,)
    options = {"interpolate_mode": "bilinear"} if guided else {}
    pictures = work.images.clone().requires_grad_()
    found = kind(*given).attribute(pictures, target=work.labels, **options)
    return SUMS[channels](found.detach())


def _gradient_shap(samples: int, work: Work) -> Tensor:
    _seed()
    found: Tensor = attr.GradientShap(work.model).attribute(
        work.images,
        torch.zeros_like(work.images),
        n_samples=samples,
        stdevs=_deviation(work, 0.1),
        target=work.labels,
    )
    return found.detach().sum(1)


def _smoothgrad(samples: int, work: Work) -> Tensor:
    _seed()
    found: Tensor = attr.NoiseTunnel(attr.Saliency(work.model)).attribute(
        work.images,
        nt_samples=samples,
        nt_samples_batch_size=samples,
        stdevs=_deviation(work, 0.15),
        target=work.labels,
        abs=False,
    )
    return found.detach().abs().sum(1)


def _deviation(work: Work, fraction: float) -> float:
    return fraction * float(work.images.max() - work.images.min())


def integrated_gradients(steps: int, batch: int, work: Work) -> Tensor:
    found: Tensor = attr.IntegratedGradients(work.model).attribute(
        work.images, target=work.labels, n_steps=steps, internal_batch_size=batch
    )
    return found.detach().sum(1)


@torch.no_grad()
def occlusion(window: int, batch: int, work: Work) -> Tensor:
    found: Tensor = attr.Occlusion(work.model).attribute(
        work.images,
        (3, window, window),
        (3, window // 2, window // 2),
        target=work.labels,
        perturbations_per_eval=batch,
    )
    return found[:, 0]


def parts(count: int, batch: int, samples: int, orders: int) -> dict[str, ByHand]:
    """List the methods that take squares of the picture away, by attrib's specs."""
    squares = f"parts='grid', count={count}"
    own = partial(_by_parts, count, batch)
    return {
        f"kernel-shap(samples={samples}, {squares})": partial(own, _kernel_shap, samples),
        f"lime(samples={samples}, {squares})": partial(own, _lime, samples),
        f"feature-ablation({squares})": partial(own, attr.FeatureAblation, None),
        f"shapley-sampling(samples={orders}, {squares})": partial(
            own, attr.ShapleyValueSampling, orders
        ),
    }


@torch.no_grad()
def _by_parts(count: int, batch: int, kind: Any, samples: int | None, work: Work) -> Tensor:
    _seed()
    options = {} if samples is None else {"n_samples": samples}
    found: Tensor = kind(work.model).attribute(
        work.images,
        target=work.labels,
        feature_mask=parts_of(work.images[0], "grid", count, work.classifier.spec)[None, None],
        perturbations_per_eval=batch,
        **options,
    )
    return found[:, 0]


class _Linear:
    """Weighted ridge regression in the form that Captum's explainers fit."""

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def fit(self, train_data: Any, **_options: Any) -> dict[str, Any]:
        """Fit to batches of (parts kept, class score, weight)."""
        kept, scores, weights = (torch.cat(column) for column in zip(*train_data, strict=True))
        self.found = least_squares(kept > 0, scores[:, None], weights, self.penalty)
        return {}

    def representation(self) -> Tensor:
        """Give the coefficients."""
        return self.found.T.float()


def _kernel_shap(model: Any) -> Any:
    explainer = attr.KernelShap(model)
    explainer.interpretable_model = _Linear(0)
    return explainer


def _lime(model: Any) -> Any:
    return attr.Lime(model, interpretable_model=_Linear(1.0), similarity_func=_closeness)


def _closeness(_picture: Tensor, _changed: Tensor, kept: Tensor, **_: Any) -> Tensor:
    """Of the authors' code for pictures, of width 0.25."""
    return torch.exp(-((1 - kept.float().mean(1).sqrt()) ** 2) / 0.25**2)
