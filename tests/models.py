"""Tiny classifiers, each awkward in its own way, and a record of everything a model carries."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attrib.types import ModelSpec

SPEC = ModelSpec(input_size=(32, 32), fit="squash")


def trunk(*, inplace: bool = False, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=bias),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=bias),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=inplace),
    )


class Pooled(nn.Module):
    """The plain case: trunk, average pooling, linear head."""

    def __init__(self, *, inplace: bool = False, bias: bool = True, classes: int = 5) -> None:
        super().__init__()
        self.features = trunk(inplace=inplace, bias=bias)
        self.fc = nn.Linear(12, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


class InPlace(Pooled):
    """Rewrites its input, its features after the tap, and its pooled vector in place."""

    def __init__(self) -> None:
        super().__init__(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2).sub_(0.1)
        maps = self.features(x)
        maps.relu_()
        return self.fc(maps.mean((2, 3)).add_(0))


class Frozen(Pooled):
    """No parameter wants a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Stubborn(Pooled):
    """`eval` and `train` are overridden and return nothing; batch norm is kept in training."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        self.training = mode

    def eval(self) -> None:  # type: ignore[override]
        self.training = False


class Random(Pooled):
    """Draws random numbers in the forward pass, also in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(3)
        return super().forward(x)


class Shared(Pooled):
    """One ReLU object is used at every place."""

    def __init__(self) -> None:
        super().__init__()
        relu = nn.ReLU()
        self.features[2] = relu
        self.features[5] = relu


class Guarded(Pooled):
    """Carries hooks of the user's own, of every kind, and its `eval` and `train` raise."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        for module in (self, self.features[0], self.features[3], self.fc):
            module.register_forward_pre_hook(self.count)
            module.register_forward_pre_hook(self.count, with_kwargs=True)
            module.register_forward_hook(self.count)
            module.register_forward_hook(self.count, with_kwargs=True, always_call=True)
        self.fc.register_full_backward_hook(self.count)
        self.fc.register_full_backward_pre_hook(self.count)

    def count(self, *_: object) -> None:
        self.seen += 1

    def train(self, mode: bool = True) -> "Guarded":
        raise RuntimeError("the mode of this model is fixed")


class Twice(Pooled):
    """One block is registered under two names, and runs twice."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
        self.first, self.second = block, block

    def forward(self, x: Tensor) -> Tensor:
        maps = self.second(self.first(self.features(x)))
        return self.fc(maps.mean((2, 3)))


@dataclass
class Answer:
    """What a model may return: an object with attributes, as hubs have them."""

    loss: Tensor | None
    logits: Tensor
    maps: Tensor


class Returning(Pooled):
    """Returns more than logits."""

    def forward(self, x: Tensor) -> object:
        maps = self.features(x)
        return self.packed(self.fc(maps.mean((2, 3))), maps)


class ReturningMapping(Returning):
    def packed(self, logits: Tensor, maps: Tensor) -> object:
        return {"maps": maps, "logits": logits}


class ReturningTuple(Returning):
    def packed(self, logits: Tensor, maps: Tensor) -> object:
        return maps, logits


class ReturningObject(Returning):
    def packed(self, logits: Tensor, maps: Tensor) -> object:
        return Answer(loss=None, logits=logits, maps=maps)


def squeezed(returned: dict[str, Tensor]) -> Tensor:
    return returned["logits"].flatten(1)


class ReturningMaps(Returning):
    def packed(self, logits: Tensor, maps: Tensor) -> object:
        return {"logits": logits[:, :, None, None]}


RETURNING = {
    "mapping": (ReturningMapping, "logits"),
    "tuple": (ReturningTuple, 1),
    "object": (ReturningObject, "logits"),
    "function": (ReturningMaps, squeezed),
}
"""Models that return more than logits, and where their logits are."""


class MlpHead(nn.Module):
    """A head that is not linear, with parts named by the user."""

    def __init__(self) -> None:
        super().__init__()
        self.body = trunk()
        self.top = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.body(x).mean((2, 3)))


class Flat(nn.Module):
    """A head that reads every cell through weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*trunk(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(12 * 16, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


AWKWARD = {
    "plain": Pooled,
    "bias-free": lambda: Pooled(bias=False),
    "in-place": InPlace,
    "frozen": Frozen,
    "stubborn": Stubborn,
    "random": Random,
    "shared-relu": Shared,
    "twice": Twice,
    "guarded": Guarded,
}


def make(name: str) -> nn.Module:
    """Build a model whose statistics and weights are not at their initial values."""
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = (AWKWARD | {kind: row[0] for kind, row in RETURNING.items()})[name]()
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        elif buffer_name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def images(count: int = 3, size: tuple[int, int] = (32, 32), seed: int = 0) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


class Everything:
    """What a model and the process carry, to be compared before and after."""

    def __init__(self, model: nn.Module) -> None:
        self.state = {k: v.clone() for k, v in model.state_dict().items()}
        tensors = [*model.parameters(), *model.buffers()]
        self.identity = [id(tensor) for tensor in tensors]
        self.writes = [tensor._version for tensor in tensors]
        self.flags = [p.requires_grad for p in model.parameters()]
        self.grads = [p.grad for p in model.parameters()]
        self.modes = [m.training for m in model.modules()]
        self.attributes = [sorted(vars(m)) for m in model.modules()]
        self.hooks = [
            (name, list(table.items()))
            for module in model.modules()
            for name, table in vars(module).items()
            if "_hooks" in name and hasattr(table, "items")
        ]
        self.modules = [(name, id(m)) for name, m in model.named_modules(remove_duplicate=False)]
        self.rng = torch.get_rng_state()
        self.numpy_rng = str(np.random.get_state())
        self.process = {
            "gradients": torch.is_grad_enabled(),
            "inference mode": torch.is_inference_mode_enabled(),
            "type": torch.get_default_dtype(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "threads": torch.get_num_threads(),
            "determinism": torch.are_deterministic_algorithms_enabled(),
        }

    def assert_same(self, model: nn.Module) -> None:
        now = Everything(model)
        assert self.state.keys() == now.state.keys()
        for key, value in self.state.items():
            assert torch.equal(value, now.state[key]), key
        for what in (
            *("identity", "writes", "flags", "modes", "attributes", "hooks", "modules"),
            *("numpy_rng", "process"),
        ):
            assert getattr(self, what) == getattr(now, what), what
        assert all(a is b for a, b in zip(self.grads, now.grads, strict=True))
        assert torch.equal(self.rng, now.rng)
