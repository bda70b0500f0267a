"""Pictures in tar shards, Parquet files and at URLs: the same data set as in a folder."""

import json
import pickle
import sys
import tarfile
from pathlib import Path

import fsspec
import pytest
import torch
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from attrib.datasets import BoxList, Folder
from attrib.datasets.scenes import CLASSES
from attrib.datasets.stores import open_store
from attrib.errors import InputError, MissingExtraError
from attrib.files import Stored
from attrib.images import read_image
from attrib.seeds import SeedOptions, make_seeds
from tests.seed_jobs import COUNT, contents, folder, render, tar

OPTIONS = SeedOptions(scales=(1.0,), formats=("label", "npz", "boxes"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return render(tmp_path_factory.mktemp("all") / "scenes")


@pytest.fixture(scope="module")
def straight(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight")
    make_seeds(attrib.Explainer("demo", "cam"), folder(root), out, OPTIONS)
    return contents(out)


def pictures(root: Path) -> dict[str, bytes]:
    return {f"p{i}.png": (root / f"p{i}.png").read_bytes() for i in range(COUNT)}


def masks(root: Path) -> dict[str, bytes]:
    return {f"p{i}.png": (root / "masks" / f"p{i}.png").read_bytes() for i in range(COUNT)}


def halves(files: dict[str, bytes]) -> list[dict[str, bytes]]:
    names = list(files)
    return [{name: files[name] for name in part} for part in (names[:3], names[3:])]


def in_tars(root: Path, place: Path, kind=pictures) -> str:
    for i, part in enumerate(halves(kind(root))):
        tar(place / "scenes" / f"{i}.tar", part)
    return str(place / "scenes" / "*.tar")


def in_parquet(root: Path, place: Path) -> str:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'attrib[parquet]'")
    import pyarrow

    (place / "scenes").mkdir()
    for i, part in enumerate(halves(pictures(root))):
        table = pyarrow.table({"path": list(part), "image": list(part.values())})
        parquet.write_table(table, place / "scenes" / f"{i}.parquet", row_group_size=2)
    return str(place / "scenes" / "*.parquet")


def in_memory(root: Path, place: Path) -> str:
    return upload(f"memory://{place}/scenes", pictures(root))


def upload(url: str, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        with fsspec.open(f"{url}/{name}", "wb") as file:
            file.write(content)
    return url


def tars_in_memory(root: Path, place: Path) -> str:
    in_tars(root, place)
    files = {p.name: p.read_bytes() for p in (place / "scenes").glob("*.tar")}
    return upload(f"memory://{place}/scenes", files) + "/*.tar"


PLACES = (in_tars, in_parquet, in_memory, tars_in_memory)


@pytest.mark.parametrize("put", PLACES)
def test_seeds_are_the_same_bytes_from_everywhere(put, root, straight, tmp_path):
    """Also half of them from the folder and the rest from there: it is the same job."""
    explainer, place = attrib.Explainer("demo", "cam"), put(root, tmp_path)
    data = Folder(place, root / "labels.csv", classes=CLASSES)
    assert all(isinstance(sample.picture, Stored) for sample in data)
    out = tmp_path / "out"
    make_seeds(explainer, folder(root), out, OPTIONS, shard=(1, 2))
    report = make_seeds(explainer, data, out, OPTIONS)
    assert (report.made, report.kept, report.complete) == (COUNT // 2, COUNT // 2, True)
    assert contents(out) == straight


@pytest.mark.parametrize("put", PLACES)
def test_boxes_and_masks_from_everywhere(put, root, tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("path,label,x0,y0,x1,y1\np1.png,cat,1,2,3,4\n")
    (sample,) = BoxList(put(root, tmp_path), table)
    plain = read_image(root / "p1.png")
    assert torch.equal(read_image(sample.picture).pixels, plain.pixels)
    assert "p1.png" in read_image(sample.picture).name
    shards = in_tars(root, tmp_path / "masks", masks)
    stored = Folder(root, root / "labels.csv", classes=CLASSES, masks=shards)
    assert all(torch.equal(stored.mask(i), folder(root).mask(i)) for i in range(COUNT))


@pytest.mark.parametrize("put", PLACES)
def test_what_names_a_picture_can_be_sent(put, root, tmp_path):
    place = open_store(put(root, tmp_path)).find("p4.png")
    copy = pickle.loads(pickle.dumps(place))
    assert (copy, copy.name) == (place, "p4.png")
    assert copy.fetch() == (root / "p4.png").read_bytes()


def test_the_commands(root, tmp_path):
    def run(*arguments):
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    out, place = tmp_path / "out", tars_in_memory(root, tmp_path)
    data = ("--dataset", "folder", "--root", place, "--labels", root / "labels.csv")
    made = ("--model", "demo", "--scales", "1", "--format", "npz", "--pack", 4, "--out", out)
    assert f"made {COUNT}, kept 0, failed 0" in run("seeds", *data, *made)
    assert f"made 0, kept {COUNT}, failed 0" in run("seeds", *data, *made)
    assert [p.name for p in sorted((out / "npz").iterdir())] == ["000000.tar", "000001.tar"]
    masks_at = in_tars(root, tmp_path / "masks", masks)
    html = ("--masks", masks_at, "--html", tmp_path / "worst.html")
    scored = run("evaluate", "seeds", out, *data, *html)
    assert f"{COUNT} pictures scored, 0 missing; npz" in scored
    (tmp_path / "b.csv").write_text("path,label,x0,y0,x1,y1\np1.png,rabbit,1,2,30,40\n")
    boxes = ("--dataset", "boxes", "--root", place, "--annotations", tmp_path / "b.csv")
    assert "1 pictures" in run(
        "evaluate", "wsol", *boxes, "--model", "demo", "--protocol", "infocam"
    )


# Classes


def labels_in(data) -> dict[str, tuple[int, ...]]:
    return {sample.id: sample.labels for sample in data}


def test_classes_beside_the_pictures_of_a_tar(root, tmp_path):
    (picture, *_) = pictures(root).values()
    files = {
        "a/1.cls": b"ox;cat\n",
        "a/1.JPG": picture,
        "a/1.json": b'{"label": "dog"}',
        "a/1.seg.png": picture,
        "b.png": picture,
        "b.json": json.dumps({"labels": ["dog"], "caption": "no cat"}).encode(),
        "c.png": picture,
        "c.json": b'{"labels": []}',
    }
    data = Folder(tar(tmp_path / "x.tar", files))
    assert (data.name, data.labels) == ("folder x", ("cat", "dog", "ox"))
    assert labels_in(data) == {"a/1": (0, 2), "b": (1,), "c": ()}
    del files["c.json"]
    place = tar(tmp_path / "y.tar", files)
    with pytest.raises(InputError, match=r"some pictures have classes beside them and c\.png not"):
        Folder(place)
    listed = tmp_path / "l.csv"
    listed.write_text("path,label\nc.png,cat\n")
    assert labels_in(Folder(place, listed)) == {"c": (0,)}


@pytest.mark.parametrize("remote", [False, True])
def test_folders_named_after_classes(root, tmp_path, remote):
    (picture, *_) = pictures(root).values()
    files = dict.fromkeys(
        ("dog/2.JPG", "cat/1.png", "dog/1.png", ".h/1.png", "dog/._1.png"), picture
    )
    files |= {"dog/notes.txt": b"", "top.png": picture, "dog/deep/1.png": picture}
    if remote:
        place = upload(f"memory://{tmp_path}/classes", files)
    else:
        place = tar(tmp_path / "classes.tar", files)
    data = Folder(place)
    assert data.name == "folder classes"
    assert list(labels_in(data).items()) == [("cat/1", (0,)), ("dog/1", (1,)), ("dog/2", (1,))]


def test_columns_of_a_parquet_file(root, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'attrib[parquet]'")
    import pyarrow

    images = [{"bytes": b, "path": name} for name, b in pictures(root).items()]
    columns = {"image": images, "label": [0, 1, 1, 2, 0, 7]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "hub.parquet")
    data = Folder(tmp_path / "hub.parquet", classes=CLASSES)
    assert labels_in(data) == {f"p{i}": (k,) for i, k in enumerate((0, 1, 1, 2, 0, 7))}
    assert data[3].picture.fetch() == images[3]["bytes"]
    columns = {"id": [7, 8], "jpg": [b"x", None], "labels": [["ox", "cat"], []]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "own.parquet")
    data = Folder(tmp_path / "own.parquet")
    assert labels_in(data) == {"7": (0, 1), "8": ()}
    with pytest.raises(
        InputError, match=r"8 in .*own\.parquet .*group 0\) cannot be used: it is n"
    ):
        data[1].picture.fetch()
    for columns, message in (
        ({"x": [1]}, "has no column image or"),
        ({"jpg": [b"x"]}, "has no column path or"),
        ({"jpg": [b"x"], "id": ["../x"]}, "within the data set's folder"),
        ({"jpg": [b"x"], "id": [None]}, "a path is text or a number, got None"),
        ({"jpg": [b"x", b"y"], "id": ["x", "x"]}, "it holds x, as .* does already"),
        ({"jpg": [b"x"], "id": ["x"], "cls": [1.5]}, "classes of x are names or indices, got 1.5"),
    ):
        parquet.write_table(pyarrow.table(columns), tmp_path / "bad.parquet")
        with pytest.raises(InputError, match=message):
            Folder(tmp_path / "bad.parquet")
    parquet.write_table(pyarrow.table({"jpg": ["text"], "id": ["x"]}), tmp_path / "text.parquet")
    with pytest.raises(InputError, match="column jpg holds str, not bytes"):
        open_store(tmp_path / "text.parquet").find("x").fetch()
    (tmp_path / "no.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"no\.parquet cannot be read"):
        open_store(tmp_path / "no.parquet")


# What strangers feed it


def test_few_bytes_that_stand_for_many_pictures(tmp_path, monkeypatch):
    """A column can say one value for millions of rows."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'attrib[parquet]'")
    import pyarrow

    rows = 2000
    same = pyarrow.array([bytes(10**6)]).dictionary_encode().take(pyarrow.array([0] * rows))
    table = pyarrow.table({"id": [str(i) for i in range(rows)], "jpg": same})
    parquet.write_table(table, tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 10**5
    monkeypatch.setattr("attrib.datasets.stores.parquet.MAX_BYTES", 10**8)
    with pytest.raises(InputError, match="unpacks to more than 100000000 bytes"):
        open_store(tmp_path / "bomb.parquet").find("7").fetch()


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", "..\\x.png", "C:\\x"])
def test_members_that_lead_out(tmp_path, name):
    with pytest.raises(InputError, match=r"x\.tar .*within the data set's folder"):
        open_store(tar(tmp_path / "x.tar", {name: b"x"}))


def test_members_that_are_no_files(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        header = tarfile.TarInfo("x.png")
        header.type, header.linkname = kind, "/etc/passwd"
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            archive.addfile(header)
        with pytest.raises(InputError, match=r"x\.png is a link, a device or has holes"):
            open_store(tmp_path / "x.tar")


def test_members_that_end_before_they_begin(tmp_path):
    """Going on behind such a header would come back to it without end."""
    header = tarfile.TarInfo("x.png")
    header.size = -1024
    block = header.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "x.tar").write_bytes(bytes(block) + bytes(2048))
    with pytest.raises(InputError, match=r"x\.tar cannot be used"):
        open_store(tmp_path / "x.tar")


def test_members_that_claim_too_much_or_come_twice(tmp_path):
    header = tarfile.TarInfo("x.png")
    header.size = 2**40
    (tmp_path / "x.tar").write_bytes(header.tobuf() + bytes(1024))
    with pytest.raises(InputError, match=r"x\.png claims 1099511627776 bytes, more than"):
        open_store(tmp_path / "x.tar")
    tar(tmp_path / "two" / "a.tar", {"x.png": b"1"})
    tar(tmp_path / "two" / "b.tar", {"./x.png": b"2"})
    with pytest.raises(InputError, match=r"b\.tar .*it holds x\.png, as .*a\.tar does already"):
        open_store(tmp_path / "two" / "*.tar")
    tar(tmp_path / "big.tar", {"x.png": b"", "x.cls": b"1" * (2**20 + 1)})
    tar(tmp_path / "odd.tar", {"x.cls": b"\xff"})
    with pytest.raises(InputError, match=r"x\.cls in .*odd\.tar cannot be read: UnicodeDecode"):
        open_store(tmp_path / "odd.tar")
    with pytest.raises(InputError, match=r"x\.cls has 1048577 bytes, more than classes need"):
        open_store(tmp_path / "big.tar")


def test_damaged_shards(root, tmp_path):
    whole = tar(tmp_path / "x.tar", pictures(root)).read_bytes()
    place = tmp_path / "cut.tar"
    place.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.tar cannot be used: it is no tar, cut short"):
        open_store(place)
    with tarfile.open(tmp_path / "z.tar", "w:gz") as archive:
        archive.add(root / "p1.png", "p1.png")
    with pytest.raises(InputError, match=r"compressed .*unpack a \.tar\.gz"):
        open_store(tmp_path / "z.tar")
    store = open_store(tmp_path / "x.tar")
    (tmp_path / "x.tar").write_bytes(whole[:2000])
    with pytest.raises(InputError, match=r"p5\.png in .*x\.tar cannot be used: it ends after 0 of"):
        store.find("p5.png").fetch()
    damaged = tar(tmp_path / "d.tar", {"p1.png": (root / "p1.png").read_bytes()[:100]})
    with pytest.raises(InputError, match=r"p1\.png in .*d\.tar is damaged"):
        read_image(open_store(damaged).find("p1.png"))


@pytest.mark.parametrize("seed", range(40))
def test_shards_with_other_bytes_in_them_are_read_or_refused(root, tmp_path, seed):
    torch.manual_seed(seed)
    content = bytearray(
        tar(tmp_path / "x.tar", dict(list(pictures(root).items())[:2])).read_bytes()
    )
    for _ in range(3):
        content[int(torch.randint(1024, ()))] = int(torch.randint(256, ()))
    (tmp_path / "x.tar").write_bytes(content)
    try:
        store = open_store(tmp_path / "x.tar")
        for path in store.paths():
            store.find(path).fetch()
    except InputError:
        pass


def test_places_that_cannot_be_reached(tmp_path, monkeypatch):
    for place, message in (
        (tmp_path / "none", "is no folder"),
        (tmp_path / "none.tar", "there is no file"),
        (f"{tmp_path}/*.tar", "there is no file"),
        ("memory://nothing/here", "lists no files"),
        ("memory://nothing/here/*.tar", "there is no file"),
        ("nosuch://bucket/x", "Protocol not known: nosuch"),
        ("zip://x::memory://y", "is a chain of URLs"),
    ):
        with pytest.raises(InputError, match=message):
            open_store(place)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'attrib\[parquet\]'"):
        open_store(tmp_path / "x.parquet")


def test_a_url_that_does_not_say_how_large_a_file_is(monkeypatch, tmp_path):
    url = upload(f"memory://{tmp_path}/sizes", {"a.png": b"12345"})
    place = open_store(url).find("a.png")
    unknown = type(place)(url=place.url, path=place.path, size=None)
    assert unknown.fetch() == b"12345"
    monkeypatch.setattr("attrib.datasets.stores.places.MAX_BYTES", 4)
    for file in (place, unknown):
        with pytest.raises(InputError, match=r"(more|larger) than 4"):
            file.fetch()
