"""A trained network of the AIB paper as a classifier like any other, and the file that keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn

from attrib.bottleneck.aib_module import AIBNetwork, AIBOutput
from attrib.bottleneck.aib_variants import PlainNetwork, make_network
from attrib.bottleneck.weights_file import HEADER, read_header
from attrib.errors import AttribError, ModelError, WeightsError
from attrib.files import replacing, writing
from attrib.models.load import register_loader
from attrib.types import ModelSpec

__all__ = ["PREFIX", "NetworkClassifier", "NetworkPlan", "load_network"]

KIND = "aib-network"
PREFIX = "aib:"
"""Before the path of a network's file, where a model name is expected."""


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """What `make_network` is given for a network, apart from its weights.

    Args:
        network: See `make_network`, as all others.
        variant: Likewise.
        width: Likewise.
        latent: Likewise.
        anchors: Likewise.
    """

    network: str = "vgg32"
    variant: str = "aib"
    width: float = 1.0
    latent: int | None = None
    anchors: int | None = None

    def make(self, classes: int, seed: int = 0) -> AIBNetwork | PlainNetwork:
        """Build it for some number of classes."""
        return make_network(classes=classes, seed=seed, **asdict(self))


@final
class NetworkClassifier(nn.Module):
    """A network that makes logits without noise: of the mean attention and mean latent vector.

    Args:
        network: Of any variant.
        plan: By which it was made.
        spec: How to feed it.
    """

    def __init__(
        self, network: AIBNetwork | PlainNetwork, plan: NetworkPlan, spec: ModelSpec
    ) -> None:
        super().__init__()
        self.network, self.plan, self.attrib_spec = network, plan, spec

    def forward(self, images: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c"]:
        """Return logits."""
        if isinstance(self.network, PlainNetwork):
            return self.network(images)  # type: ignore[no-any-return]
        return self._still(self.network, images).logits

    @property
    def attends(self) -> bool:
        """Whether the network has an attention map."""
        return isinstance(self.network, AIBNetwork) and self.plan.variant != "dvib"

    def attention(
        self, images: Float[Tensor, "b _ h w"]
    ) -> tuple[Float[Tensor, "b u v"], Float[Tensor, "b c"]]:
        """Return the mean attention, rounded to anchors where there are any, and logits.

        Raises:
            ModelError: the network has none.
        """
        if isinstance(self.network, PlainNetwork) or not self.attends:
            raise ModelError(f"{self.attrib_spec.name} has no attention map")
        output = self._still(self.network, images)
        return output.attention.maps[0].squeeze(1), output.logits

    def _still(self, network: AIBNetwork, images: Tensor) -> AIBOutput:
        features = network.features(images)
        output: AIBOutput = network.aib(features, network.aib.still(features))
        return output

    def save(self, path: str | Path) -> None:
        """Write weights, plan and spec as safetensors, the same bytes each time.

        Raises:
            OutputError: the file cannot be written.
        """
        path = Path(path)
        tensors = {
            key: value.detach().cpu().clone().contiguous()
            for key, value in self.network.state_dict().items()
        }
        header = {"kind": KIND, "plan": asdict(self.plan), "spec": asdict(self.attrib_spec)}
        with writing(path.parent), replacing(path) as temporary:
            temporary.write_bytes(save(tensors, metadata={HEADER: json.dumps(header)}))


def load_network(path: str | Path) -> NetworkClassifier:
    """Read what `NetworkClassifier.save` wrote; also `attrib.load_model("aib:FILE")`.

    Args:
        path: The file.

    Returns:
        The network in evaluation mode, on the CPU.

    Raises:
        WeightsError: the file cannot be read, or is none of these.
    """
    header, tensors = read_header(path, KIND, "network with attention")
    try:
        spec = _spec(header["spec"])
        plan = NetworkPlan(**header["plan"])
        network = plan.make(len(spec.labels))
        network.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, AttribError) as error:
        raise WeightsError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
    return NetworkClassifier(network, plan, spec).eval()


def _spec(values: dict[str, Any]) -> ModelSpec:
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return ModelSpec(**{**values, **lists})


register_loader(PREFIX, load_network)
