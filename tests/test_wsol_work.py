"""Scores that go on where they were stopped: the figures of a run that was not, nothing twice."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import pytest
import torch

import attrib
from attrib.datasets import Scenes, ScenesWithBoxes
from attrib.errors import InputError
from attrib.evaluate import evaluate_wsol
from attrib.journal import Journal
from attrib.metrics import PROTOCOLS, InfoCAMProtocol, WsolBatch, wsol_protocols
from attrib.types import Frame
from tests.seed_jobs import contents

COUNT, SIZE = 18, 4


def scenes(length=COUNT, seed=3):
    return ScenesWithBoxes(Scenes(length=length, size=96, seed=seed))


def score(explainer, data=None, names="all", **options):
    """All figures but the time."""
    protocols = wsol_protocols(names, interval=0.05)
    given = {"validation": scenes(7, 4), "batch_size": SIZE} | options
    found = evaluate_wsol(explainer, scenes() if data is None else data, protocols, **given)
    del found["seconds_per_image"]
    return found


@pytest.fixture(scope="module")
def straight(explainer, tmp_path_factory):
    """Figures and maps of a run that nothing stops and that keeps nothing."""
    maps = tmp_path_factory.mktemp("straight")
    return score(explainer, save_maps=maps), contents(maps)


def lines(work):
    path = work / "journal" / "1-of-1.jsonl"
    return [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []


def pictures(work, part="scored"):
    return sorted(
        int(key) for row in lines(work) if row["id"].startswith(part) for key in row["pictures"]
    )


def assert_nothing_twice(work):
    assert pictures(work) == list(range(COUNT))
    assert pictures(work, "validation") == list(range(7))


KILLED = """
import sys, attrib
from pathlib import Path
from tests.test_wsol_work import score
work, maps = map(Path, sys.argv[1:])
score(attrib.Explainer("demo", "cam"), work=work, save_maps=maps)
"""


def kill(work, maps, wanted):
    """Score in a process of its own, ended by SIGKILL when so many batches are counted."""
    path = work / "journal" / "1-of-1.jsonl"
    command = [sys.executable, "-c", KILLED, str(work), str(maps)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if path.exists() and path.read_bytes().count(b"\n") >= wanted:
                process.kill()
            time.sleep(0.001)
    assert process.returncode == -9
    return path.read_bytes().count(b"\n")


def test_killed_at_any_moment_and_repeated(explainer, straight, tmp_path):
    """In the validation split and in the scored one; also with half a line and half a map."""
    work, maps = tmp_path / "work", tmp_path / "maps"
    done = [kill(work, maps, wanted) for wanted in (1, 4)]
    assert 1 <= done[0] < done[1] < 2 + 5
    with (work / "journal" / "1-of-1.jsonl").open("ab") as file:
        file.write(b'{"id": "scored 16:18:1", "status": "done", "pict')
    (maps / ".3.0123456789abcdef.npz").write_bytes(b"half a map")
    found = score(explainer, work=work, save_maps=maps)
    assert (found, contents(maps)) == straight
    assert_nothing_twice(work)
    assert len(lines(work)) == 2 + 5


class Seen:
    """Counts what a model is shown."""

    def __init__(self, model):
        self.images = 0
        model.register_forward_pre_hook(self)

    def __call__(self, module, inputs):
        self.images += len(inputs[0])


class Broken(ScenesWithBoxes):
    """Scenes, one of which cannot be read."""

    def __init__(self, which):
        super().__init__(Scenes(length=COUNT, size=96, seed=3))
        self.which = which

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return replace(sample, picture=b"") if index == self.which else sample


def test_what_was_counted_is_not_counted_again(straight, tmp_path):
    model = attrib.load_model("demo", device="cpu")
    explainer = attrib.Explainer(model, "cam")
    seen = Seen(model)
    with pytest.raises(attrib.AttribError, match=r"picture|image"):
        score(explainer, Broken(9), work=tmp_path)
    assert seen.images == 7 + 2 * SIZE
    assert pictures(tmp_path) == list(range(2 * SIZE))
    assert score(explainer, work=tmp_path) == straight[0]
    assert seen.images == 7 + COUNT
    assert_nothing_twice(tmp_path)
    assert score(explainer, work=tmp_path) == straight[0]
    assert seen.images == 7 + COUNT
    assert_nothing_twice(tmp_path)


def test_seconds_are_those_of_all_runs(explainer, tmp_path):
    options = {"batch_size": SIZE, "work": tmp_path}
    first = evaluate_wsol(explainer, scenes(), InfoCAMProtocol(), **options)
    again = evaluate_wsol(explainer, scenes(), InfoCAMProtocol(), **options)
    assert again == first
    assert first["seconds_per_image"] > 0


def test_from_few_pictures_to_more(explainer, straight, tmp_path):
    few = score(explainer, limit=10, work=tmp_path)
    assert few == score(explainer, limit=10)
    assert score(explainer, work=tmp_path) == straight[0]
    assert score(explainer, every=3, work=tmp_path) == score(explainer, every=3)
    assert score(explainer, limit=10, work=tmp_path) == few


def test_maps_that_are_not_there_are_made(explainer, straight, tmp_path):
    work, maps = tmp_path / "work", tmp_path / "maps"
    score(explainer, work=work)
    assert (score(explainer, work=work, save_maps=maps), contents(maps)) == straight
    (maps / "5.npz").unlink()
    (maps / "6.npz").write_bytes(b"")
    assert (score(explainer, work=work, save_maps=maps), contents(maps)) == straight


def test_another_score_is_refused(explainer, tmp_path):
    work, maps = tmp_path / "work", tmp_path / "maps"
    score(explainer, limit=SIZE, work=work, save_maps=maps)
    before = contents(tmp_path), lines(work)
    changed = attrib.Explainer(attrib.load_model("demo", device="cpu"), "cam")
    with torch.no_grad():
        next(changed.classifier.model.parameters())[0] += 1
    for other, options, message in (
        (attrib.Explainer("demo", "infocam+"), {}, r"method was 'cam', is 'infocam\+'\. Give"),
        (changed, {}, r"another job: made_by\.weights was '\w+', is '\w+'\. Give"),
        (explainer, {"batch_size": 3}, r"another job: batch_size was 4, is 3\. Give"),
        (explainer, {"data": scenes(20)}, r"another job: data\.pictures was 18, is 20\. Give"),
        (explainer, {"validation": None}, r"another job: validation was .*, is None\. Give"),
        (explainer, {"names": "infocam,pxap"}, r"protocols\.maxboxacc was .*, is None; "),
        (explainer, {"data": scenes(seed=5)}, r"other data: classes and objects of pictures scored"
         r" 0:4:1 were \w+, are \w+\. Give another folder"),
        (explainer, {"validation": scenes(7, 5)}, r"other data: .* pictures validation 0:4:1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            score(other, work=work, save_maps=maps, **options)
        assert (contents(tmp_path), lines(work)) == before
    with Journal(work, "1-of-1").open(), pytest.raises(InputError, match="another process is"):
        score(explainer, work=work)


def test_pictures_of_other_pixels_are_other_data(explainer, tmp_path):
    class Darker(ScenesWithBoxes):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return replace(sample, picture=sample.picture // 2)

    score(explainer, limit=SIZE, work=tmp_path)
    with pytest.raises(InputError, match="other data"):
        score(explainer, Darker(Scenes(length=COUNT, size=96, seed=3)), work=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: row.pop("data"),
        lambda row: row.pop("rank"),
        lambda row: row["counts"].pop("pxap"),
        lambda row: row["counts"]["pxap"].update(counts=[[1, 2]]),
        lambda row: row["counts"]["maxboxacc"].update(right=None),
        lambda row: row["counts"]["infocam"].update(right=3),
        lambda row: row["counts"].update(pointing=[]),
    ],
)
def test_lines_of_strangers(explainer, tmp_path, damage):
    score(explainer, limit=SIZE, validation=None, work=tmp_path)
    (row,) = lines(tmp_path)
    damage(row)
    (tmp_path / "journal" / "1-of-1.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="journal cannot be"):
        score(explainer, limit=SIZE, validation=None, work=tmp_path)


def batch(count, ranked):
    draw = torch.Generator().manual_seed(count)
    return WsolBatch(
        ids=tuple(map(str, range(count))),
        maps=torch.rand(count, 8, 8, generator=draw),
        frames=(Frame(source=(64, 64), resized=(64, 64), tensor=(64, 64)),) * count,
        boxes=(torch.tensor([[8.0, 8, 40, 48]]),) * count,
        masks=(torch.ones(16, 16, dtype=torch.uint8).tril(),) * count,
        rank=torch.arange(count) if ranked else None,
    )


@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_counts_survive_a_file(name, ranked):
    (whole,), (total,) = wsol_protocols(name), wsol_protocols(name)
    for size in (3, 7):
        (fed,), (read,) = wsol_protocols(name), wsol_protocols(name)
        whole.update(batch(size, ranked))
        fed.update(batch(size, ranked))
        read.load_state_dict(json.loads(json.dumps(fed.state_dict())))
        total.add(read)
    assert total.result() == whole.result()
    assert total.state_dict() == whole.state_dict()


class Own:
    """A protocol that counts and keeps nothing."""

    name = "own"

    def update(self, batch):
        self.images = getattr(self, "images", 0) + len(batch.ids)

    def result(self, validation=None):
        return {"images": self.images}


@dataclass
class OwnKept(Own):
    """One that can be kept."""

    option: int = 3
    images: int = 0

    def add(self, other):
        self.images += other.images

    def state_dict(self):
        return {"images": self.images}

    def load_state_dict(self, state):
        self.images = state["images"]


def test_a_protocol_of_ones_own(explainer, tmp_path):
    assert evaluate_wsol(explainer, scenes(), Own())["images"] == COUNT
    with pytest.raises(InputError, match=r"'own' cannot be kept; make it a dataclass with the"):
        evaluate_wsol(explainer, scenes(), Own(), work=tmp_path)
    assert not any(tmp_path.iterdir())
    for _ in range(2):
        assert evaluate_wsol(explainer, scenes(), OwnKept(), work=tmp_path)["images"] == COUNT
    with pytest.raises(InputError, match=r"protocols\.own\.option was 3, is 4"):
        evaluate_wsol(explainer, scenes(), OwnKept(option=4), work=tmp_path)
