"""The benchmarks measure what they say, on tiny settings; how fast is not tested."""

import json
import math
import re
import sys
from contextlib import nullcontext
from dataclasses import asdict, fields, replace

import pytest
import torch
from torch import nn

from benchmarks import harness, machine, models, page, peers, report, run
from benchmarks.harness import Budget, Candidate, Effort, Row, Table
from benchmarks.subjects import (
    SUBJECTS,
    captum,
    explain,
    growth,
    localisation,
    maps,
    memory,
    start,
    wsol,
)
from benchmarks.subjects import rib as rib_subject
from benchmarks.subjects import seeds as seeds_subject

QUICK = Effort(factor=0.0)
"""One round each."""
SMALL = "torchvision/resnet18"
TINY = maps.Setting(model=SMALL, batch=1, size=64, budget=Budget(seconds=0))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads only wait for each other on so small a model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def work():
    return models.prepare(SMALL, 2, 64)


def named(table):
    return [(row.library, row.what) for row in table.rows]


def fake(library, what, *, limit=None, calls=None):
    def ready():
        return nullcontext(lambda: None if calls is None else calls.append(what))

    return Candidate(library=library, what=what, ready=ready, limit=limit)


# How it is measured


def test_candidates_take_turns():
    calls: list[str] = []
    given = [fake("x", name, calls=calls) for name in "abc"]
    table = harness.measure("t", given, Budget(seconds=60, most=3), Effort())
    rounds = ["".join(calls[i : i + 4]) for i in range(0, 16, 4)]
    assert rounds[0] == "aabc"
    assert [sorted(own) for own in rounds] == [list("aabc")] * 4
    assert len(set(rounds[1:])) == 3
    assert [row.what for row in table.rows] == ["a", "a again", "b", "c"]


@pytest.mark.parametrize(
    ("budget", "factor", "rounds"),
    [
        (Budget(seconds=0, least=2), 1, 2),
        (Budget(seconds=60, least=2, most=4), 1, 4),
        (Budget(seconds=0, least=3), 0.1, 1),
        (Budget(seconds=0, least=3), 9, 3),
    ],
)
def test_rounds_are_as_many_as_there_is_time_for(budget, factor, rounds):
    table = harness.measure("t", [fake("x", "a")], budget, Effort(factor=factor))
    assert all(len(row.values) == rounds for row in table.rows)


def test_time_is_what_passes_or_what_the_processor_worked():
    def ready():
        import time

        return nullcontext(lambda: time.sleep(0.02))

    candidate = Candidate(library="x", what="a", ready=ready, per=2)
    by = {
        clock: harness.measure("t", [candidate], Budget(seconds=0), effort).rows[0]
        for clock in ("wall", "processor")
        for effort in [Effort(clock=clock)]
    }
    assert by["wall"].value >= 10  # milliseconds per picture of two
    assert by["processor"].value < 5


def test_processes_that_are_started_work_too():
    code = "for i in range(10**6): pass"
    candidate = harness.call("x", "a", lambda: start._run(code))
    assert harness.seconds(candidate, Effort(clock="processor")) > 0.01


def test_ratios_are_of_the_same_round():
    first, other = fake("torch", "f"), fake("attrib", "cam", limit=2.0)
    rows = harness.rows_of([first, other], [[1.0, 10.0, 2.0], [2.0, 30.0, 8.0]])
    assert (rows[1].value, rows[1].ratio, rows[1].low, rows[1].high) == (8, 3, 2, 4)
    assert rows[1].verdict == "missed by 50.0%, met in 1 of 3 rounds"


def test_of_ten_rounds_the_extremes_are_left_out():
    values = [float(x) for x in (100, 9, 8, 7, 6, 5, 4, 3, 2, 0.1)]
    rows = harness.rows_of([fake("torch", "f"), fake("attrib", "cam")], [[1.0] * 10, values])
    assert (rows[1].low, rows[1].high) == (2, 9)


@pytest.mark.parametrize(
    ("ratio", "limit", "verdict"),
    [(1.05, 1.05, "met"), (1.26, 1.05, "missed by 20.0%, met in 0 of 1 rounds"), (9.0, None, "")],
)
def test_targets_are_judged(ratio, limit, verdict):
    given = [fake("torch", "f"), fake("attrib", "cam", limit=limit)]
    assert harness.rows_of(given, [[1.0], [ratio]])[1].verdict == verdict


