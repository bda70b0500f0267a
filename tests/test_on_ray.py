"""Seeds on a Ray cluster of two workers: the same bytes, also when one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest
import torch
from PIL import Image
from torch import nn

import attrib
from attrib.cli.engine import crew_of, engine_of, loading_device
from attrib.datasets import Folder, Scenes, ScenesWithBoxes
from attrib.datasets.scenes import CLASSES
from attrib.errors import InputError, MissingExtraError, ModelError, OutputError
from attrib.evaluate import evaluate_seeds, evaluate_wsol
from attrib.metrics import WsolBatch, wsol_protocols
from attrib.seeds import FORMATS, Local, Naming, OnRay, SeedOptions, make_seeds
from attrib.seeds.engine import SeedTask
from attrib.seeds.output import Part, SeedFiles
from tests.extras import missing
from tests.models import Everything
from tests.seed_jobs import contents, folder, render, tar

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")  # of Ray itself
    for kind in ("DeprecationWarning", "FutureWarning", "ResourceWarning")
]
MANY = 40
OPTIONS = SeedOptions(scales=(1.0, 0.5), formats=tuple(FORMATS))
TWO = OnRay(workers=2, batch=4)
RIB = (
    "rib(steps=2, lr=1e-3, train_from=4, scales=(1.0, 0.5), loss_scales=(1.0,), others='sampled', "
    "num_others=1, pool_pictures=4, pool_size=48, pool_long_side=(40, 64))"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return render(tmp_path_factory.mktemp("scenes"), MANY)


@contextmanager
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(TWO.cpus)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def straight(root, explainer, tmp_path_factory):
    """What one process makes, with as many threads as a worker has."""
    out = tmp_path_factory.mktemp("straight")
    with one_thread():
        make_seeds(explainer, folder(root), out, OPTIONS)
    return contents(out)


@pytest.fixture(scope="module")
def cluster():
    require_ray()
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
    yield ray
    ray.shutdown()


def require_ray():
    if without := missing("ray"):
        pytest.skip(without)


def journal(out):
    path = out / "journal" / "1-of-1.jsonl"
    return [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []


def actors():
    """Processes of the workers of this cluster."""
    everyone = psutil.Process().children(recursive=True)
    return [p for p in everyone if p.name().startswith("ray::") and "MapWorker" in p.cmdline()[0]]


class Killer(threading.Thread):
    """Kills a worker once some pictures are done."""

    def __init__(self, count, after):
        super().__init__(daemon=True)
        self.count, self.after = count, after
        self.done = None

    def run(self):
        while self.count() < self.after:
            time.sleep(0.002)
        actors()[0].send_signal(signal.SIGKILL)
        self.done = self.count()


def test_a_killed_worker_loses_nothing_and_repeats_nothing(
    cluster, root, straight, explainer, tmp_path
):
    killer = Killer(lambda: len(journal(tmp_path)), after=6)
    killer.start()
    report = make_seeds(explainer, folder(root), tmp_path, OPTIONS, engine=TWO)
    assert 6 <= killer.done < MANY - TWO.batch
    assert (report.made, report.kept, report.failed, report.complete) == (MANY, 0, {}, True)
    assert contents(tmp_path) == straight
    assert sorted(row["id"] for row in journal(tmp_path)) == sorted(f"p{i}" for i in range(MANY))
    again = make_seeds(explainer, folder(root), tmp_path, OPTIONS)
    assert (again.made, again.kept) == (0, MANY)


@pytest.mark.slow
def test_one_engine_goes_on_where_the_other_stopped(cluster, root, straight, explainer, tmp_path):
    make_seeds(explainer, folder(root), tmp_path, OPTIONS, shard=(2, 2))
    report = make_seeds(explainer, folder(root), tmp_path, OPTIONS, engine=TWO)
    assert (report.made, report.kept, report.complete) == (MANY // 2, MANY // 2, True)
    assert contents(tmp_path) == straight


@pytest.mark.slow
def test_tars_are_read_and_written(cluster, root, explainer, tmp_path, monkeypatch):
    """A tar is made by one worker, whole; relative paths are meant from this process's folder."""
    monkeypatch.chdir(tmp_path)
    files = {f"p{i}.png": (root / f"p{i}.png").read_bytes() for i in range(MANY)}
    place = tar(tmp_path / "tars" / f"{root.name}.tar", files)
    data = Folder(place, root / "labels.csv", classes=CLASSES)
    options = SeedOptions(scales=(1.0,), formats=("npz", "boxes"))
    report = make_seeds(explainer, data, "ray", options, pack=6, engine=TWO)
    assert (report.made, report.failed, report.complete) == (MANY, {}, True)
    with one_thread():
        make_seeds(explainer, folder(root), tmp_path / "local", options, pack=6)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.slow
