import csv
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attrib.errors import InputError, MissingExtraError
from attrib.seeds import SeedMaps, combine, read_label_png
from attrib.seeds.formats import FORMATS, Naming, Seed
from attrib.seeds.labels import affinity_label, label_map, with_saliency

NAMES = tuple(f"class {i}" for i in range(20))
NAMING = Naming(labels=NAMES, category_ids=tuple(range(10, 30)))


def maps_of(keys, size, seed=0):
    """Maps with many equal values, so that ties between maps and with thresholds occur."""
    generator = torch.Generator().manual_seed(seed)
    h, w = size
    cam = torch.rand(len(keys), (h - 1) // 4 + 1, (w - 1) // 4 + 1, generator=generator)
    high_res = torch.rand(len(keys), h, w, generator=generator).mul(20).round().div(20)
    return SeedMaps(keys=torch.tensor(keys, dtype=torch.int64), cam=cam, high_res=high_res)


def seed_of(keys=(2, 7, 14), size=(37, 50), name="000000000139"):
    maps = maps_of(keys, size)
    return Seed(
        id=name,
        size=size,
        maps=maps,
        label=label_map(maps.high_res, maps.keys),
        affinity=affinity_label(maps.high_res, maps.keys),
        scores=(0.9, 0.25, 0.125)[: len(keys)],
        boxes=((1, 2, 30, 20), None, (0, 0, 50, 37))[: len(keys)],
    )


def write_all(folder):
    for name, format_ in FORMATS.items():
        format_.write(seed_of(), Path(folder) / f"{name}{format_.suffix}", NAMING)


# Labels


def literal_label(maps, keys, plane):
    """IRN's definition: prepend the background, take the argmax, look the name up."""
    names = np.concatenate([[0], keys.numpy() + 1])
    return names[np.concatenate([np.broadcast_to(plane, (1, *maps.shape[1:])), maps]).argmax(0)]


@pytest.mark.parametrize("keys", [(0, 3, 19), (5,), ()])
def test_labels_equal_prepend_and_argmax(keys):
    maps = maps_of(keys, (23, 31)).high_res
    keys = torch.tensor(keys, dtype=torch.int64)
    plain = maps.numpy()
    highest = np.concatenate([plain, np.zeros((1, 23, 31), np.float32)]).max(0)
    for threshold in np.float32([0, 0.25, 0.3, 0.5, 1]):
        want = literal_label(plain, keys, threshold)
        found = label_map(maps, keys, threshold=float(threshold))
        assert found.dtype == torch.uint8
        np.testing.assert_array_equal(found, want)
    for alpha in (0.5, 1, 4, 32):
        want = literal_label(plain, keys, (1 - highest) ** np.float32(alpha))
        np.testing.assert_array_equal(label_map(maps, keys, alpha=alpha), want)
    sure = literal_label(plain, keys, np.float32(0.5))
    unsure = literal_label(plain, keys, np.float32(0.2))
    want = np.where(unsure == 0, 0, np.where(sure == 0, 255, sure))
    found = affinity_label(maps, keys, foreground=0.5, background=0.2)
    np.testing.assert_array_equal(found, want)
    if len(keys):
        assert {0, 255} < set(found.unique().tolist())


def test_the_default_background_is_a_quarter():
    maps = maps_of((4, 1), (9, 9))
    assert torch.equal(
        label_map(maps.high_res, maps.keys), label_map(maps.high_res, maps.keys, threshold=0.25)
    )
    assert (maps.high_res.amax(0) == 0.25).any()


def test_saliency_marks_contradictions():
    label = torch.tensor([[0, 0, 3], [3, 255, 255]], dtype=torch.uint8)
    salient = torch.tensor([[False, True, True], [False, True, False]])
    assert with_saliency(label, salient).tolist() == [[0, 255, 3], [255, 255, 255]]
    assert label.tolist() == [[0, 0, 3], [3, 255, 255]]
    with pytest.raises(InputError, match=r"is \(2, 3\), the mask \(3, 2\)"):
        with_saliency(label, salient.T)


def test_label_errors():
    maps, key = torch.rand(1, 4, 5), torch.tensor([0])
    assert label_map(maps, torch.tensor([253]), threshold=-1.0).unique().tolist() == [254]
    for wrong in (254, -1):
        with pytest.raises(InputError, match=r"from 0 to 253, got \[-?\d+\]"):
            label_map(maps, torch.tensor([wrong]))
    with pytest.raises(InputError, match="got 1 maps and 2 keys"):
        label_map(maps, torch.tensor([0, 1]))
    with pytest.raises(InputError, match="alpha is positive, got 0"):
        label_map(maps, key, alpha=0.0)
    with pytest.raises(InputError, match=r"foreground 0\.1 is below background 0\.2"):
        affinity_label(maps, key, foreground=0.1, background=0.2)
    maps[0, 1, 1] = torch.nan
    for function in (label_map, affinity_label):
        with pytest.raises(InputError, match="hold NaN"):
            function(maps, key)


# Formats


def test_same_seed_same_bytes_also_in_another_process_at_another_time(tmp_path):
    write_all(tmp_path / "a")
    later = (
        "import sys, time; now, local = time.time, time.localtime\n"
        "time.time = lambda: now() + 1e6\n"
        "time.localtime = lambda s=None: local(now() + 1e6 if s is None else s)\n"
        "held = bytearray(12345)\n"  # so that tensors lie elsewhere
        "from tests.test_formats import write_all; write_all(sys.argv[1])"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", later, str(tmp_path / "b")], cwd=root, check=True)
    write_all(tmp_path / "c")
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) == len(FORMATS)
    for name in files:
        first, *others = ((tmp_path / x / name).read_bytes() for x in "abc")
        assert others == [first, first], name


@pytest.mark.parametrize("keys", [(2, 7, 14), (7,)])
def test_irn_file_read_the_way_irn_reads_it(tmp_path, keys):
    seed, path = seed_of(keys), tmp_path / "x.npy"
    FORMATS["irn"].write(seed, path)
    record = np.load(path, allow_pickle=True).item()
    assert list(record) == ["keys", "cam", "high_res"]
    cams = record["high_res"]
    names = np.pad(record["keys"] + 1, (1, 0), mode="constant")
    cams = np.pad(cams, ((1, 0), (0, 0), (0, 0)), mode="constant", constant_values=0.25)
    np.testing.assert_array_equal(names[np.argmax(cams, axis=0)], seed.label)
    assert isinstance(record["keys"], torch.Tensor)
    assert record["keys"].dtype == torch.int64
    assert torch.equal(torch.as_tensor(record["cam"]), seed.maps.cam)
    assert record["cam"].dtype == torch.float32
    assert record["high_res"].dtype == np.float32
    record["high_res"] += 1  # the reader may write to it


def test_irn_file_names_nothing_that_old_versions_lack(tmp_path):
    contents = FORMATS["irn"].encode(seed_of(), NAMING)
    for private in (b"_core", b"_reconstruct", b"_rebuild", b"torch._", b"storage"):
        assert private not in contents
    assert contents.startswith(b"\x93NUMPY\x01\x00")


def test_maps_come_back(tmp_path):
    for keys in ((2, 7, 14), ()):
        seed = seed_of(keys)
        for name, tolerance in (("irn", 0), ("npz", 5e-4)):
            path = tmp_path / f"x{FORMATS[name].suffix}"
            FORMATS[name].write(seed, path)
            found = FORMATS[name].read(path, allow_pickle=name == "irn")
            assert torch.equal(found.keys, seed.maps.keys)
            for got, want in ((found.cam, seed.maps.cam), (found.high_res, seed.maps.high_res)):
                torch.testing.assert_close(got, want, rtol=0, atol=tolerance)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert {k: str(v.dtype) for k, v in arrays.items()} == {
            "keys": "int64",
            "cam": "float16",
            "high_res": "float16",
        }


def test_a_file_pickled_by_irn_itself_is_read(tmp_path):
    maps = maps_of((1, 4), (20, 24))
    record = {"keys": maps.keys, "cam": maps.cam, "high_res": maps.high_res.numpy()}
    np.save(tmp_path / "x.npy", record, allow_pickle=True)
    with pytest.raises(InputError, match=r"x\.npy is a pickle, .* pass allow_pickle=True"):
        FORMATS["irn"].read(tmp_path / "x.npy")
    found = FORMATS["irn"].read(tmp_path / "x.npy", allow_pickle=True)
    assert torch.equal(found.cam, maps.cam)
    assert torch.equal(found.high_res, maps.high_res)


@pytest.mark.parametrize("name", ["label", "affinity"])
def test_label_images_have_the_voc_palette(tmp_path, name):
    seed, path = seed_of(), tmp_path / "deep" / "x.png"
    FORMATS[name].write(seed, path)
    want = getattr(seed, name)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.size == (50, 37)
        palette = np.reshape(image.getpalette(), (256, 3)).tolist()
        np.testing.assert_array_equal(np.array(image), want)
    assert palette[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette[20] == [0, 64, 128]  # the television
    assert palette[255] == [224, 224, 192]
    assert len({tuple(colour) for colour in palette}) == 256
    assert torch.equal(read_label_png(path), want)
    assert 255 in want or name == "label"


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # in its decoder
def test_rle_decodes_to_the_label(tmp_path):
    coco = pytest.importorskip("pycocotools.mask")
    seed = seed_of()
    seed = replace(seed, label=seed.label.masked_fill(seed.label == 8, 0))  # class 7 has no pixel
    FORMATS["rle"].write(seed, tmp_path / "x.json", NAMING)
    entries = json.loads((tmp_path / "x.json").read_text())
    assert [(e["image_id"], e["category_id"], e["score"]) for e in entries] == [
        (139, 12, 0.9),
        (139, 24, 0.125),
    ]
    for entry, key in zip(entries, (2, 14), strict=True):
        assert set(entry) == {"image_id", "category_id", "segmentation", "score"}
        mask = coco.decode(entry["segmentation"])
        np.testing.assert_array_equal(mask, seed.label == key + 1)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("COCO_train2014_000000000009", 9),
        ("2007_000032", "2007_000032"),
        ("a/000000000139", "a/000000000139"),
    ],
)
def test_only_coco_names_become_numbers(name, image_id):
    pytest.importorskip("pycocotools")
    entries = json.loads(FORMATS["rle"].encode(seed_of(name=name), NAMING))
    assert {e["image_id"] for e in entries} == {image_id}


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        FORMATS["rle"].encode(seed_of(), NAMING)


