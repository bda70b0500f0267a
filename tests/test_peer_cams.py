"""The benchmark of further methods of peers compares what it says; no peer is run."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[1] / "benchmarks" / "peer_cams.py"


@pytest.fixture(scope="module")
def peer_cams():
    spec = importlib.util.spec_from_file_location("peer_cams", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["peer_cams"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["peer_cams"]


def test_maps_are_compared_after_scaling_and_enlarging(peer_cams):
    own = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
    assert peer_cams.likeness(own, 3 * own + 1) == pytest.approx((1, 0), abs=1e-6)
    large = torch.nn.functional.interpolate(own[:, None], (20, 20), mode="bilinear")[:, 0]
    assert peer_cams.likeness(own, large) == pytest.approx((1, 0), abs=1e-6)
    correlation, difference = peer_cams.likeness(own, -own)
    assert correlation < 0
    assert difference == pytest.approx(1)


def test_ours_done_as_a_peer_does_is_another_map(peer_cams):
    interpolate = torch.nn.functional.interpolate
    work = peer_cams.prepare("squeezenet1_1", "features", 1, 48)
    eigen = peer_cams.own_maps(work, "eigencam(layer='features')")
    assert not torch.equal(peer_cams.centred(work), eigen)
    score = peer_cams.own_maps(work, "scorecam(layer='features')")
    assert not torch.equal(peer_cams.aligned(work), score)
    assert torch.nn.functional.interpolate is interpolate


def test_a_peer_that_is_missing_is_named(peer_cams, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peer_cams, "module_of", lambda peer: f"no_{peer}")
    file = tmp_path / "x.json"
    monkeypatch.setattr(sys, "argv", ["peer_cams.py", "--size", "64", "--json", str(file)])
    threads = torch.get_num_threads()
    peer_cams.main()
    torch.set_num_threads(threads)
    assert "pip install grad-cam" in capsys.readouterr().out
    assert json.loads(file.read_text())["rows"] == []
