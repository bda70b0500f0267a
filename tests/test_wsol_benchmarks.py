"""The benchmarks of localisation measure what they say, on tiny settings."""

import importlib.util
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
    options += ("--model", "demo", "--model", "demo")
    text = run("infocam.py", *options)
    rows = json.loads(file.read_text())["demo"]
    assert len(rows) == 6
    assert all(row["images"] == 2 for row in rows.values())
    assert "Top-5" in text
    lines = [line.split() for line in text.splitlines()[2:]]
    assert lines[:6] == lines[6:]
    assert len(lines) == 12
    top5 = rows["cam"]["protocols"]["maxboxacc"]["oracle"]["ious"][0]["top5_loc"]
    assert f"{top5:11.2f}" in text.splitlines()[2]
    assert run("infocam.py", *options) == text


def test_what_adl_is_tried_on_is_trained_in_part():
    import timm

    spec = importlib.util.spec_from_file_location("adl", ROOT / "benchmarks" / "adl.py")
    adl = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adl)
    model = timm.create_model("mobilenetv2_035", pretrained=False, num_classes=3)
    adl.freeze(model, 6)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"blocks", "conv_head", "bn2", "classifier"}
    assert not any(p.requires_grad for p in model.blocks[:6].parameters())
    assert adl.recipe(("blocks.6",), 1).adl == ("blocks.6",)
    assert (adl.recipe((), 2).adl, adl.recipe((), 2).epochs) == ((), 2)