def test_localisation_is_scored_the_same_also_when_a_worker_is_killed(cluster, explainer, tmp_path):
    data = ScenesWithBoxes(Scenes(length=MANY, size=96, seed=4))
    other = ScenesWithBoxes(Scenes(length=9, size=96, seed=5))

    def score(**options):
        protocols = wsol_protocols("all", interval=0.05)
        found = evaluate_wsol(explainer, data, protocols, validation=other, batch_size=4, **options)
        return {key: value for key, value in found.items() if key != "seconds_per_image"}

    maps = tmp_path / "ray"
    maps.mkdir()
    (maps / ".half.0123456789abcdef.npz").write_bytes(b"of a worker that died")
    killer = Killer(lambda: len(list(maps.rglob("[!.]*.npz"))), after=8)
    killer.start()
    found = score(save_maps=maps, engine=TWO)
    assert 8 <= killer.done < MANY
    with one_thread():
        assert found == score(save_maps=tmp_path / "local")
    assert found["images"] == MANY
    assert contents(maps) == contents(tmp_path / "local")


def localised(explainer, **options):
    """Figures of `MANY` scenes in batches of `TWO`, but for the time."""
    data = ScenesWithBoxes(Scenes(length=MANY, size=96, seed=4))
    given = {"batch_size": TWO.batch} | options
    found = evaluate_wsol(explainer, data, wsol_protocols("all", interval=0.05), **given)
    return {key: value for key, value in found.items() if key != "seconds_per_image"}


def assert_each_picture_once(work):
    keys = [key for row in journal(work) for key in row["pictures"]]
    assert sorted(keys, key=int) == [str(i) for i in range(MANY)]


def test_a_score_begun_here_is_finished_by_workers_one_of_which_is_killed(
    cluster, explainer, tmp_path
):
    with one_thread():
        whole = localised(explainer)
        localised(explainer, limit=2 * TWO.batch, work=tmp_path)
    killer = Killer(lambda: len(journal(tmp_path)), after=4)
    killer.start()
    assert localised(explainer, engine=TWO, work=tmp_path) == whole
    assert 4 <= killer.done < MANY / TWO.batch - 1
    assert_each_picture_once(tmp_path)
    with pytest.raises(InputError, match=r"another job: device was 'cpu', is 'cuda'"):
        localised(explainer, engine=replace(TWO, gpus=1), work=tmp_path)


