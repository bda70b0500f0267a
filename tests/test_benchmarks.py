"""The benchmark of maps measures what it says, on a tiny setting; how fast is not tested."""

import io
import json
import math
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from benchmarks import maps
from benchmarks.maps import METHODS, PEERS, TARGETS, Agreement, Candidate, Report, Row, Setting

TINY = Setting(model="torchvision/resnet18", batch=2, size=64, rounds=1)
BY_NAME = {peer.name: peer for peer in PEERS}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads only wait for each other on so small a model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def printed_and_written(tmp_path_factory):
    file = tmp_path_factory.mktemp("maps") / "maps.json"
    options = f"--model {TINY.model} --batch 2 --size 64 --rounds 1 --growth".split()
    with redirect_stdout(io.StringIO()) as printed:
        maps.main([*options, "--json", str(file)])
    return printed.getvalue(), json.loads(file.read_text())


@pytest.fixture(scope="module")
def work():
    return maps.prepare(TINY)


def named(rows):
    return [(row["library"], row["method"]) for row in rows]


def test_attrib_and_the_forward_pass_are_in_the_table(printed_and_written):
    text, written = printed_and_written
    rows = named(written["methods"])
    assert rows[:2] == [("torch", "forward"), ("torch", "forward again")]
    assert rows[2 : 2 + len(METHODS)] == [("attrib", method) for method in METHODS]
    assert f"{TINY.model}, 2 images of 64 x 64" in text


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: p.name)
def test_every_installed_peer_is_in_the_table_and_makes_the_same_maps(peer, printed_and_written):
    pytest.importorskip(peer.module)
    text, written = printed_and_written
    assert {m for p, m in named(written["methods"]) if p == peer.name} == set(peer.classes)
    assert peer.name in text
    agreed = {a["method"]: a for a in written["agreement"] if a["peer"] == peer.name}
    assert agreed.keys() == peer.classes.keys()
    for method in agreed.keys() - {"gradcam++"}:
        assert agreed[method]["correlation"] > 0.999
        assert agreed[method]["difference"] < 1e-4
        assert not agreed[method]["known"]


def test_figures_are_positive_and_in_order(printed_and_written):
    _, written = printed_and_written
    for row in (*written["methods"], *written["growth"]):
        figures = [row[name] for name in ("milliseconds", "ratio", "low", "high")]
        assert all(math.isfinite(x) and x > 0 for x in figures)
        assert row["low"] <= row["ratio"] <= row["high"]
    assert written["methods"][0]["ratio"] == 1
    assert written["speedup"] > 0


def test_growth_has_a_row_for_each_number_of_targets(printed_and_written):
    text, written = printed_and_written
    names = [f"infocam+, {n} per image" for n in TARGETS]
    assert [m for p, m in named(written["growth"]) if p == "attrib"] == names
    assert all(name in text for name in names)


def test_growth_asks_for_so_many_targets(work):
    for n, candidate in zip(TARGETS, maps.growth_candidates(work), strict=True):
        assert len(maps.maps_of(candidate)) == n * TINY.batch


def test_json_has_the_documented_fields(printed_and_written):
    _, written = printed_and_written
    parts = [
        (Report, written),
        (Setting, written["setting"]),
        (Row, written["methods"][0]),
        (Agreement, written["agreement"][0]),
    ]
    for cls, part in parts:
        assert list(part) == [field.name for field in fields(cls)]
        assert all(f"{name}: " in cls.__doc__ for name in part)
    assert {"device", "threads", "torch", "attrib"} <= set(written["machine"])
    assert written["imports"] is None


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: p.name)
def test_missing_peer_is_said_to_be_missing(peer, monkeypatch):
    monkeypatch.setitem(sys.modules, peer.module, None)
    found, (missing,) = maps.installed([peer])
    assert found == []
    assert missing.peer == peer.name
    assert missing.methods == tuple(peer.classes)
    assert peer.module in missing.reason
    for line, method in zip(maps.missing_lines([missing]), peer.classes, strict=True):
        assert line.split()[:3] == [peer.name, method, "missing"]
        assert "pip install 'attrib[bench]'" in line


def test_without_peers_the_rest_is_measured(monkeypatch):
    for peer in PEERS:
        monkeypatch.setitem(sys.modules, peer.module, None)
    report = maps.run(TINY)
    assert {row.library for row in report.methods} == {"torch", "attrib"}
    assert [m.peer for m in report.missing] == list(BY_NAME)
    assert report.agreement == ()
    text = maps.text(report)
    assert text.count("not checked") == len(PEERS)
    assert text.count(maps.INSTALL) == sum(len(peer.classes) for peer in PEERS)


