"""Methods that attrib leaves to Captum, beside Captum called by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from captum.attr import IntegratedGradients, KernelShap, Occlusion
from torch import Tensor

import attrib
from attrib.methods.baselines.features import LinearModel, parts_of
from benchmarks.harness import OURS, Budget, Candidate, Effort, Table, call, measure
from benchmarks.models import Work, prepare

TITLE = "Captum's methods"
ABOUT = (
    "The same computation, wrapped and called by hand, on one picture: maps, logits and everything "
    "left as it was, over the maps alone. Both are checked to give the same maps. Integrated "
    "gradients of 32 steps, occlusion by a window of 32 pixels (169 places), KernelSHAP of 200 "
    "sets of 49 squares; batches of 16."
)
BUDGET = Budget(seconds=14, least=3, most=9)
MODEL, BATCH, STEPS, SAMPLES, PARTS = "torchvision/mobilenet_v2", 16, 32, 200, 49


def tables(
    effort: Effort, model: str = MODEL, steps: int = STEPS, samples: int = SAMPLES, size: int = 224
) -> Iterator[Table]:
    """Measure one method per table."""
    work = prepare(model, 1, size)
    window = size // 7
    methods: dict[str, Callable[[], Tensor]] = {
        f"integrated-gradients(steps={steps})": partial(_integrated_gradients, work, steps),
        f"occlusion(window={window})": partial(_occlusion, work, window),
        f"kernel-shap(samples={samples}, parts='grid', count={PARTS})": partial(
            _kernel_shap, work, samples
        ),
    }
    for spec, by_hand in methods.items():
        explainer = attrib.Explainer(work.classifier, spec)
        ours = partial(explainer, work.images, work.labels)
        _check(spec, ours().maps, by_hand())
        name = explainer.method.name
        candidates: list[Candidate] = [call("Captum", name, by_hand), call(OURS, name, ours)]
        yield measure(f"{spec}, {model}", candidates, BUDGET, effort)


def _check(spec: str, ours: Tensor, theirs: Tensor) -> None:
    """Compare the maps, to a thousandth of the largest value.

    Raises:
        RuntimeError: they differ, so that there is nothing to compare.
    """
    error = float((ours - theirs).abs().max() / ours.abs().max())
    if not error < 1e-3:
        raise RuntimeError(f"{spec} differs from Captum's by {error:.1e}, so nothing was timed")


def _integrated_gradients(work: Work, steps: int) -> Tensor:
    explainer = IntegratedGradients(work.model)
    found: Tensor = explainer.attribute(
        work.images, target=work.labels, n_steps=steps, internal_batch_size=BATCH
    )
    return found.detach().sum(1)


def _occlusion(work: Work, window: int) -> Tensor:
    with torch.no_grad():
        found: Tensor = Occlusion(work.model).attribute(
            work.images,
            (3, window, window),
            (3, window // 2, window // 2),
            target=work.labels,
            perturbations_per_eval=BATCH,
        )
    return found[:, 0]


def _kernel_shap(work: Work, samples: int) -> Tensor:
    torch.manual_seed(0)
    explainer = KernelShap(work.model)
    explainer.interpretable_model = LinearModel(0)
    with torch.no_grad():
        found: Tensor = explainer.attribute(
            work.images,
            target=work.labels,
            feature_mask=parts_of(work.images[0], "grid", PARTS, work.classifier.spec),
            n_samples=samples,
            perturbations_per_eval=BATCH,
        )
    return found[:, 0]