def test_boxes_leave_out_classes_without_one():
    entries = json.loads(FORMATS["boxes"].encode(seed_of(), NAMING))
    assert list(entries[0]) == ["id", "label", "score", "x0", "y0", "x1", "y1"]
    assert [list(entry.values()) for entry in entries] == [
        ["000000000139", "class 2", 0.9, 1, 2, 30, 20],
        ["000000000139", "class 14", 0.125, 0, 0, 50, 37],
    ]


def test_naming_must_cover_the_classes(tmp_path):
    with pytest.raises(InputError, match=r"naming\.labels has 8 entries and none for class 14"):
        FORMATS["boxes"].write(seed_of(), tmp_path / "x.json", Naming(labels=NAMES[:8]))
    with pytest.raises(InputError, match=r"naming\.category_ids has 0 entries"):
        FORMATS["rle"].write(seed_of(), tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_seeds_must_fit_together():
    seed = seed_of()
    with pytest.raises(InputError, match=r"not all of size \(37, 51\)"):
        replace(seed, size=(37, 51))
    with pytest.raises(InputError, match="3 classes, 2 scores and 3 boxes"):
        replace(seed, scores=(0.5, 0.5))
    with pytest.raises(InputError, match="are finite"):
        replace(seed, scores=(0.5, 0.5, float("nan")))
    maps = replace(seed.maps, high_res=seed.maps.high_res * 1e6)
    with pytest.raises(InputError, match="no finite half-precision values"):
        FORMATS["npz"].encode(replace(seed, maps=maps), NAMING)


# Damaged files


def npz_of(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


GOOD = {
    "keys": np.array([1, 2]),
    "cam": np.zeros((2, 3, 4), np.float16),
    "high_res": np.zeros((2, 9, 13), np.float16),
}


def bomb():
    """A small file whose header claims an array of 2 TB."""
    buffer, header = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f2", "fortran_order": False, "shape": (2, 10**6, 10**6)}
    )
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("keys", "cam"):
            array = io.BytesIO()
            np.save(array, GOOD[name])
            archive.writestr(f"{name}.npy", array.getvalue())
        archive.writestr("high_res.npy", header.getvalue() + bytes(100))
    return buffer.getvalue()


def flipped(contents):
    at = contents.index(b"cam.npy") + 60
    return contents[:at] + bytes([contents[at] ^ 255]) + contents[at + 1 :]


BAD_NPZ = {
    "claim 4000000000064 bytes": bomb(),
    "BadZipFile": npz_of(**GOOD)[:-40],
    "read: (error|BadZipFile): (Error -3|Bad CRC)": flipped(npz_of(**GOOD)),
    "no item named 'cam.npy'": npz_of(keys=GOOD["keys"], high_res=GOOD["high_res"]),
    r"keys are class indices \[n\], got float64": npz_of(**GOOD | {"keys": np.zeros(2)}),
    r"keys are class indices": npz_of(**GOOD | {"keys": np.array([1, -1])}),
    r"cam holds 2 .* got float32 \(3, 4\)": npz_of(**GOOD | {"cam": np.zeros((3, 4), "f")}),
    r"high_res holds 2 .* \(1, 9, 13\)": npz_of(**GOOD | {"high_res": np.zeros((1, 9, 13))}),
    "got uint8": npz_of(**GOOD | {"cam": np.zeros((2, 3, 4), np.uint8)}),
    "allow_pickle=False": npz_of(**GOOD | {"keys": np.array([1, None])}),
    "is not a zip file": b"",
}


@pytest.mark.parametrize("reason", BAD_NPZ)
def test_damaged_npz(tmp_path, reason):
    path = tmp_path / "x.npz"
    path.write_bytes(BAD_NPZ[reason])
    with pytest.raises(InputError, match=rf"x\.npz cannot be .*{reason}"):
        FORMATS["npz"].read(path, allow_pickle=True)


def npy_of(value):
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=True)
    return buffer.getvalue()