def test_nothing_is_timed_when_maps_differ(monkeypatch):
    peer = BY_NAME["Captum"]
    pytest.importorskip(peer.module)
    mirrored = replace(peer, maps=lambda found: peer.maps(found).flip(2))
    monkeypatch.setattr(maps, "PEERS", (mirrored,))
    monkeypatch.setattr(maps, "measure", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(RuntimeError, match=r"not the same maps[^:]*:\n  Captum +gradcam .*DIFFER"):
        maps.run(TINY)


def test_maps_are_compared_after_the_scaling_that_a_peer_does():
    own = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = replace(PEERS[0], scaled=True)
    raw = replace(PEERS[0], scaled=False)
    assert maps.compare(own, 3 * own - 1, peer=scaled, method="cam").holds
    assert not maps.compare(own, 3 * own, peer=raw, method="cam").holds
    assert not maps.compare(own, own.flip(1), peer=scaled, method="cam").holds
    large = nn.functional.interpolate(own[:, None], (8, 8), mode="bilinear")[:, 0]
    assert maps.compare(own, large, peer=scaled, method="cam").holds


def test_maps_that_are_constant_do_not_pass_for_the_same(work):
    flat = torch.zeros(2, 4, 4, dtype=torch.float64)
    assert not maps.compare(flat, flat, peer=PEERS[0], method="cam").holds


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: p.name)
def test_candidates_leave_the_model_to_the_next_one(peer, work):
    pytest.importorskip(peer.module)
    for candidate in maps.peer_candidates(work, peer):
        maps.seconds(candidate, TINY.device)
        assert not any(m._forward_hooks or m._backward_hooks for m in work.model.modules())
        assert all(p.grad is None and p.requires_grad for p in work.model.parameters())
        assert not work.images.requires_grad


def test_candidates_take_turns():
    calls: list[str] = []

    def fake(name):
        def ready():
            return nullcontext(lambda: calls.append(name))

        return Candidate(library="x", method=name, gives="", ready=ready, maps=torch.as_tensor)

    rows = maps.measure([fake("a"), fake("b"), fake("c")], rounds=3, device="cpu")
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert [r.method for r in rows] == ["a", "b", "c"]


def test_ratios_are_of_the_same_round():
    candidate = Candidate(
        library="x", method="y", gives="", ready=nullcontext, maps=torch.as_tensor
    )
    row = maps.row(candidate, [2.0, 30.0, 8.0], [1.0, 10.0, 2.0])
    assert (row.milliseconds, row.ratio, row.low, row.high) == (8000, 3, 2, 4)


def test_busy_machine_is_named():
    report = Report(
        setting=TINY,
        machine={"threads": 2},
        speedup=0.25,
        agreement=(),
        methods=(),
        missing=(),
    )
    assert "2 threads take 4.0 times as long as one" in maps.text(report)
    assert "BUSY" not in maps.text(replace(report, speedup=1.9))
    assert "BUSY" not in maps.text(replace(report, speedup=None))
    assert "BUSY" not in maps.text(replace(report, speedup=0.99, machine={"threads": 1}))


def test_noisy_table_is_named():
    quiet = Row(
        library="torch",
        method=maps.CONTROL,
        milliseconds=1,
        ratio=1,
        low=0.95,
        high=1.05,
        gives="",
    )
    assert maps.noisy([quiet]) == []
    assert maps.noisy([]) == []
    assert "up to 55%" in maps.noisy([replace(quiet, low=0.45)])[0]
    assert "up to 40%" in maps.noisy([replace(quiet, high=1.4)])[0]
    assert maps.noisy([replace(quiet, method="cam", high=3)]) == []


def test_threads_are_as_before_once_their_gain_is_known(work):
    threads = torch.get_num_threads()
    assert maps.speedup(maps.forward_candidates(work)[0]) > 0
    assert torch.get_num_threads() == threads


def test_imports_are_timed_in_processes_of_their_own(monkeypatch):
    assert 0 < maps.import_seconds("json") < 60
    given = {"torch": iter([9.0, 1.0, 2.0, 3.0]), "attrib": iter([9.0, 4.0, 5.0, 9.0])}
    monkeypatch.setattr(maps, "import_seconds", lambda module: next(given[module]))
    found = maps.measure_imports(repeats=3)
    assert (found.torch, found.attrib, found.difference) == (2, 5, 3)


def test_model_without_a_known_feature_map_says_what_to_name():
    with pytest.raises(ValueError, match=r"AlexNet has no layer4; .*--layer.*features, avgpool"):
        maps.last_block(maps.build("torchvision/alexnet"))


def test_timm_models_are_built_by_name():
    pytest.importorskip("timm")
    model = maps.build("test_resnet")
    assert isinstance(model.get_submodule(maps.last_block(model)), nn.Module)
