"""A small data set for jobs, and what a job left."""

import io
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from attrib.datasets import Folder, Scenes
from attrib.datasets.scenes import CLASSES
from attrib.seeds import SeedOptions

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


JOB = """
import sys, attrib
from pathlib import Path
from attrib.seeds import SeedOptions, make_seeds
from tests.seed_jobs import folder
root, out = map(Path, sys.argv[1:])
make_seeds(attrib.Explainer("demo", "cam"), folder(root), out, {options!r}, pack={pack})
"""


def kill_job(
    root: Path, out: Path, options: SeedOptions, lines: int, pack: int | None = None
) -> int:
    """Run a job in a process of its own, and end it by SIGKILL when its journal has so many lines.

    Returns how many pictures are then done.
    """
    journal = out / "journal" / "1-of-1.jsonl"
    command = [sys.executable, "-c", JOB.format(options=options, pack=pack), str(root), str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
                process.kill()
            time.sleep(0.001)
    return sum(b'"done"' in line for line in journal.read_bytes().split(b"\n")[:-1])
