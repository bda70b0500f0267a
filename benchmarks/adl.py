"""Two classifiers for infoCAM's ablation: trained on alike, once with ADL and once without.

`python benchmarks/adl.py --root CUB_200_2011 --model local-dir:FOLDER --out out` goes on training a
MobileNetV2 of timm for these classes, its last blocks alone, and writes `out/adl` and `out/plain`;
`python benchmarks/infocam.py --root CUB_200_2011 --model local-dir:out/plain --model
local-dir:out/adl` then makes the table of both. What is stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from attrib.datasets import LabelledCUB
from attrib.fit import FitConfig, fit_classifier, timm_classifier
from attrib.models import adl_places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--frozen", type=int, default=6, help="how many of the blocks stay")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train = LabelledCUB(options.root, "train")
    for kind in ("adl", "plain"):
        model, model_args = timm_classifier(options.model, len(train.labels))
        freeze(model, options.frozen)
        config = recipe(adl_places(model) if kind == "adl" else (), options.epochs)
        report = fit_classifier(
            model, train, out=options.out / kind, config=config, model_args=model_args
        )
        losses = ", ".join(f"{epoch['loss']:.4f}" for epoch in report["history"])
        print(f"{kind:6} loss {losses}", flush=True)


def freeze(model: Any, blocks: int) -> None:
    """Let the stem and the first blocks want no gradient, so that they are not trained."""
    for part in (model.conv_stem, model.bn1, *model.blocks[:blocks]):
        part.requires_grad_(False)


def recipe(places: tuple[str, ...], epochs: int) -> FitConfig:
    return FitConfig(
        epochs=epochs,
        lr=0.005,
        head_factor=2.0,
        momentum=0.9,
        loss="cross-entropy",
        crop=224,
        long_side=(224, 256),
        adl=places,
        adl_gamma=0.9,
    )


if __name__ == "__main__":
    main()
