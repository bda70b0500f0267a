"""Train the classifier that comes with attrib, on rendered scenes; minutes on two cores.

python examples/train_demo.py --steps 20 --scenes 200    # a dry run
python examples/train_demo.py --out attrib/models/demo   # the one that comes with attrib
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from attrib.datasets.scenes import CLASSES, Scenes
from attrib.models.demo_net import DemoNet

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
SIZE, BATCH = 96, 64
TEST_SEED_OFFSET = 1_000_000  # test scenes come from another seed than training scenes


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    started = time.perf_counter()
    images, labels = render(Scenes(length=args.scenes, size=SIZE, seed=args.seed))
    net = train(images, labels, steps=args.steps)
    test = Scenes(length=args.test_scenes, size=SIZE, seed=args.seed + TEST_SEED_OFFSET)
    accuracy = evaluate(net, *render(test))
    save(net, args.out, accuracy=accuracy, seed=args.seed)
    print(f"test accuracy {accuracy:.4f} on {len(test)} scenes")
    print(f"wrote {args.out} after {time.perf_counter() - started:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500, help=f"batches of {BATCH}")
    parser.add_argument("--scenes", type=int, default=10_000, help="training scenes to render")
    parser.add_argument("--test-scenes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the model")
    return parser.parse_args()


def render(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Images, uint8 [b, 3, H, W], and labels, int64 [b]."""
    images = torch.empty(len(scenes), 3, SIZE, SIZE, dtype=torch.uint8)
    labels = torch.empty(len(scenes), dtype=torch.long)
    for i in tqdm(range(len(scenes)), desc="rendering", mininterval=5):
        scene = scenes[i]
        images[i], labels[i] = scene.image, scene.label
    return images, labels


def train(images: Tensor, labels: Tensor, *, steps: int) -> DemoNet:
    net = DemoNet(classes=len(CLASSES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    progress = tqdm(range(steps), desc="training", mininterval=5)
    for step in progress:
        chosen = torch.randint(len(images), (BATCH,))
        logits = net(normalise(augment(images[chosen].float() / 255)))
        loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")
    return net.eval()


def augment(images: Tensor) -> Tensor:
    """Cut out a window, mirror it or not, and vary contrast and colours.

    Windows without a head teach the network to make do with legs and tails.
    """
    b = len(images)
    zoom = torch.empty(b).uniform_(0.5, 1)
    window = torch.zeros(b, 2, 3)
    window[:, 0, 0] = zoom * (1 - 2 * torch.randint(0, 2, (b,)))
    window[:, 1, 1] = zoom
    window[:, :, 2] = (1 - zoom)[:, None] * torch.empty(b, 2).uniform_(-1, 1)
    grid = nn.functional.affine_grid(window, list(images.shape), align_corners=False)
    images = nn.functional.grid_sample(images, grid, align_corners=False)
    contrast = 1 + 0.2 * torch.randn(b, 1, 1, 1)
    tint = 0.06 * torch.randn(b, 3, 1, 1)
    return ((images - 0.5) * contrast + 0.5 + tint).clamp(0, 1)


def normalise(images: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    images = (images - mean[:, None, None]) / std[:, None, None]
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def evaluate(net: DemoNet, images: Tensor, labels: Tensor) -> float:
    """Fraction of images whose highest logit is the right one."""
    batches = images.split(250)
    predicted = torch.cat([net(normalise(batch.float() / 255)).argmax(1) for batch in batches])
    return (predicted == labels).float().mean().item()


def save(net: DemoNet, folder: Path, *, accuracy: float, seed: int) -> None:
    config = {
        "classes": CLASSES,
        "input_size": [SIZE, SIZE],
        "mean": MEAN,
        "std": STD,
        "test_accuracy": round(accuracy, 4),
        "seed": seed,
        "command": "python examples/train_demo.py --out attrib/models/demo",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(state, folder / "model.safetensors")


if __name__ == "__main__":
    main()