BAD_IRN = {
    "read: UnpicklingError: pickle data was truncated": npy_of(GOOD)[:-30],
    "plain array": npy_of(np.zeros((3, 4))),
    "has the entries keys, cam, high_res": npy_of({"keys": GOOD["keys"]}),
    "dictionary has the entries": npy_of({1, 2, 3}),
    "cam holds 2": npy_of(GOOD | {"cam": torch.zeros(3, 3, 4)}),
    "magic string": b"not an array",
}


@pytest.mark.parametrize("reason", BAD_IRN)
def test_damaged_irn_file(tmp_path, reason):
    path = tmp_path / "x.npy"
    path.write_bytes(BAD_IRN[reason])
    with pytest.raises(InputError, match=rf"x\.npy .*{reason}"):
        FORMATS["irn"].read(path, allow_pickle=True)


def test_label_images_that_are_none(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (5, 4)).save(path)
    with pytest.raises(InputError, match=r"x\.png cannot be used: .* this has mode RGB"):
        read_label_png(path)
    Image.new("P", (5, 4)).save(path, format="GIF")
    with pytest.raises(InputError, match=r"x\.png cannot be read"):
        read_label_png(path)
    path.write_bytes(FORMATS["label"].encode(seed_of(), NAMING)[:-100])
    with pytest.raises(InputError, match=r"x\.png cannot be read"):
        read_label_png(path)
    with pytest.raises(InputError, match="FileNotFoundError"):
        read_label_png(tmp_path / "y.png")


