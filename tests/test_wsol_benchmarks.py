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


def test_many_methods_judged(tmp_path):
    file, work = tmp_path / "rows.json", tmp_path / "work"
    options = ("--dataset", "scenes", "--steps", 2, "--work", work, "--json", file)
    options += ("--methods", "cam;input-x-gradient;rollout")
    run("judge.py", *options, "--limit", 1)
    text = run("judge.py", *options, "--limit", 2)
    rows = json.loads(file.read_text())
    assert [row.get("pictures") for row in rows.values()] == [2, 2, None]
    assert "rollout" in text
    assert rows["rollout"]["error"] in text
    for method in ("cam", "input-x-gradient"):
        assert 0 < rows[method]["deletion"] < 1
        lines = (work / method / "journal" / "1-of-1.jsonl").read_text().splitlines()
        assert len(lines) == len(list((work / method / "maps").glob("*.npz"))) == 2
    assert run("judge.py", *options, "--limit", 2) == text
