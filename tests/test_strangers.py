"""What strangers feed it: damaged and hostile files end in attrib's own errors, soon and small."""

import gzip
import io
import json
import os
import pickle
import string
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import attrib
from attrib.bottleneck.aib_attached import AttachedAIB, load_attached
from attrib.bottleneck.aib_classifier import NetworkClassifier, NetworkPlan, load_network
from attrib.bottleneck.mask_attached import AttachedMask, load_mask
from attrib.bottleneck.mask_network import MaskNetworkOptions
from attrib.datasets import COCO, CUB, BoxList, Folder, TinyImageNet, WsolMetadata
from attrib.datasets.annotation_xml import read_annotation
from attrib.datasets.digits import digits as read_digits
from attrib.datasets.label_png import read_mask
from attrib.datasets.picture_files import split_folders
from attrib.datasets.samples import BoxSample
from attrib.errors import ImageError, InputError, SpecError, WeightsError
from attrib.evaluate.wsol_maps import read_map
from attrib.fit.checkpoint import REPORT, resume
from attrib.images import read_image
from attrib.journal import Journal, claim, labels_of
from attrib.methods import Statistics
from attrib.models.load import read_state_dict
from attrib.registry import parse_spec
from attrib.seeds import FORMATS, read_label_png
from tests.models import SPEC, make