def test_attrib_is_compared_with_the_fastest_that_does_the_same():
    given = [fake("a", "f"), fake("attrib", "cam"), fake("a", "cam"), fake("b", "cam")]
    rows = harness.rows_of(given, [[1.0, 1.0], [3.0, 3.0], [4.0, 4.0], [2.0, 2.0]])
    assert (rows[1].peer, rows[1].beside, rows[1].slower) == ("b", 1.5, True)
    assert all(not row.peer for row in (*rows[:1], *rows[2:]))
    rows = harness.rows_of(given, [[1.0, 1.0], [3.0, 1.9], [4.0, 4.0], [2.0, 2.0]])
    assert rows[1].beside == pytest.approx(1.225)  # by the median
    assert not rows[1].slower  # not in every round


def test_noisy_table_is_named():
    quiet = harness.rows_of([fake("torch", "f"), fake("torch", "f again")], [[1.0], [1.05]])
    assert harness.noisy(quiet) == ()
    assert harness.noisy(()) == ()
    assert "up to 55%" in harness.noisy([replace(quiet[1], low=0.45)])[0]
    assert "up to 40%" in harness.noisy([replace(quiet[1], high=1.4)])[0]
    assert harness.noisy([replace(quiet[1], what="cam", high=3)]) == ()


def test_busy_machine_is_named():
    assert "2 threads are 1.60 times as fast as one" in machine.busy(2, 1.6)[0]
    assert machine.busy(2, 1.75) == machine.busy(1, 0.9) == ()


def test_threads_are_as_before_once_their_gain_is_known():
    threads = torch.get_num_threads()
    assert machine.speedup() > 0
    assert torch.get_num_threads() == threads


def test_the_machine_and_the_versions_are_told(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no-such-package"))
    found = machine.facts()
    assert {"device", "threads", "torch", "python"} <= set(found)
    assert found["no-such-package"] == "missing"


def test_the_commit_is_told_and_whether_files_differ_from_it(monkeypatch):
    said = {"rev-parse": "0123456789", "status": ""}
    monkeypatch.setattr(machine, "_git", lambda command, *_: said[command])
    assert machine.commit() == "0123456789"
    said["status"] = " M attrib/types.py"
    assert machine.commit() == "0123456789 with changes"


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.commit() == "unknown commit"


# Peers


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda p: p.name)
def test_every_installed_peer_makes_the_same_maps(peer, work):
    pytest.importorskip(peer.module)
    methods = peer.classes.keys() - {"scorecam"}  # hundreds of forward passes
    found = {a.method: a for a in peers.agreements(work, [peer], methods)}
    assert found.keys() == methods
    for method in found.keys() - {"gradcam++", "eigencam"}:
        assert found[method].same
        assert found[method].difference < 1e-4
    assert "makes the same maps: " in peers.told(list(found.values()))[0]


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda p: p.name)
def test_candidates_leave_the_model_to_the_next_one(peer, work):
    pytest.importorskip(peer.module)
    for candidate in peers.candidates(work, peer, peer.classes.keys() - {"scorecam"}).values():
        harness.seconds(candidate, QUICK)
        assert not any(m._forward_hooks or m._backward_hooks for m in work.model.modules())
        assert all(p.grad is None and p.requires_grad for p in work.model.parameters())
        assert not work.images.requires_grad


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda p: p.name)
def test_missing_peer_is_said_to_be_missing(peer, monkeypatch):
    monkeypatch.setitem(sys.modules, peer.module, None)
    found, (missing,) = peers.installed([peer])
    assert found == []
    assert peer.name in missing
    assert peer.module in missing
    assert "pip install 'attrib[bench]'" in missing


