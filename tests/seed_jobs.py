"""A small data set for jobs, and what a job left."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from attrib.datasets import Folder, Scenes
from attrib.datasets.scenes import CLASSES

COUNT = 6


def render(root: Path, count: int = COUNT) -> Path:
    """Scenes as a folder of pictures of odd sizes, with labels and masks; the last has no class."""
    (root / "masks").mkdir(parents=True)
    rows = ["path,labels"]
    for i in range(count):
        scene = Scenes(length=count, size=56 + 8 * (i % COUNT), seed=3)[i]
        pixels = scene.image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(root / f"p{i}.png")
        mask = scene.mask.numpy().astype(np.uint8) * (scene.label + 1)
        Image.fromarray(mask if i < count - 1 else mask * 0).save(root / "masks" / f"p{i}.png")
        rows.append(f"p{i}.png,{CLASSES[scene.label] if i < count - 1 else ''}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def folder(root: Path) -> Folder:
    return Folder(root, root / "labels.csv", classes=CLASSES, masks=root / "masks")


def contents(out: Path) -> dict[str, bytes]:
    """Every file but the journals, which are logs."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and "journal" not in path.parts
    }


def tar(path: Path, files: dict[str, bytes]) -> Path:
    """Write files as a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path
