"""The benchmarks of RIB and of seeds measure what they say, on tiny settings."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attrib.errors import InputError
from attrib.metrics.segmentation import SeedSweep

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
    assert list(rows) == ["forward", "literal", "attrib", "attrib, expected others"]
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
    row = benchmark["measure"]("demo", "cam", (1.0,), data, range(0, 8, 4), tmp_path / "work")
    assert row["pictures"] == 2
    assert 0 < row["miou"] < 100
    assert 0 < row["pamr_miou"] < 100
    assert [path.name for path in sorted((tmp_path / "work").iterdir())] == ["0.npz", "4.npz"]
    again = benchmark["measure"](
        "no such model", "cam", None, data, range(0, 8, 4), tmp_path / "work"
    )
    same = ("pictures", "miou", "at", "seconds", "pamr_miou", "pamr_at", "pamr_seconds")
    assert [again[key] for key in same] == [row[key] for key in same]
    path = tmp_path / "rows.json"
    for _ in range(2):
        benchmark["record"](path, "cam", row)
    assert json.loads(path.read_text()) == {"cam, 2 pictures": json.loads(json.dumps(row))}


def test_counts_of_two_sweeps_add_up():
    first, second, both = (SeedSweep(2, (0.2, 0.6)) for _ in range(3))
    for sweep in (first, second):
        maps, truth = torch.rand(2, 4, 4), torch.randint(0, 3, (4, 4))
        for counting in (sweep, both):
            counting.update(maps, torch.tensor([0, 1]), truth)
    first.add(second.counts)
    assert torch.equal(first.counts, both.counts)
    assert first.pictures == both.pictures == 2
    with pytest.raises(InputError, match="counts are"):
        first.add(torch.zeros(2, 2, 2, dtype=torch.long))