def test_nothing_is_timed_when_maps_differ(monkeypatch):
    peer = peers.PEERS[-1]
    mirrored = replace(peer, maps=lambda found: peer.maps(found).flip(2))
    monkeypatch.setattr(peers, "PEERS", (mirrored,))
    monkeypatch.setattr(maps, "measure", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(RuntimeError, match=r"not the same maps[^:]*:\nCaptum gradcam: .*DIFFER"):
        list(maps.tables(QUICK, [TINY]))


def test_maps_are_compared_after_the_scaling_that_a_peer_does():
    own = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scaled = replace(peers.PEERS[0], scaled=True)
    raw = replace(peers.PEERS[0], scaled=False)
    assert peers.compare(own, 3 * own - 1, peer=scaled, method="cam").holds
    assert not peers.compare(own, 3 * own, peer=raw, method="cam").holds
    assert not peers.compare(own, own.flip(1), peer=scaled, method="cam").holds
    large = nn.functional.interpolate(own[:, None], (8, 8), mode="bilinear")[:, 0]
    assert peers.compare(own, large, peer=scaled, method="cam").holds


def test_maps_that_are_constant_do_not_pass_for_the_same():
    flat = torch.zeros(2, 4, 4, dtype=torch.float64)
    assert not peers.compare(flat, flat, peer=peers.PEERS[0], method="cam").holds


def test_peers_that_cannot_read_tokens_are_not_asked_to():
    work = models.prepare("vit_small_patch16_224", 1)
    assert work.layer == work.classifier.gradient_layer
    assert peers.candidates(work, replace(peers.PEERS[-1], tokens=False), maps.FAMILY) == {}


# Subjects


def test_maps_are_beside_the_forward_pass(monkeypatch):
    monkeypatch.setattr(peers, "PEERS", ())
    (table,) = maps.tables(QUICK, [TINY])
    assert named(table)[:2] == [("torch", "forward"), ("torch", "forward again")]
    assert named(table)[2:] == [("attrib", method) for method in maps.FAMILY]
    assert all(row.limit == maps.LIMIT and row.verdict for row in table.rows[2:])
    for row in table.rows:
        assert 0 < row.low <= row.ratio <= row.high < math.inf


def test_a_table_is_made_of_every_model_and_batch():
    whole = [s for s in maps.SETTINGS if s.methods == maps.FAMILY]
    assert len({(s.model, s.batch) for s in whole}) == 8
    assert {s.model for s in maps.SETTINGS} <= models.LAYERS.keys()


def test_in_batches_the_fastest_peer_of_each_method_is_timed():
    theirs = {
        "pytorch-grad-cam": {m: fake("pytorch-grad-cam", m) for m in maps.FAMILY[3:]},
        "torchcam": {m: fake("torchcam", m) for m in ("cam", "gradcam", "gradcam++", "layercam")},
        "Captum": {"gradcam": fake("Captum", "gradcam")},
    }
    timed = [(c.library, c.what) for c in maps.theirs_in_batches(theirs)]
    assert {what for _, what in timed} == {"cam", *maps.FAMILY[3:]}
    assert ("pytorch-grad-cam", "gradcam") in timed
    assert ("pytorch-grad-cam", "layercam") not in timed
    alone = {"pytorch-grad-cam": theirs["pytorch-grad-cam"]}
    assert maps.theirs_in_batches(alone) == maps.theirs_whole(alone)


def test_methods_that_try_the_features_are_measured_too(monkeypatch):
    monkeypatch.setattr(peers, "PEERS", ())
    (table,) = maps.tables(QUICK, [replace(TINY, methods=maps.TRIALS, size=64)])
    assert named(table)[2:] == [("attrib", method) for method in maps.TRIALS]
    assert all(row.limit is None for row in table.rows)


def test_explaining_is_beside_predicting():
    (table,) = explain.tables(QUICK, [SMALL])
    assert table.rows[0].what == "predict"
    assert [row.limit for row in table.rows[3:]] == [explain.LIMIT] * len(explain.METHODS)


def test_localisation_is_beside_the_loops(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    boxes, labels = localisation.tables(QUICK, count=6, model=SMALL)
    assert {row.library for row in boxes.rows} == {"torch", "attrib", "OpenCV", "scikit-image"}
    assert [row.verdict for row in boxes.rows].count("") == 4
    assert {row.library for row in labels.rows} == {"torch", "attrib", "OpenCV"}
    (note,) = labels.notes
    assert note.startswith("kornia is missing")
    assert "pip install 'attrib[bench]'" in note


def test_kornia_labels_as_we_do_where_its_steps_suffice():
    pytest.importorskip("kornia")
    _, table = localisation.tables(QUICK, count=6, model=SMALL)
    (ours,) = (row for row in table.rows if row.library == "attrib")
    assert ours.peer == "kornia"
    assert table.notes[0] == "kornia: labels are wrong on 0 of the 6 masks."
    for length, same in ((101, 1), (102, 0)):
        line = torch.ones(1, 1, length, dtype=torch.bool)
        found, _ = localisation._with_kornia(line)
        labels = found["labels after 100 steps"]()
        assert localisation._alike(labels, line.long()) == same


def test_labels_are_the_same_but_for_their_names():
    labels = torch.tensor([[1, 1, 0, 2]])
    assert localisation._renamed(labels, torch.tensor([[7, 7, 0, 3]]))
    assert not localisation._renamed(labels, torch.tensor([[7, 3, 0, 2]]))  # split
    assert not localisation._renamed(labels, torch.tensor([[7, 7, 0, 7]]))  # joined
    assert not localisation._renamed(labels, torch.tensor([[0, 0, 1, 2]]))  # of the background


def test_labels_are_not_timed_where_they_differ(monkeypatch):
    monkeypatch.setattr(localisation, "label_components", lambda masks: masks.long())
    monkeypatch.setattr(localisation, "_boxes", lambda *_: None)
    monkeypatch.setattr(localisation, "measure", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(RuntimeError, match="label differently"):
        list(localisation.tables(QUICK, count=60, model=SMALL))


def test_localisation_is_not_timed_where_boxes_differ(monkeypatch):
    monkeypatch.setattr(localisation, "_with_skimage", lambda maps: torch.zeros(6, 4).long())
    with pytest.raises(RuntimeError, match="other boxes"):
        list(localisation.tables(QUICK, count=6, model=SMALL))


def test_the_sweep_is_beside_the_loop_and_the_forward_pass():
    *tables, _ = wsol.tables(QUICK, SMALL, count=2, size=32, steps=20, pictures=1)
    assert [table.title for table in tables] == ["contours: largest", "contours: all"]
    for table in tables:
        assert table.rows[0].what == f"forward, {SMALL}"
        assert table.rows[-1].peer == "loop"


def test_the_evaluation_is_beside_predicting():
    *_, table = wsol.tables(QUICK, SMALL, count=1, size=32, steps=100, pictures=2)
    assert table.title == f"evaluate_wsol, {SMALL}, 2 pictures"
    assert [row.what for row in table.rows][::2] == [
        "predict",
        "evaluate_wsol",
        "scoring the maps",
    ]


def test_seeds_are_beside_the_network():
    setting = seeds_subject.Setting(model="test_resnet", width=64, height=48)
    (table,) = seeds_subject.tables(QUICK, [setting])
    assert [row.what for row in table.rows][::2] == [
        "the network alone",
        "job",
        "reading it and making its views",
        "weights' hash",
    ]


def test_rib_is_beside_the_published_loop_and_its_operations():
    small = {"model": "resnet10t", "size": 48, "crop": 32, "steps": 2, "others": 3}
    (table,) = rib_subject.tables(QUICK, **small)
    assert table.rows[0].library == "torch"
    assert table.rows[3].peer == "loop"
    (note,) = table.notes
    forward, loop, ours, expected = map(int, re.findall(r"(\d+)(?:, at|;)", note))
    assert loop > ours > expected > forward > 0


def test_operations_are_counted_forward_and_backward():
    conv = nn.Conv2d(3, 5, 3, padding=1)
    image = torch.ones(2, 3, 8, 8, requires_grad=True)
    once = 2 * (2 * 8 * 8) * 5 * (3 * 3 * 3)  # a multiplication and an addition each
    assert models.operations(lambda: conv(image)) == once
    assert models.operations(lambda: conv(image).sum().backward()) == 3 * once


@pytest.mark.filterwarnings("ignore:Setting ")
def test_captum_is_called_by_hand_and_finds_the_same():
    tables = list(captum.tables(QUICK, SMALL, steps=2, samples=60, size=64))
    assert len(tables) == 16
    for table in tables:
        libraries = [row.library for row in table.rows]
        assert libraries == ["torch", "torch", "Captum", "attrib"]
        assert table.rows[-1].peer == "Captum"
        assert table.notes[0].startswith("Not" if table.title.startswith("deeplift") else "The")


def test_captum_is_not_timed_where_maps_differ():
    with pytest.raises(RuntimeError, match=r"cam differs from Captum's by 1.0e\+00"):
        captum._agree("cam", torch.ones(1, 2, 2), torch.zeros(1, 2, 2))


def test_memory_is_that_of_the_call(work):
    assert memory.added(work, "forward") < 100
    shown = memory._shown("pytorch-grad-cam:gradcam")
    assert (shown.library, shown.what, shown.limit) == ("pytorch-grad-cam", "gradcam", None)
    assert memory._shown("cam").limit == memory.LIMIT
    assert memory._call(work, "cam and localize")().heatmaps


def test_without_proc_there_is_no_memory_to_read(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "nothing")
    (table,) = memory.tables(QUICK)
    assert table.rows == ()
    assert "- It is read from Linux's /proc." in page.table(asdict(table))


def test_memory_counts_what_is_held(work, monkeypatch):
    monkeypatch.setattr(memory, "_call", lambda *_: lambda: torch.ones(50 << 18).sum())
    assert 45 < memory.added(work, "anything") < 60


def test_growth_fits_the_exponent():
    assert growth.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    axes = [replace(axis, steps=axis.steps[:2]) for axis in growth.AXES]
    axes[1] = replace(axes[1], steps=(64, 96))
    tables = list(growth.tables(QUICK, SMALL, axes, size=64))
    assert len(tables) == len(axes)
    for table in tables:
        assert table.notes[0].startswith("Exponents: forward ")


def test_growth_is_that_of_the_least_times_and_of_each_round(monkeypatch):
    monkeypatch.setattr(growth, "METHODS", ())
    axis = growth.Axis(name="batch", steps=(1, 2))
    names = [f"{name}, batch {step}" for name in ("forward", "all") for step in axis.steps]
    times = [[1.0, 4.0], [4.0, 4.0], [1.0, 1.0], [2.0, 2.0]]
    rows = harness.rows_of([fake("torch", name) for name in names], times)
    told = growth._exponents(rows, axis)
    assert told == ["forward 2.00 (0.00 to 2.00)", "all 1.00 (1.00 to 1.00)"]


# What is left of it


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(peers, "PEERS", ())
    return report.run("maps", QUICK, settings=[TINY])


def test_json_has_the_documented_fields(found):
    written = json.loads(json.dumps(asdict(found)))
    parts = [(report.Report, written), (Table, written["tables"][0])]
    for cls, part in [*parts, (Row, written["tables"][0]["rows"][0])]:
        assert list(part) == [field.name for field in fields(cls)]
        assert all(f"{name}: " in cls.__doc__ for name in part)


def test_targets_are_counted(found):
    rows = found.tables[0].rows
    assert found.met + sum(row.verdict.startswith("missed") for row in rows) == 9
    assert len(found.missed) == 9 - found.met


def test_misses_and_peers_are_counted_by_rows(monkeypatch):
    given = [fake("torch", "f"), fake("a", "x"), fake("a", "y"), fake("a", "z")]
    ours = [fake("attrib", "x", limit=1.0), replace(fake("attrib", "y", limit=1.0), why="so")]
    values = [[1.0] * 3, [2.0] * 3, [2.0] * 3, [2.0] * 3, [3.0] * 3, [1.0, 2.1, 2.1], [0.5] * 3]
    ours = [*ours, fake("attrib", "z", limit=1.0)]
    table = harness.measured("t", [*given, *ours], values)
    monkeypatch.setattr(maps, "tables", lambda _: iter([table]))
    found = report.run("maps", QUICK)
    assert (found.met, found.compared, found.surely) == (1, 3, 1)
    assert [(m.table, m.what, m.why) for m in found.missed] == [("t", "x", ""), ("t", "y", "so")]
    assert [s.says for s in found.slower] == [
        "1.500 × a in nine of ten rounds",
        "1.050 × a by the median",
    ]


def test_every_subject_says_what_it_is():
    import importlib

    for name in SUBJECTS:
        module = importlib.import_module(f"benchmarks.subjects.{name}")
        assert module.TITLE
        assert module.ABOUT.endswith(".")


def test_one_command_measures_and_writes_the_page(tmp_path, monkeypatch, found):
    monkeypatch.setattr(report, "run", lambda name, effort: replace(found, subject=name))
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(run, "keep_freed_memory", lambda: None)
    for name, value in run.QUIET.items():
        monkeypatch.setenv(name, value)
    run.main(["maps", "--results", str(tmp_path / "new")])
    assert json.loads((tmp_path / "new" / "maps.json").read_text())["subject"] == "maps"
    assert "## Maps" in (tmp_path / "page.md").read_text()


def test_unknown_subject_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["mops"])
    assert "no benchmark 'mops'; there are maps, explain" in capsys.readouterr().err


def test_many_subjects_run_in_processes_of_their_own(monkeypatch, tmp_path):
    commands = []
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    monkeypatch.setattr(
        run.subprocess,
        "run",
        lambda command, env, **_: commands.append(command) or envs.append(env),
    )
    envs = []
    run.main(["maps", "rib", "--threads", "1", "--no-page", "--results", str(tmp_path)])
    run.main(["start", "--no-page", "--results", str(tmp_path)])
    assert [command[3] for command in commands] == ["maps", "rib", "start"]
    assert all(env["OPENBLAS_THREAD_TIMEOUT"] == "4" for env in envs)
    assert all("--no-page" in command and str(tmp_path) in command for command in commands)


def test_timm_models_are_built_by_name():
    assert isinstance(models.build("test_resnet"), nn.Module)
    assert models.build(SMALL, num_classes=3).fc.out_features == 3


def test_a_photograph_is_about_as_large_as_one(tmp_path):
    path = models.photograph(tmp_path / "a.jpg")
    assert 30_000 < path.stat().st_size < 200_000
