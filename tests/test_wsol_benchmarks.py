"""The benchmarks of localisation measure what they say, on tiny settings."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(name, *options):
    command = [sys.executable, str(ROOT / "benchmarks" / name), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sweep_beside_the_loop(tmp_path):
    file = tmp_path / "speed.json"
    text = run("wsol.py", "--count", 3, "--size", 40, "--thresholds", 20, "--json", file)
    rows = json.loads(file.read_text())
    for contours in ("largest", "all"):
        assert f"{contours} " in text
        assert rows[contours]["pictures"] == 3
        assert rows[contours]["ratio"] > 0


def test_ablation(tmp_path):
    file = tmp_path / "rows.json"
    options = ("--dataset", "scenes", "--limit", 2, "--json", file)
    text = run("infocam.py", *options)
    rows = json.loads(file.read_text())
    assert len(rows) == 6
    assert all(row["images"] == 2 for row in rows.values())
    assert run("infocam.py", *options) == text
