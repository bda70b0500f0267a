"""Explain a model of your own: found by itself, or with its two parts named.

python examples/custom_model.py

The two are not trained, so what they look at means nothing.
"""

import argparse
from pathlib import Path

from torch import Tensor, nn

import attrib
from attrib.datasets import Scenes


class Backbone(nn.Module):
    """Average pooling and one linear layer: attrib finds both by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        )
        self.classify = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.body(x).mean((2, 3)))


class WithMlp(Backbone):
    """A head of two layers: its name is needed, and its maps are approximate."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Sequential(nn.Linear(32, 20), nn.GELU(), nn.Linear(20, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/custom_model"))
    arguments = parser.parse_args()

    spec = attrib.ModelSpec(input_size=(64, 64), fit="squash")
    picture = Scenes(length=1, size=(120, 90), seed=0)[0].image
    for classifier in (
        attrib.split(Backbone(), spec=spec),
        attrib.split(WithMlp(), features="body", head="classify", spec=spec),
    ):
        e = attrib.explain(classifier, picture)
        kind = type(classifier.model).__name__
        print(f"{kind:9} exact={classifier.exact}  box={e.box}  {classifier.note}")
        print(f"wrote {e.save(arguments.out / f'{kind}.png')}")


if __name__ == "__main__":
    main()
