"""Seeds written as tars: the same files in them, resumed to the same bytes."""

import json
import tarfile

import pytest

from attrib.datasets.stores import TarShards
from attrib.errors import InputError
from attrib.seeds import SeedOptions, make_seeds
from tests.seed_jobs import COUNT, contents, folder, kill_job, render

FORMATS = ("label", "npz", "rle", "boxes")
OPTIONS = SeedOptions(scales=(1.0,), formats=FORMATS)
PACK = 2


@pytest.fixture(scope="module")
def packed(root, explainer, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    report = make_seeds(explainer, folder(root), out, OPTIONS, pack=PACK)
    assert (report.made, report.failed, report.complete) == (COUNT, {}, True)
    return contents(out)


def test_the_tars_hold_what_single_files_hold(root, packed, explainer, tmp_path):
    make_seeds(explainer, folder(root), tmp_path / "single", OPTIONS)
    make_seeds(explainer, folder(root), tmp_path / "packed", OPTIONS, pack=PACK)
    single = contents(tmp_path / "single")
    found = {name: packed[name] for name in ("rle.json", "boxes.json", "boxes.csv")}
    for name in FORMATS:
        shards = TarShards(tmp_path / "packed" / name / "*.tar")
        found |= {f"{name}/{path}": shards.find(path).fetch() for path in shards.paths()}
    assert found == {name: single[name] for name in single if name != "job.json"}
    tars = [f"{name}/{i:06d}.tar" for name in FORMATS for i in range(COUNT // PACK)]
    assert sorted(packed) == sorted([*tars, "job.json", "rle.json", "boxes.json", "boxes.csv"])
    jobs = [json.loads(c["job.json"]) for c in (packed, single)]
    assert jobs[0].pop("pack") == PACK
    assert jobs[0] == jobs[1]


def test_shards_divide_by_tars(root, packed, explainer, tmp_path):
    data = folder(root)
    made = [
        make_seeds(explainer, data, tmp_path, OPTIONS, pack=PACK, shard=(i, 2)).made for i in (2, 1)
    ]
    assert made == [2, 4]
    assert contents(tmp_path) == packed


def test_killed_and_repeated(root, packed, explainer, tmp_path):
    done = kill_job(root, tmp_path, OPTIONS, PACK, pack=PACK)
    (tmp_path / "npz" / ".000002.0123.tar").write_bytes(b"half a tar")
    report = make_seeds(explainer, folder(root), tmp_path, OPTIONS, pack=PACK)
    assert (report.kept, report.made, report.complete) == (done, COUNT - done, True)
    assert contents(tmp_path) == packed


def test_what_was_lost_or_failed_is_made_again_and_the_rest_kept(root, packed, explainer, tmp_path):
    place = render(tmp_path / root.name)  # the same name: the same job
    whole = (place / "p2.png").read_bytes()
    (place / "p2.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    report = make_seeds(explainer, folder(place), out, OPTIONS, pack=PACK)
    assert (report.made, list(report.failed)) == (COUNT - 1, ["p2"])
    assert TarShards(out / "npz" / "000001.tar").paths() == ["p3.npz"]
    (place / "p2.png").write_bytes(whole)
    (out / "label" / "000000.tar").unlink()
    damaged = out / "npz" / "000002.tar"
    damaged.write_bytes(damaged.read_bytes()[:700])
    report = make_seeds(explainer, folder(place), out, OPTIONS, pack=PACK)
    assert (report.made, report.kept) == (COUNT - 1, 1)
    assert contents(out) == packed


def test_another_packing_is_another_job(root, packed, explainer, tmp_path):
    make_seeds(explainer, folder(root), tmp_path, OPTIONS, pack=PACK)
    for pack in (None, 3):
        with pytest.raises(InputError, match=f"pack was 2, is {pack}"):
            make_seeds(explainer, folder(root), tmp_path, OPTIONS, pack=pack)
    with pytest.raises(InputError, match="pack is 1 picture per tar or more, got 0"):
        make_seeds(explainer, folder(root), tmp_path, OPTIONS, pack=0)
    with tarfile.open(tmp_path / "npz" / "000000.tar") as archive:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in archive} == {(0, 0, 0, "")}