# One file for all pictures


def write_pictures(folder, name):
    for picture in ("b", "a.1", "c/z", "a"):
        seed = seed_of(name=picture)
        FORMATS[name].write(seed, folder / f"{picture}.json", NAMING)
    FORMATS[name].write(seed_of((), name="empty"), folder / "empty.json", NAMING)


@pytest.mark.parametrize(("name", "field"), [("rle", "image_id"), ("boxes", "id")])
def test_combine_orders_by_picture(tmp_path, name, field):
    if name == "rle":
        pytest.importorskip("pycocotools")
    folder, out = tmp_path / name, tmp_path / "out" / "all.json"
    write_pictures(folder, name)
    (folder / ".b.123.json").write_text("[")  # what a killed writer leaves
    combine(folder, out)
    entries = json.loads(out.read_text())
    names = [e[field] for e in entries]
    assert names == sorted(names)
    assert set(names) == {"a", "a.1", "b", "c/z"}
    single = json.loads((folder / "b.json").read_text())
    assert [e for e in entries if e[field] == "b"] == single
    first = out.read_bytes()
    combine(folder, out)
    assert out.read_bytes() == first
    assert [p.name for p in out.parent.iterdir()] == ["all.json"]


def test_combine_makes_a_table_of_boxes(tmp_path):
    write_pictures(tmp_path / "boxes", "boxes")
    combine(tmp_path / "boxes", tmp_path / "boxes.csv")
    combine(tmp_path / "boxes", tmp_path / "boxes.json")
    with (tmp_path / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    entries = json.loads((tmp_path / "boxes.json").read_text())
    assert rows == [{k: str(v) for k, v in entry.items()} for entry in entries]
    assert list(rows[0]) == ["id", "label", "score", "x0", "y0", "x1", "y1"]


def test_combine_errors_leave_the_old_file(tmp_path):
    folder, out = tmp_path / "boxes", tmp_path / "boxes.csv"
    out.write_text("old")
    with pytest.raises(InputError, match=r"holds no \.json file"):
        combine(folder, out)
    write_pictures(folder, "boxes")
    for wrong in (tmp_path / "boxes.txt", folder / "all.json"):
        with pytest.raises(InputError, match="outside of"):
            combine(folder, wrong)
    for contents, reason in (("[{", "JSONDecodeError"), ("{}", "list of"), ("[{}]", "no boxes")):
        (folder / "d.json").write_text(contents)
        with pytest.raises(InputError, match=rf"d\.json .*{reason}"):
            combine(folder, out)
    assert out.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["boxes", "boxes.csv"]


def test_combine_of_pictures_without_entries(tmp_path):
    FORMATS["boxes"].write(seed_of(()), tmp_path / "boxes" / "x.json", NAMING)
    combine(tmp_path / "boxes", tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text()) == []
