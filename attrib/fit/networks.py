"""Training the AIB paper's networks from scratch, with attention and without."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from attrib import surgery
from attrib.bottleneck.aib_classifier import NetworkClassifier
from attrib.bottleneck.aib_loss import AIBObjective, aib_loss, official
from attrib.bottleneck.aib_module import AIBNetwork, AIBOutput
from attrib.bottleneck.aib_recipe import AIBRecipe, lr_at, parameter_groups
from attrib.bottleneck.aib_variants import PlainNetwork
from attrib.datasets.crops import random_shift
from attrib.datasets.picture_sets import PictureSet
from attrib.errors import InputError, in_one_line
from attrib.fit import checkpoint
from attrib.fit.loading import ahead, batches, generator_of
from attrib.fit.loop import train as train_loop
from attrib.fit.network_config import NetworkConfig
from attrib.fit.top1 import normalised, top1_error
from attrib.models import fingerprint
from attrib.models.load import read_state_dict
from attrib.types import ModelSpec

__all__ = ["NETWORK", "fit_network", "load_features"]

NETWORK = "network.safetensors"
DECAY = 0.999
"""Of the moving average of weights; the paper does not say."""


def fit_network(
    train: PictureSet,
    *,
    out: str | Path,
    config: NetworkConfig | None = None,
    test: PictureSet | None = None,
    features: str | Path | None = None,
    device: str | torch.device = "cpu",
    tensorboard: bool = False,
    progress: bool | None = None,
) -> tuple[NetworkClassifier, dict[str, Any]]:
    """Train one of the paper's networks on a data set, and test it.

    Goes on where an earlier run stopped, to the same weights, on the CPU bit by bit.

    Args:
        train: Pictures to learn from.
        out: Folder for `network.safetensors` (a model by the name `aib:FILE`) and `fit.json`.
        config: Network and constants.
        test: Pictures to test with, of the same classes.
        features: Weights to begin with, instead of random ones; see `load_features`.
        device: Where to train.
        tensorboard: Write the log for TensorBoard too.
        progress: Show a bar; None for one on terminals only.

    Returns:
        The network in evaluation mode, and what `fit.json` holds: settings; as `history` per epoch
        the mean of every term, the share of training pictures that are classified rightly, and the
        `test_error` without noise; and as `error` that of the last weights by `test_samples`. Both
        errors are in percent, None without test pictures.

    Raises:
        InputError: other classes or sizes in the test, a folder of another run, or a loss that is
            not finite.
        WeightsError: weights that cannot be read or do not fit.
    """
    out, config, device = Path(out), config or NetworkConfig(), torch.device(device)
    _check(train, test)
    network = config.plan.make(len(train.labels), config.seed)
    if features is not None:
        load_features(network, features)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = _Task.of(network, train, test, config)
    settings = {
        "schema": "attrib.fit-aib-network/1",
        "dataset": train.name,
        "digest": train.digest,
        "test": None if test is None else test.name,
        "test_digest": None if test is None else test.digest,
        "features": None if features is None else Path(features).name,
        "features_digest": None if features is None else fingerprint(network.features),
        "config": asdict(config),
    }
    half = config.recipe.mixed_precision and device.type == "cuda"
    report = train_loop(
        task,
        out,
        settings,
        bfloat16=half if config.bfloat16 is None else config.bfloat16,
        tensorboard=tensorboard,
        progress=progress,
    )
    classifier = NetworkClassifier(task.tested, config.plan, _spec(train, config)).eval()
    classifier.save(out / NETWORK)
    if "error" not in report:
        report["error"] = _error(classifier, test, config)
    checkpoint.finish(out, report, task.model, {})
    return classifier, report


def load_features(network: AIBNetwork | PlainNetwork, path: str | Path) -> None:
    """Give a network's features published weights, such as those of torchvision's VGG-16.

    The paper trains from scratch except on CUB.

    Args:
        network: Whose `features` are changed.
        path: A safetensors file or state dict with keys `features.N.weight` and so on; others are
            left out.

    Raises:
        WeightsError: the file cannot be read.
        InputError: its features are not the network's.
    """
    state, prefix = read_state_dict(path), "features."
    own = {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
    try:
        network.features.load_state_dict(own)
    except RuntimeError as error:
        cause = in_one_line(error, 300)
        raise InputError(f"the features in {path} are not this network's: {cause}") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """See `attrib.fit.loop.Task`; the model holds a network and, if wanted, its moving average."""

    model: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    train: PictureSet
    test: PictureSet | None
    config: NetworkConfig
    objective: AIBObjective

    @classmethod
    def of(
        cls,
        network: AIBNetwork | PlainNetwork,
        train: PictureSet,
        test: PictureSet | None,
        config: NetworkConfig,
    ) -> _Task:
        model = nn.ModuleDict({"network": network})
        optimizer = _optimizer(network, config.recipe)
        if config.recipe.averaged:
            average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
            model["average"] = average
            optimizer.register_step_post_hook(lambda *_: average.update_parameters(network))
        objective = official(config.network) if config.objective == "official" else AIBObjective()
        return cls(
            model=model,
            optimizer=optimizer,
            train=train,
            test=test,
            config=config,
            objective=replace(objective, beta=config.beta),
        )

    @property
    def tested(self) -> AIBNetwork | PlainNetwork:
        """The network, or its moving average."""
        if "average" in self.model:
            return self.model["average"].module  # type: ignore[return-value]
        return self.model["network"]  # type: ignore[return-value]

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def steps(self) -> int:
        return max(1, len(self.train) // self.config.batch_size)

    @property
    def seed(self) -> int:
        return self.config.seed

    def batches(self, epoch: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        config, device = self.config, surgery.device_of(self.model)
        generator, spec = generator_of(config.seed, epoch), _spec(self.train, config)
        order = batches(len(self.train), config.batch_size, generator)
        whole = [[i] for i in range(len(order))]
        for index, (pixels,) in zip(
            order, ahead(lambda i: self.train.read(order[i]), whole, config.readers), strict=True
        ):
            shifted = random_shift(pixels.to(device), config.pad, generator, config.flip)
            yield normalised(shifted, spec), self.train.classes[index].to(device)

    def terms(self, batch: tuple[Tensor, Tensor]) -> dict[str, Float[Tensor, ""]]:
        images, labels = batch
        output = self.model["network"](images)
        if isinstance(output, AIBOutput):
            found = aib_loss(output, labels, self.objective)
            logits, terms = output.logits, {"loss": found.total, **_parts(found)}
        else:
            logits, terms = output, {"loss": F.cross_entropy(output, labels)}
        return {**terms, "accuracy": (logits.argmax(1) == labels).float().mean()}

    def schedule(self, step: int) -> None:
        rate = lr_at(self.config.recipe, step // self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_ratio"]

    def scores(self) -> dict[str, Any]:
        if self.test is None:
            return {}
        spec = _spec(self.train, self.config)
        classifier = NetworkClassifier(self.tested, self.config.plan, spec)
        return {"test_error": top1_error(classifier, self.test)}


def _error(
    classifier: NetworkClassifier, test: PictureSet | None, config: NetworkConfig
) -> float | None:
    if test is None:
        return None
    return top1_error(classifier, test, config.test_samples, seed=config.seed)


def _parts(terms: Any) -> dict[str, Tensor]:
    return {key: getattr(terms, key) for key in ("cross_entropy", "kl", "vq", "commit")}


def _optimizer(network: nn.Module, recipe: AIBRecipe) -> torch.optim.Optimizer:
    groups = parameter_groups(network, recipe)
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, betas=recipe.betas)
    return torch.optim.SGD(groups, momentum=recipe.momentum)


def _spec(train: PictureSet, config: NetworkConfig) -> ModelSpec:
    width = f" x{config.width:g}" if config.width != 1 else ""
    return replace(train.spec, name=f"{config.network}-{config.variant}{width}, {train.name}")


def _check(train: PictureSet, test: PictureSet | None) -> None:
    if test is not None and tuple(test.labels) != tuple(train.labels):
        raise InputError(f"{test.name} and {train.name} have different classes")
    if test is not None and test.spec.input_size != train.spec.input_size:
        raise InputError(f"pictures of {test.name} and {train.name} have different sizes")
