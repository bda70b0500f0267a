"""`--shard`: shares of a job, given by hand or by torchrun."""

import os
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from attrib.cli import app
from attrib.cli.shard import Part, part_of
from attrib.errors import InputError
from tests.seed_jobs import COUNT, contents, render

MAIN = "from attrib.cli import main; main()"


@pytest.fixture
def launched(monkeypatch):
    """The third of four processes, the second on its machine."""
    for name, value in {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def gpus(patch, count):
    patch.setattr(torch.cuda, "device_count", lambda: count)


def test_by_hand(launched):
    gpus(launched, 8)
    assert part_of("2/3", "cuda") == Part(index=2, count=3, device="cuda")
    assert part_of("1/1", None) == Part(index=1, count=1, device=None)
    for wrong in ("2", "a/b", "1/", "-1/2", "automatic"):
        with pytest.raises(InputError, match=rf"--shard takes i/n .*, got '{wrong}'"):
            part_of(wrong, None)


@pytest.mark.parametrize(
    ("count", "given", "device"),
    [
        (0, None, None),
        (0, "cuda", "cuda"),  # which the model then refuses
        (2, None, "cuda:1"),
        (2, "cuda", "cuda:1"),
        (2, "cuda:0", "cuda:0"),
        (2, "cpu", "cpu"),
    ],
)
def test_a_process_of_torchrun_has_a_gpu_of_its_own(launched, count, given, device):
    gpus(launched, count)
    assert part_of("auto", given) == Part(index=3, count=4, device=device, launched=True)


def test_more_processes_than_gpus(launched):
    gpus(launched, 1)
    with pytest.raises(InputError, match=r"process 2 on a machine of 1 GPUs; .*--device cpu"):
        part_of("auto", None)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_auto_without_torchrun(launched, name):
    launched.delenv(name)
    with pytest.raises(InputError, match=rf"which torchrun sets; {name} is ''. Start it as"):
        part_of("auto", None)


def test_torchrun_makes_what_one_process_makes(tmp_path):
    """Also when a picture of one process fails before the other process is through."""
    root = render(tmp_path)
    whole = (root / "p2.png").read_bytes()
    (root / "p2.png").write_bytes(whole[: len(whole) // 2])
    command = ["seeds", "--dataset", "folder", "--root", root, "--labels", root / "labels.csv",
               "--model", "demo", "--scales", "1,0.5", "--format", "label,npz,boxes"]  # fmt: skip
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                "--no-python", sys.executable, "-c", MAIN]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launcher, *map(str, command), "--out", str(tmp_path / "two"), "--shard", "auto"],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    assert "shard 1/2" in done.stderr
    assert "failed: p2: " in done.stdout
    assert done.stdout.count(f"made {COUNT // 2}, kept 0, failed 0") == 1
    for out in ("one", "two"):
        (root / "p2.png").write_bytes(whole)
        again = [*map(str, command), "--out", str(tmp_path / out), "--device", "cpu"]
        assert CliRunner().invoke(app, again).exit_code == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