class Stopped(ScenesWithBoxes):
    """Scenes that workers cannot read from some index on."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return sample if index < MANY // 2 else replace(sample, picture=b"")


@pytest.mark.slow
def test_a_score_that_workers_began_is_finished_here(cluster, explainer, tmp_path):
    begun = Stopped(Scenes(length=MANY, size=96, seed=4))
    protocols = wsol_protocols("all", interval=0.05)
    with pytest.raises(InputError):
        evaluate_wsol(explainer, begun, protocols, batch_size=4, engine=TWO, work=tmp_path)
    assert 0 < len(journal(tmp_path)) < MANY / 4
    with one_thread():
        assert localised(explainer, work=tmp_path) == localised(explainer)
    assert_each_picture_once(tmp_path)


class Watched:
    """A data set that takes its time, and leaves a file for each mask that was read."""

    def __init__(self, data, seen):
        self.data, self.seen = data, seen
        self.name, self.labels, self.category_ids = data.name, data.labels, data.category_ids

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]

    def mask(self, index):
        time.sleep(0.05)
        (self.seen / str(index)).touch()
        return self.data.mask(index)


@pytest.mark.slow
def test_seeds_are_scored_the_same_also_when_a_worker_is_killed(cluster, root, explainer, tmp_path):
    data, seen = folder(root), tmp_path / "seen"
    seen.mkdir()
    make_seeds(explainer, data, tmp_path, SeedOptions(scales=(1.0,), formats=("npz",)), pack=8)
    killer = Killer(lambda: len(list(seen.iterdir())), after=4)
    killer.start()
    found = evaluate_seeds(Watched(data, seen), tmp_path, engine=TWO)
    assert 4 <= killer.done < MANY
    assert found == evaluate_seeds(data, tmp_path)
    assert found["pictures"] == MANY
    first = tmp_path / "npz" / "000000.tar"
    first.write_bytes(first.read_bytes().replace(b"keys.npy", b"sdet.npy"))
    with pytest.raises(InputError, match=r"picture p\d: p\d\.npz in .*000000\.tar cannot be"):
        evaluate_seeds(data, tmp_path, engine=TWO)


@pytest.mark.slow
def test_pictures_that_fail_and_a_model_that_does_nothing_else(cluster, explainer, tmp_path):
    root = render(tmp_path, 12)
    (root / "p3.png").write_bytes(b"no picture")
    report = make_seeds(explainer, folder(root), root / "some", OPTIONS, engine=TWO)
    assert (report.made, list(report.failed), report.complete) == (11, ["p3"], True)
    assert "p3.png" in report.failed["p3"]
    for i in range(12):
        (root / f"p{i}.png").write_bytes(b"")
    with pytest.raises(ModelError, match=r"10 pictures in a row failed, the last \(p\d+\)"):
        make_seeds(explainer, folder(root), root / "none", OPTIONS, engine=TWO)
    assert len(journal(root / "none")) == 10


class OneBlank(ScenesWithBoxes):
    """Scenes, the first of which is of one colour."""

    def __init__(self):
        super().__init__(Scenes(length=2, size=96, seed=4))

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return sample if index else replace(sample, picture=torch.ones(3, 96, 96))


def deadly(_module, inputs):
    """Ends a worker that sees a picture of one colour."""
    if psutil.Process().name().startswith("ray::") and bool((inputs[0].std((2, 3)) < 1e-4).any()):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_picture_that_kills_its_worker_every_time_fails_alone(cluster, tmp_path):
    root = render(tmp_path, 12)
    Image.new("RGB", (64, 64), "white").save(root / "p5.png")
    model = attrib.load_model("demo", device="cpu")
    model.register_forward_pre_hook(deadly)
    explainer = attrib.Explainer(model, "cam")
    report = make_seeds(explainer, folder(root), root / "some", OPTIONS, engine=TWO)
    assert (report.made, list(report.failed), report.complete) == (11, ["p5"], True)
    assert "workers died with it 3 times" in report.failed["p5"]
    assert sorted(row["id"] for row in journal(root / "some")) == sorted(f"p{i}" for i in range(12))
    with pytest.raises(
        ModelError, match=r"part 1 of 1, range\(0, 2\): workers died with it 3 times"
    ):
        evaluate_wsol(explainer, OneBlank(), wsol_protocols("infocam"), engine=TWO)


@pytest.mark.slow
def test_a_file_that_cannot_be_written(cluster, root, explainer, tmp_path):
    (tmp_path / "label").write_bytes(b"in the way")
    options = SeedOptions(scales=(1.0,))
    with pytest.raises(OutputError, match=r"cannot write into .*label.*repeat the command"):
        make_seeds(explainer, folder(root), tmp_path, options, engine=TWO)


class Unsendable(nn.Module):
    """A model that cannot leave its process, or not arrive in another."""

    def __init__(self, model, way):
        super().__init__()
        self.model, self.way = model, way

    def forward(self, images):
        return self.model(images)

    def __getstate__(self):
        if self.way == "out":
            raise TypeError("cannot pickle this")
        return super().__getstate__()

    def __setstate__(self, state):
        raise RuntimeError("cannot unpickle this")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "message"),
    [("out", "cannot be pickled and sent .* cannot pickle this"), ("in", "cannot unpickle this")],
)
def test_a_model_that_cannot_be_sent(cluster, root, explainer, tmp_path, way, message):
    classifier = explainer.classifier
    broken = replace(classifier, model=Unsendable(classifier.model, way))
    task = SeedTask(
        classifier=broken,
        method=explainer.method,
        options=OPTIONS,
        files=SeedFiles(out=tmp_path, formats=OPTIONS.formats, naming=Naming()),
    )
    with pytest.raises(ModelError, match=message):
        list(TWO.ready(task)([Part(number=0, samples=(folder(root)[0],))]))


@pytest.mark.slow
def test_rib_with_other_pictures(cluster, root, explainer, tmp_path):
    """Its pool is sent along."""
    rib = attrib.Explainer("demo", RIB)
    data = folder(render(tmp_path, 4))
    before = Everything(rib.classifier.model)
    options = SeedOptions(formats=("npz",))
    make_seeds(rib, data, tmp_path / "ray", options, engine=TWO)
    before.assert_same(rib.classifier.model)
    with one_thread():
        make_seeds(rib, data, tmp_path / "local", options)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.slow
def test_the_command_starts_a_cluster_of_its_own(tmp_path):
    require_ray()
    root = render(tmp_path, 6)
    command = [sys.executable, "-c", "from attrib.cli import main; main()", "seeds", "--dataset",
               "folder", "--root", root, "--labels", root / "labels.csv", "--model", "demo",
               "--scales", "1", "--format", "npz,boxes"]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    env.pop("RAY_ADDRESS", None)
    for engine in ("local", "ray"):
        extra = ["--workers", "2"] if engine == "ray" else ["--device", "cpu"]
        line = [*command, "--out", root / engine, "--engine", engine, *extra]
        done = subprocess.run(
            list(map(str, line)), capture_output=True, text=True, check=False, env=env
        )
        assert done.returncode == 0, done.stderr
        assert "made 6, kept 0, failed 0" in done.stdout
    assert contents(root / "ray") == contents(root / "local")


class Own:
    """A protocol that counts nothing and cannot be added up."""

    name = "own"

    def update(self, batch: WsolBatch) -> None: ...

    def result(self, validation=None):
        return {"images": 0}


def test_what_cannot_be_asked_for(explainer, root, tmp_path, monkeypatch):
    for options, message in (
        ({"workers": 0}, "workers is 1 or more, got 0"),
        ({"gpus": 2.0}, "gpus is from 0 to 1 for each worker, got 2"),
    ):
        with pytest.raises(InputError, match=message):
            OnRay(**options)
    for name, options, message in (
        ("spark", {}, "unknown engine 'spark'"),
        ("local", {"workers": 2}, "are for --engine ray"),
    ):
        given = {"workers": None, "cpus": None, "gpus": None} | options
        with pytest.raises(attrib.AttribError, match=message):
            engine_of(name, 2, **given)
    none = {"workers": None, "cpus": None, "gpus": None}
    assert engine_of("local", None, **none) == Local()
    assert engine_of("ray", None, **none) == OnRay()
    assert engine_of("ray", 5, **none) == OnRay(readers=5)
    assert crew_of("local", workers=None, cpus=None) is None
    assert crew_of("ray", workers=3, cpus=None) == OnRay(workers=3)
    with pytest.raises(InputError, match=r"--device cuda .* --worker-gpus 1"):
        loading_device("ray", "cuda")
    assert loading_device("ray", None) == "cpu"
    elsewhere = replace(explainer.classifier, model=nn.Conv2d(3, 1, 1, device="meta"))
    with pytest.raises(InputError, match=r"on meta; leave it on the CPU"):
        OnRay().device_type(elsewhere)
    assert [OnRay(gpus=g).device_type(explainer.classifier) for g in (0, 0.5)] == ["cpu", "cuda"]
    data = ScenesWithBoxes(Scenes(length=2, size=96, seed=4))
    with pytest.raises(InputError, match=r"'own' cannot be added up .* a method add\(other\)"):
        evaluate_wsol(explainer, data, Own(), engine=TWO)
    monkeypatch.setitem(sys.modules, "ray", None)
    for score in (
        lambda: evaluate_wsol(explainer, data, wsol_protocols("infocam"), engine=TWO),
        lambda: evaluate_seeds(folder(root), root / "masks", kind="label", engine=TWO),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install 'attrib\[ray\]'"):
            score()
    with pytest.raises(MissingExtraError, match=r"pip install 'attrib\[ray\]'"):
        make_seeds(explainer, folder(root), tmp_path, OPTIONS, engine=OnRay())
    assert not any(tmp_path.iterdir())
