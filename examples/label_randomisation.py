"""Does a map know what the labels were? The same network, trained on true and on shuffled labels.

Adebayo et al., Sanity Checks for Saliency Maps, section 4: a network learns by heart labels that
have nothing to do with its pictures. A map that looks the same for it and for one that has learnt
the true labels shows the picture, not what was learnt. Both start from the same weights and see the
same pictures in the same order; the true labels are explained in both.

python examples/label_randomisation.py
python examples/label_randomisation.py --scenes 1000 --size 96 --steps 2000    # many minutes
"""

import argparse

import torch
from torch import nn

import attrib
from attrib.datasets.scenes import CLASSES, Scenes
from attrib.localize import normalize
from attrib.methods import resolve
from attrib.metrics import at_input
from attrib.metrics.similarity import spearman, ssim
from attrib.models.demo_net import DemoNet
from attrib.types import Targets

METHODS = ["cam", "infocam", "infocam+", "gradcam", "gradcam++", "layercam"]
BATCH, SHOWN = 32, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    scenes = [
        Scenes(length=args.scenes, size=args.size, seed=args.seed)[i] for i in range(args.scenes)
    ]
    images = torch.stack([scene.image for scene in scenes]).float() / 64 - 2
    labels = torch.tensor([scene.label for scene in scenes])
    generator = torch.Generator().manual_seed(args.seed)
    shuffled = labels[torch.randperm(len(labels), generator=generator)]
    nets = {}
    for name, taught in (("true", labels), ("shuffled", shuffled)):
        nets[name] = train(images, taught, args.steps, args.seed)
        right = (nets[name](images).argmax(1) == taught).float().mean()
        print(f"{name:>8} labels: {right:.1%} of {len(labels)} learnt")
    print(f"\n{'':>10}{'SSIM':>10}{'Spearman':>10}   1 if the labels make no difference")
    for method in METHODS:
        a, b = (maps_of(net, method, images[:SHOWN], labels[:SHOWN]) for net in nets.values())
        likeness = ssim(normalize(a)[0], normalize(b)[0]).mean(), spearman(a, b).nanmean()
        print(f"{method:>10}" + "".join(f"{value:10.3f}" for value in likeness))


def train(images, labels, steps: int, seed: int) -> DemoNet:
    torch.manual_seed(seed)
    net = DemoNet(classes=len(CLASSES)).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH,))
        loss = nn.functional.cross_entropy(net(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


def maps_of(net: DemoNet, method: str, images, labels) -> torch.Tensor:
    """Explain each picture's true class; maps at the pictures' size."""
    spec = attrib.ModelSpec(input_size=tuple(images.shape[2:]), labels=CLASSES)
    classifier = attrib.split(net, spec=spec)
    pairs = Targets(image=torch.arange(len(labels)), label=labels)
    return at_input(resolve(method).attribute(classifier, images.clone(), pairs).maps, images)


if __name__ == "__main__":
    main()
