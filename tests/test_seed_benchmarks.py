"""The benchmarks of RIB and of seeds measure what they say, on tiny settings."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
RIB = ("--model", "resnet10t", "--size", "48", "--crop", "32", "--steps", "2", "--others", "3",
       "--rounds", "1", "--threads", "1", "--device", "cpu")  # fmt: skip


def test_rib_beside_the_published_loop(tmp_path):
    """The benchmark itself stops when the two loops do not compute the same."""
    file = tmp_path / "rib.json"
    command = [sys.executable, ROOT / "benchmarks" / "rib.py", *RIB, "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "largest difference of the summed maps" in done.stdout
    rows = json.loads(file.read_text())["rows"]
    assert list(rows) == ["literal", "attrib", "attrib, expected others"]
    assert rows["literal"]["speedup"] == 1
    assert all(row["seconds"] > 0 and row["peak_mib"] > 0 for row in rows.values())


def test_two_loops_that_differ_are_not_compared():
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "rib.py"))
    maps = [torch.rand(2, 3, 3)]
    benchmark["agree"](maps, [maps[0] + 1e-5])
    with pytest.raises(SystemExit, match="do not compute the same"):
        benchmark["agree"](maps, [maps[0] + 0.1])


def test_table_of_seeds(tmp_path):
    examples = runpy.run_path(str(ROOT / "examples" / "seeds.py"))
    examples["render"](tmp_path / "data", 8)
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "seeds.py"))
    data = benchmark["labelled_dataset"](
        "folder",
        tmp_path / "data",
        labels=tmp_path / "data" / "labels.csv",
        masks=tmp_path / "data" / "masks",
        classes=benchmark["attrib"].load_model("demo").attrib_spec.labels,
    )
    row = benchmark["measure"]("demo", "cam", (1.0,), data, range(0, 8, 4))
    assert row["pictures"] == 2
    assert 0 < row["miou"] < 100
    assert 0 < row["pamr_miou"] < 100
    path = tmp_path / "rows.json"
    assert benchmark["recorded"](path, "cam", 2) is None
    benchmark["record"](path, "cam", row)
    assert benchmark["recorded"](path, "cam", 2) == json.loads(json.dumps(row))
    assert benchmark["recorded"](path, "cam", 3) is None
