"""On what it was measured, and whether something else was running there."""

from __future__ import annotations

import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ["busy", "commit", "facts", "speedup"]

PACKAGES = ("attrib", "torch", "torchvision", "timm", "grad-cam", "torchcam", "captum", "kornia")
ROOT = Path(__file__).parents[1]
MEASURED = ("attrib", "benchmarks", ":!benchmarks/results")
"""What has to be as committed for the commit to say what was measured."""
GAIN = 1.7
"""Several threads are that many times as fast as one, at least, where nothing else runs."""


def facts(device: str = "cpu") -> dict[str, str | int]:
    """Name the processor or GPU, its threads, and the versions of the libraries."""
    found: dict[str, str | int] = {"device": _device(device), "threads": torch.get_num_threads()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return {**found, "python": platform.python_version()}


def commit() -> str:
    """Name the commit that is measured, and say so where files differ from it."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--", *MEASURED)
    except (OSError, subprocess.CalledProcessError):
        return "unknown commit"
    return f"{head} with changes" if changed else head


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _device(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpus.read_text()) if cpus.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def speedup() -> float:
    """Tell what threads gain on a convolution, fastest of five each."""
    threads = torch.get_num_threads()
    together = _fastest()
    torch.set_num_threads(1)
    try:
        return _fastest() / together
    finally:
        torch.set_num_threads(threads)


def _fastest() -> float:
    images, weight = torch.ones(8, 64, 56, 56), torch.ones(64, 64, 3, 3)
    times = []
    with torch.no_grad():
        for _ in range(6):
            started = time.perf_counter()
            torch.conv2d(images, weight, padding=1)
            times.append(time.perf_counter() - started)
    return min(times[1:])


def busy(threads: int, gain: float) -> tuple[str, ...]:
    """Say so if other processes hold the cores, given what `speedup` says."""
    if threads == 1 or gain >= GAIN:
        return ()
    return (
        f"BUSY: {threads} threads are {gain:.2f} times as fast as one, less than {GAIN}, as other "
        "processes hold the cores; the figures are in part waiting times.",
    )