QUICK = settings(
    max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000  # more digits than Python turns into a number


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def png(**options) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
    Image.fromarray(noise).save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


# Pictures

PICTURES = [png(format=name) for name in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO")]


@QUICK
@given(st.sampled_from(PICTURES), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_a_picture_with_other_bytes_in_it_is_read_or_refused(picture, place, junk):
    place %= len(picture)
    try:
        found = read_image(picture[:place] + junk + picture[place + len(junk) :], max_pixels=10**6)
    except ImageError:
        return
    assert found.pixels.dtype == torch.uint8
    assert found.pixels[0].numel() <= 10**6


@QUICK
@given(
    st.binary(max_size=64), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0"])
)
def test_bytes_that_are_no_picture_are_refused(junk, magic):
    with pytest.raises(ImageError):
        read_image(magic + junk)


def test_a_picture_that_unpacks_to_more_than_it_says_stays_small():
    """A PNG of 4 x 4 pixels with 100 MB of zeros behind them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    head = chunk(b"IHDR", b"\0\0\0\4\0\0\0\4\x08\0\0\0\0")
    zeros = chunk(b"IDAT", zlib.compress(bytes(10**8)))
    bomb = b"\x89PNG\r\n\x1a\n" + head + zeros + chunk(b"IEND", b"")
    assert read_image(bomb).pixels.shape == (3, 4, 4)


def test_text_that_unpacks_without_end_is_refused():
    bomb = png()
    text = b"k\0\0" + zlib.compress(bytes(10**8))
    check = zlib.crc32(b"zTXt" + text).to_bytes(4, "big")
    chunk = len(text).to_bytes(4, "big") + b"zTXt" + text + check
    with pytest.raises(ImageError, match="damaged"):
        read_image(bomb[:33] + chunk + bomb[33:])


# Specs


@QUICK
@given(st.text(string.printable + "é\0", max_size=40))
def test_a_spec_of_any_text_parses_or_says_why(text):
    for spec in (text, f"cam({text})", f"infocam+(region={text})"):
        with suppress(SpecError):
            name, options = parse_spec(spec)
            assert name
            assert all(key.isidentifier() for key in options)


@pytest.mark.parametrize(
    "options",
    [
        "region=" + "(" * 500 + ")" * 500,
        "region=" + "-" * 20_000 + "1",
        f"region={LONG}",
        "region={[]: 1}",
        "region={{}}",
        "region=1, region=2",
        "region=__import__('os').getpid()",
        "region=(lambda: 1)()",
        "region=f'{1}'",
        "**{'region': 1}",
        "region=\0",
    ],
    ids=range(11),
)
def test_options_that_are_no_literals_are_refused_and_nothing_runs(options):
    with pytest.raises(SpecError, match="cannot read the options"):
        parse_spec(f"cam({options})")


# Lists of pictures and labels


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "pictures" / "a.png", png())
    write(tmp_path / "secret.png", png())
    return tmp_path / "pictures"


OUTSIDE = ["../secret.png", "/etc/passwd", "a/../../secret.png", "..\\secret.png", "C:\\a.png", "."]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_list_leads_out_of_its_folder(root, name):
    here = root.parent
    labels = write(here / "l.json", json.dumps({name: ["x"]}))
    with pytest.raises(InputError, match="within the data set's folder"):
        Folder(root, labels)
    rows = write(here / "l.csv", f"path,label,x0,y0,x1,y1\n{name},x,0,0,1,1\n")
    for read in (lambda: Folder(root, rows), lambda: BoxList(root, rows)):
        with pytest.raises(InputError, match="within the data set's folder"):
            read()
    coco = {"images": [{"id": 1, "file_name": name, "height": 1, "width": 1}]}
    content = write(here / "c.json", json.dumps(coco | {"categories": [], "annotations": []}))
    with pytest.raises(InputError, match="within the data set's folder"):
        COCO(here, "pictures", annotations=content)
    cub(here, {"images.txt": f"1 {name}\n"})
    with pytest.raises(InputError, match="within the data set's folder"):
        CUB(here)
    wsol(here, name)
    with pytest.raises(InputError, match="within the data set's folder"):
        WsolMetadata(root, here / "wsol")[0]


def cub(folder: Path, other: dict[str, str | bytes]) -> None:
    lists = {
        "classes.txt": "1 a\n",
        "images.txt": "1 a/x.jpg\n",
        "image_class_labels.txt": "1 1\n",
        "bounding_boxes.txt": "1 0 0 1 1\n",
        "train_test_split.txt": "1 0\n",
    }
    for name, content in (lists | other).items():
        write(folder / name, content)


def wsol(folder: Path, name: str, label: str = "1", box: str = "0,0,1,1") -> None:
    write(folder / "wsol" / "image_ids.txt", f"{name}\n")
    write(folder / "wsol" / "class_labels.txt", f"{name},{label}\n")
    write(folder / "wsol" / "localization.txt", f"{name},{box}\n")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "1\n"),
        ("images.txt", b"1 \xff\n"),
        ("image_class_labels.txt", "1\n"),
        ("image_class_labels.txt", "1 7\n"),
        ("bounding_boxes.txt", "1 0 0 1\n"),
        ("bounding_boxes.txt", "1 nan 0 1 1\n"),
        ("bounding_boxes.txt", "1 0 0 -1 1\n"),
        ("train_test_split.txt", "1\n"),
    ],
)
def test_damaged_lists_of_cub(tmp_path, name, content):
    cub(tmp_path, {name: content})
    with pytest.raises(InputError):
        CUB(tmp_path)[0]


@pytest.mark.parametrize(
    ("label", "box"), [(LONG, "0,0,1,1"), ("7", "0,0,1,1"), ("1", "nan,0,1,1"), ("1", "5,0,1,1")]
)
def test_damaged_lists_of_the_wsol_evaluator(root, label, box):
    wsol(root.parent, "a.png", label, box)
    with pytest.raises(InputError):
        WsolMetadata(root, root.parent / "wsol", classes=["x", "y"])[0]


@pytest.mark.parametrize("box", ["0,0,inf,1", "nan,0,1,1", "-1e308,0,1e308,1", f"0,0,{LONG},1"])
def test_boxes_without_end_are_refused(root, box):
    rows = write(root.parent / "b.csv", f"path,label,x0,y0,x1,y1\na.png,x,{box}\n")
    with pytest.raises(InputError, match="a box is"):
        BoxList(root, rows)


def json_texts() -> dict[str, str | bytes]:
    texts = {"list": "[]", "null": "null", "number": "3", "text": '"x"', "not utf-8": b"\xff\xfe"}
    texts |= {"deep": f'{{"labels": {DEEP}}}', "long": f'{{"labels": [{LONG}]}}', "cut": '{"lab'}
    return texts | {"nan": '{"labels": NaN}', "surrogate": '{"\\ud800": ["x"]}', "empty": ""}


@pytest.mark.parametrize("name", json_texts())
def test_json_of_strangers(root, name):
    content, job = json_texts()[name], root.parent / "job"
    path = write(root.parent / "x.json", content)
    write(job / "job.json", content)
    write(job / REPORT, content)
    linear = torch.nn.Linear(1, 1)
    for read in (
        lambda: Folder(root, path),
        lambda: COCO(root.parent, "pictures", annotations=path),
        lambda: claim(job, {"labels": ["x"]}),
        lambda: labels_of(job),
        lambda: resume(job, {"config": {"steps": 1}}, linear, torch.optim.SGD(linear.parameters())),
    ):
        with pytest.raises(InputError):
            read()


@QUICK
@given(
    st.dictionaries(
        st.text(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=4,
        ),
        max_size=3,
    )
)
def test_labels_of_any_json(root, content):
    path = write(root.parent / "any.json", json.dumps(content))
    with pytest.raises(InputError):
        Folder(root, path, classes=["x", "y"])


@QUICK
@given(st.text(max_size=60), st.text(max_size=20))
def test_labels_of_any_csv(root, text, name):
    for rows in (text, f"path,label\n{text}\n", f"path,label\n{name},{text}\n"):
        path = write(root.parent / "any.csv", rows.encode("utf-8", "replace"))
        with pytest.raises(InputError):
            Folder(root, path, classes=["x", "y"])


@pytest.mark.parametrize("cells", ["a" * 300 + ".png,x", f"a.png,{LONG}", "a\0.png,x", '"a.png,x'])
def test_cells_that_are_no_names_and_no_classes(root, cells):
    path = write(root.parent / "l.csv", f"path,label\n{cells}\n")
    with pytest.raises(InputError):
        Folder(root, path, classes=["x", "y"])


def test_a_journal_passes_over_what_it_cannot_read(tmp_path):
    lines = [b"[1]", b"3", b'{"id": [1], "status": "done"}', b"\xff", DEEP.encode()]
    lines += [b'{"id": %s}' % LONG.encode(), b'{"id": "a", "status": "done"}', b'{"id": "b", "st']
    write(tmp_path / "journal" / "1.jsonl", b"\n".join(lines))
    assert list(Journal(tmp_path, "1").read()) == ["a"]


@pytest.mark.parametrize("text", ['<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', "<a>" * 10**5])
def test_annotations_that_expand_or_do_not_end(tmp_path, text):
    with pytest.raises(InputError):
        read_annotation(write(tmp_path / "a.xml", text))


# Arrays and archives


def npy(shape, descr="<f4", body: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + body


def packed(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_npy", ".npy").replace("__", "/"), content)
    return buffer.getvalue()


ARRAYS = {
    "claims a terabyte": npy((10**6, 10**6)),
    "claims more than there are numbers": npy((10**30, 1)),
    "claims less than nothing": npy((-(10**12), 10**12)),
    "objects": npy((1, 1), "|O", pickle.dumps([1])),
    "cut": npy((100, 100)),
    "another version": b"\x93NUMPY\x09\x00" + bytes(200),
    "a long header": b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65_535,
    "a pickle": pickle.dumps([1]),
    "words": npy((1, 1), "<U1", bytes(4)),
    "nothing": b"",
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_strangers(tmp_path, name):
    array = ARRAYS[name]
    picture = BoxSample(id="a", picture=png(), label=0, boxes=torch.zeros(0, 4))
    for kind, content in ((".npy", array), (".npz", packed(map_npy=array))):
        folder = write(tmp_path / kind / f"a{kind}", content).parent
        with pytest.raises(InputError, match=rf"a{kind} cannot be"):
            read_map(folder, picture)
    keys, cam = npy((1,), "<i8", bytes(8)), npy((1, 1, 1), "<f4", bytes(4))
    seed = write(tmp_path / "s.npz", packed(keys_npy=keys, cam_npy=cam, high_res_npy=array))
    with pytest.raises(InputError, match=r"s\.npz cannot be"):
        FORMATS["npz"].read(seed)


@pytest.mark.parametrize("frame", [[1, 2, 3], [10**9, 10**9, 5, 5, 0, 0, 5, 5, 0, 1], [0] * 10])
def test_frames_of_strangers(tmp_path, frame):
    path = tmp_path / "a.npz"
    np.savez(path, map=np.zeros((2, 2)), frame=np.array(frame))
    picture = BoxSample(id="a", picture=png(), label=0, boxes=torch.zeros(0, 4))
    with pytest.raises(InputError, match=r"[fF]rame"):
        read_map(tmp_path, picture)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = write(tmp_path / "z.zip", packed(train__a__x=b"", **{"train__a__x.png": bytes(10**6)}))
    monkeypatch.setattr("attrib.files.MAX_BYTES", 10**5)
    with pytest.raises(InputError, match="claim 1000000 bytes, more than 100000"):
        split_folders(path)


@QUICK
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=6))
def test_an_npz_with_other_bytes_in_it_is_read_or_refused(tmp_path, place, junk):
    good = io.BytesIO()
    arrays = {"cam": np.ones((2, 3, 4), "f2"), "high_res": np.ones((2, 9, 13), "f2")}
    np.savez_compressed(good, keys=np.array([0, 2]), **arrays)
    whole = good.getvalue()
    place %= len(whole)
    path = write(tmp_path / "s.npz", whole[:place] + junk + whole[place + len(junk) :])
    with suppress(InputError):
        assert len(FORMATS["npz"].read(path).keys) == 2


def test_masks_of_strangers(tmp_path):
    for content in (b"", b"junk", png()[:60], png()):
        path = write(tmp_path / "m.png", content)
        for read in (lambda p: read_mask(p, 3), read_label_png):
            with pytest.raises(InputError):
                read(path)


# Weights


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["ATTRIB_TEST_EVIL"],)


def test_weights_run_no_code(tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    monkeypatch.setenv("ATTRIB_TEST_EVIL", str(mark))
    torch.save({"state_dict": Evil()}, tmp_path / "a.pt")
    write(tmp_path / "b.pt", pickle.dumps(Evil(), protocol=2))
    write(tmp_path / "c.npy", npy((), "|O", pickle.dumps(Evil())))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(WeightsError):
            read_state_dict(tmp_path / name)
        with pytest.raises(WeightsError):
            attrib.load_model("resnet18", weights=tmp_path / name)
    with pytest.raises(InputError, match="pickle"):
        FORMATS["irn"].read(tmp_path / "c.npy")
    assert not mark.exists()


def test_weights_that_hold_themselves(tmp_path):
    loop = {}
    loop["state_dict"] = loop
    torch.save(loop, tmp_path / "loop.pt")
    with pytest.raises(WeightsError, match="no state dict"):
        read_state_dict(tmp_path / "loop.pt")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8 + b"{", b"\x10" + bytes(7) + b"[" * 16])
def test_safetensors_of_strangers(tmp_path, content):
    path = write(tmp_path / "w.safetensors", content)
    with pytest.raises(WeightsError):
        read_state_dict(path)
    with pytest.raises(InputError):
        Statistics.load(path)


# One thing in a good file is something else


def put(content, place, value):
    """A copy of what JSON holds with another value at one of its places."""
    places = []

    def walk(node, where):
        children = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in children:
            places.append((node, key))
            if isinstance(child, dict | list):
                walk(child, (*where, key))

    copy = json.loads(json.dumps(content))
    walk(copy, ())
    node, key = places[place % len(places)]
    node[key] = value
    return copy


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 3, 2**31, 10**30, 1e308, float("nan"), float("inf")])
    | st.sampled_from(["", "1", "../x", "\0", "9" * 5000, "é"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
INSTANCES = {
    "images": [{"id": 7, "file_name": "a.png", "height": 16, "width": 12}],
    "categories": [{"id": 3, "name": "cat"}],
    "annotations": [
        {"image_id": 7, "category_id": 3, "iscrowd": 0, "bbox": [1, 2, 3, 4],
         "segmentation": [[0, 0, 9, 0, 9, 9]]},
        {"image_id": 7, "category_id": 3, "iscrowd": 1, "bbox": [1, 2, 3, 4],
         "segmentation": {"size": [16, 12], "counts": [100, 92]}},
    ],
}  # fmt: skip


@QUICK
@given(st.integers(0, 10**4), VALUES)
def test_instances_with_something_else_in_them(root, place, value):
    path = write(root.parent / "i.json", json.dumps(put(INSTANCES, place, value)))
    with suppress(InputError):
        data = COCO(root.parent, "pictures", annotations=path)
        assert data[0].picture.is_relative_to(root)
        assert data.mask(0).numel() < 10**9
        data.boxes(0)


def test_a_picture_that_claims_more_than_a_picture_can_have(root):
    claims = json.loads(json.dumps(INSTANCES))
    claims["images"][0] |= {"height": 10**6, "width": 10**6}
    claims["annotations"][0]["segmentation"] = {"size": [10**6, 10**6], "counts": [10**12]}
    path = write(root.parent / "i.json", json.dumps(claims))
    with pytest.raises(InputError, match="height and width"):
        COCO(root.parent, "pictures", annotations=path)


XML = (
    b"<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax>"
    b"<ymax>4</ymax></bndbox></object></annotation>"
)


@QUICK
@given(st.integers(0, len(XML)), st.integers(0, 9), st.binary(max_size=9))
def test_annotations_with_other_bytes_in_them(tmp_path, place, gone, junk):
    path = write(tmp_path / "a.xml", XML[:place] + junk + XML[place + gone :])
    with suppress(InputError):
        assert all(len(box) == 4 for _, box in read_annotation(path))


@QUICK
@given(st.sampled_from(["images", "classes", "image_class_labels", "bounding_boxes"]), st.text())
def test_lists_of_cub_of_any_text(tmp_path, name, text):
    cub(tmp_path, {f"{name}.txt": text.encode("utf-8", "replace")})
    with suppress(InputError):
        CUB(tmp_path)[0]


@QUICK
@given(st.sampled_from(["image_ids", "class_labels", "localization"]), st.text())
def test_lists_of_the_wsol_evaluator_of_any_text(root, name, text):
    wsol(root.parent, "a.png")
    write(root.parent / "wsol" / f"{name}.txt", text.encode("utf-8", "replace"))
    with suppress(InputError):
        WsolMetadata(root, root.parent / "wsol")[0]


@QUICK
@given(st.text(), st.text())
def test_lists_of_tiny_imagenet_of_any_text(tmp_path, wnids, boxes):
    write(tmp_path / "wnids.txt", (wnids or "n01\n").encode("utf-8", "replace"))
    write(tmp_path / "words.txt", "n01\tcat\n")
    write(tmp_path / "val" / "val_annotations.txt", boxes.encode("utf-8", "replace"))
    for split in ("val", "train"):
        with suppress(InputError):
            TinyImageNet(tmp_path, split)[0]


def test_no_class_of_tiny_imagenet_leads_out_of_its_folder(tmp_path):
    write(tmp_path / "t" / "wnids.txt", "../../out\n")
    write(tmp_path / "t" / "words.txt", "")
    write(tmp_path / "out" / "..\\..\\out_boxes.txt", "")
    with pytest.raises(InputError, match="within the data set's folder"):
        TinyImageNet(tmp_path / "t", "train")


def idx(ndim: int, sides: tuple[int, ...], body: bytes) -> bytes:
    return bytes((0, 0, 8, ndim)) + b"".join(s.to_bytes(4, "big") for s in sides) + body


def mnist(folder: Path, images: bytes, labels: bytes, suffix: str = "") -> Path:
    write(folder / "raw" / f"train-images-idx3-ubyte{suffix}", images)
    write(folder / "raw" / f"train-labels-idx1-ubyte{suffix}", labels)
    return folder


@QUICK
@given(st.integers(0, 40), st.binary(min_size=1, max_size=6))
def test_digits_with_other_bytes_in_them(tmp_path, place, junk):
    images = idx(3, (2, 28, 28), bytes(2 * 28 * 28))
    images = images[:place] + junk + images[place + len(junk) :]
    with suppress(InputError):
        read_digits(mnist(tmp_path, images, idx(1, (2,), b"\1\2")))


def test_digits_that_unpack_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("attrib.files.MAX_BYTES", 10**5)
    bomb = gzip.compress(idx(3, (2, 28, 28), bytes(10**6)))
    folder = mnist(tmp_path, bomb, gzip.compress(idx(1, (2,), b"\1\2")), ".gz")
    with pytest.raises(InputError, match="more than 100000"):
        read_digits(folder)


@pytest.mark.parametrize("name", json_texts())
def test_configurations_of_strangers(tmp_path, name):
    write(tmp_path / "config.json", json_texts()[name])
    with pytest.raises(WeightsError):
        attrib.load_model(f"local-dir:{tmp_path}")


CONFIG = {"architecture": "test_resnet", "num_classes": 2, "model_args": {},
          "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5], "std": [0.5],
                             "crop_pct": 1.0, "label_names": ["a", "b"]}}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [("architecture", 3), ("architecture", "no_such"), ("architecture", None), ("num_classes", "x"),
     ("model_args", [1]), ("model_args", {"no_such": 1}), ("pretrained_cfg", 3),
     ("pretrained_cfg", {"input_size": "x"}), ("pretrained_cfg", {"mean": 3}),
     ("pretrained_cfg", {"label_names": 3}), ("pretrained_cfg", {"crop_pct": "x"})],
)  # fmt: skip
def test_configurations_with_something_else_in_them(tmp_path, key, value):
    write(tmp_path / "config.json", json.dumps(CONFIG | {key: value}))
    save_file(
        timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "model.safetensors"
    )
    with pytest.raises(WeightsError):
        attrib.load_model(f"local-dir:{tmp_path}")


def trained(kind, tmp_path):
    """A file that attrib trained, what it holds as an entry of metadata, and what reads it."""
    classifier = attrib.split(make("plain"), spec=SPEC)
    path = tmp_path / f"{kind}.safetensors"
    if kind == "aib":
        AttachedAIB(classifier, latent=4).save(path)
        return path, lambda p: load_attached(p, classifier)
    if kind == "ib-mask":
        AttachedMask(classifier, options=MaskNetworkOptions(width=4)).save(path)
        return path, lambda p: load_mask(p, classifier)
    plan = NetworkPlan(width=0.03125, latent=4)
    spec = attrib.ModelSpec(input_size=(32, 32), labels=("a", "b"))
    NetworkClassifier(plan.make(2), plan, spec).save(path)
    return path, load_network


@pytest.mark.parametrize("kind", ["aib", "ib-mask", "aib-network"])
def test_headers_of_strangers(kind, tmp_path):
    path, load = trained(kind, tmp_path)
    load(path)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["attrib"])
    texts = [DEEP, LONG, "[]", "3", "{", json.dumps({"kind": header["kind"]})]
    texts += [
        json.dumps(put(header, i, v)) for i in range(len(header)) for v in (None, "x", [1], -1)
    ]
    for text in texts:
        save_file(tensors, path, metadata={"attrib": text})
        with suppress(WeightsError):
            load(path)


@pytest.mark.parametrize("kind", ["aib", "ib-mask", "aib-network"])
def test_trained_weights_with_other_bytes_in_them(kind, tmp_path):
    path, load = trained(kind, tmp_path)
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    for place in draw.integers(0, 3000, 30):
        path.write_bytes(whole[:place] + draw.bytes(3) + whole[place + 3 :])
        with suppress(WeightsError):
            load(path)


@pytest.mark.parametrize(
    "line", ['{"id": "%s", "status": "done"}', '{"id": "%s", "status": "done", "outcomes": 3}']
)
def test_work_of_strangers(tmp_path, line):
    picture = write(tmp_path / "a.png", png())
    attrib.compare("demo", [picture], ["cam"], metrics=["sparseness"], work=tmp_path / "work")
    write(tmp_path / "work" / "journal" / "1-of-1.jsonl", line % picture + "\n")
    with pytest.raises(InputError, match="work"):
        attrib.compare("demo", [picture], ["cam"], metrics=["sparseness"], work=tmp_path / "work")
