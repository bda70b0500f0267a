"""JPEG files decoded by torchvision, on the CPU beside Pillow, which is its own reference."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from attrib.datasets import BoxList, Folder, Scenes
from attrib.datasets.scenes import CLASSES
from attrib.errors import ImageError, InputError
from attrib.evaluate import evaluate_wsol
from attrib.images import Reader, read_image
from attrib.images.jpeg import Jpeg, _is_whole, decode_jpegs, jpeg_or_picture
from attrib.images.picture import read_by
from attrib.metrics import wsol_protocols
from attrib.seeds import SeedOptions, make_seeds

CPU = torch.device("cpu")
ROUNDING = 2
"""Of 255, by which decoders may differ; those of the versions tried differ by nothing."""


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(CPU, "device")


def scene(height: int = 61, width: int = 84, seed: int = 1) -> Image.Image:
    found = Scenes(length=1, size=96, seed=seed)[0].image.permute(1, 2, 0).numpy()
    return Image.fromarray(found[:height, :width])


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def orientated(value: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return jpeg(scene(), exif=exif)


def thumbed() -> bytes:
    """A JPEG with a whole JPEG in its header, as cameras write."""
    thumb, file = jpeg(scene(16, 16)), jpeg(scene())
    segment = b"\xff\xec" + (len(thumb) + 2).to_bytes(2, "big") + thumb
    return file[:2] + segment + file[2:]


FILES = {
    "plain": jpeg(scene()),
    "progressive": jpeg(scene(), progressive=True),
    "full-chroma": jpeg(scene(), subsampling=0),
    "restarts": jpeg(scene(), restart_marker_blocks=2),
    "grey": jpeg(scene().convert("L")),
    "odd": jpeg(scene(17, 3)),
    "thumbnail": thumbed(),
    "followed": jpeg(scene()) + b"\xff\xda of a film \xff\xd8",
    **{f"orientation-{value}": orientated(value) for value in range(1, 9)},
}


def same(found: attrib.images.Picture, want: attrib.images.Picture) -> None:
    assert found.orientation == want.orientation
    assert found.pixels.shape == want.pixels.shape
    assert found.pixels.is_contiguous()
    assert int((found.pixels.int() - want.pixels.int()).abs().max()) <= ROUNDING


@pytest.mark.parametrize("name", FILES)
def test_a_jpeg_is_what_pillow_makes_of_it(name, reader):
    assert isinstance(read_by(FILES[name], jpeg_or_picture), Jpeg)
    same(reader.read(FILES[name]), read_image(FILES[name]))


@pytest.mark.parametrize("kind", ["png", "cmyk", "stored-rgb", "array", "opened"])
def test_what_is_no_plain_jpeg_is_left_to_pillow(kind, reader, monkeypatch):
    monkeypatch.setattr("attrib.images.reader.decode_jpegs", None)
    stream = io.BytesIO()
    scene().save(stream, "PNG")
    given = {
        "png": stream.getvalue(),
        "cmyk": jpeg(scene().convert("CMYK")),
        "stored-rgb": jpeg(scene(), keep_rgb=True),
        "array": np.asarray(scene()),
        "opened": scene(),
    }[kind]
    assert torch.equal(reader.read(given).pixels, read_image(given).pixels)


def test_files_of_all_kinds_are_decoded_at_once():
    jpegs = [read_by(file, jpeg_or_picture) for file in FILES.values()]
    for found, file in zip(decode_jpegs(jpegs, CPU), FILES.values(), strict=True):
        same(found, read_image(file))


def test_of_several_the_damaged_one_alone_fails():
    good, bad = FILES["plain"], FILES["plain"][:2] + FILES["plain"][-2:]
    data = torch.frombuffer(bytearray(bad), dtype=torch.uint8)
    broken = Jpeg(data=data, grey=False, orientation=1, what="'bad.jpg'")
    first, second, third = decode_jpegs(
        [read_by(good, jpeg_or_picture), broken, read_by(FILES["grey"], jpeg_or_picture)], CPU
    )
    same(first, read_image(good))
    same(third, read_image(FILES["grey"]))
    assert isinstance(second, ImageError)
    assert str(second).startswith("'bad.jpg' is damaged or incomplete: RuntimeError")
    assert "decode='pillow' may read it" in str(second)


@pytest.mark.parametrize("name", ["plain", "progressive", "restarts", "thumbnail"])
@pytest.mark.parametrize("left", [0.3, 0.7, 0.999])
def test_a_cut_file_is_refused_as_by_pillow(name, left, reader, tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(FILES[name][: int(left * len(FILES[name]))])
    for read in (reader.read, read_image):
        with pytest.raises(ImageError, match=r"cut\.jpg' is damaged or incomplete"):
            read(path)


@pytest.mark.parametrize("name", FILES)
def test_only_whole_files_are_whole(name):
    whole = FILES[name]
    assert _is_whole(whole)
    end = whole.rindex(b"\xff\xd9")
    assert not any(_is_whole(whole[:at]) for at in range(2, end + 2, 7))


def test_files_that_are_none_are_refused_as_ever(reader, tmp_path, monkeypatch):
    (tmp_path / "text.jpg").write_text("no picture")
    for path in (tmp_path / "text.jpg", tmp_path / "none.jpg", tmp_path, "https://x.org/a.jpg"):
        with pytest.raises(ImageError) as want:
            read_image(path)
        with pytest.raises(ImageError) as found:
            reader.read(path)
        assert str(found.value) == str(want.value)
    monkeypatch.setattr("attrib.images.jpeg.MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="more than max_pixels=100, and was not decoded"):
        reader.read(FILES["plain"])


def test_a_torchvision_that_cannot_is_refused_before_any_work(monkeypatch):
    def missing(*_):
        raise RuntimeError("not compiled with JPEG support")

    monkeypatch.setattr("torchvision.io.decode_jpeg", missing)
    monkeypatch.setattr("attrib.images.reader._try", attrib.images.reader._try.__wrapped__)
    with pytest.raises(InputError, match="cannot decode JPEGs on cpu here; leave decode='pillow'"):
        attrib.Explainer("demo", decode="device")


def test_another_decoder_is_none():
    with pytest.raises(InputError, match="decode is 'pillow' or 'device', got 'gpu'"):
        Reader.__init__.__wrapped__(Reader.__new__(Reader), CPU, "gpu")


# The ways in which pictures are read


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Pictures as JPEG files with labels and boxes; one lies on its side, one is a PNG."""
    root, rows, boxes = tmp_path_factory.mktemp("jpegs"), ["path,labels"], []
    for i in range(4):
        one = Scenes(length=4, size=64 + 8 * i, seed=5)[i]
        image, name = Image.fromarray(one.image.permute(1, 2, 0).numpy()), f"p{i}.jpg"
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6 if i == 1 else 1
        if i == 2:
            image.save(root / (name := "p2.png"))
        else:
            image.save(root / name, exif=exif, quality=95)
        rows.append(f"{name},{CLASSES[one.label]}")
        boxes.append(f"{name},{CLASSES[one.label]},4,4,40,40")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    (root / "boxes.csv").write_text("\n".join(["image,label,x0,y0,x1,y1", *boxes]) + "\n")
    return root


def paths(root):
    return sorted(path for path in root.iterdir() if path.suffix != ".csv")


def test_explanations_are_the_same_and_say_who_decoded(root):
    here, there = (attrib.Explainer("demo", decode=kind) for kind in ("pillow", "device"))
    want, found = here.explain(paths(root)), there.explain(paths(root))
    for one, other in zip(want, found, strict=True):
        assert one.box == other.box
        assert one.picture.orientation == other.picture.orientation
        torch.testing.assert_close(one.heatmap, other.heatmap, rtol=0, atol=0.05)
        told, before = other.to_dict()["model"], one.to_dict()["model"]
        assert told["preprocessing"].pop("decode") == "torchvision"
        assert told == before
    (alone,) = [there.explain(paths(root)[1])]
    torch.testing.assert_close(alone.heatmap, found[1].heatmap, rtol=0, atol=1e-4)


def test_a_bad_one_of_several_is_named(root, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(FILES["plain"][:500])
    with pytest.raises(ImageError, match=r"^picture 2: .*cut\.jpg' is damaged"):
        attrib.explain("demo", [*paths(root)[:2], tmp_path / "cut.jpg"], decode="device")


def test_a_seed_job_does_not_mix_decoders(root, tmp_path):
    data = Folder(root, root / "labels.csv", classes=CLASSES)
    options = SeedOptions(scales=(1.0,), formats=("label", "boxes"))
    jobs = {}
    for kind in ("pillow", "device"):
        explainer = attrib.Explainer("demo", "cam", decode=kind)
        assert make_seeds(explainer, data, tmp_path / kind, options).made == 4
        jobs[kind] = json.loads((tmp_path / kind / "job.json").read_text())
    assert jobs["device"].pop("decode").startswith("torchvision ")
    assert jobs["device"] == jobs["pillow"]
    boxes = [(tmp_path / kind / "boxes.json").read_text() for kind in jobs]
    assert boxes[0] == boxes[1]
    with pytest.raises(InputError, match="decode"):
        make_seeds(attrib.Explainer("demo", "cam", decode="device"), data, tmp_path / "pillow")


def test_scores_and_comparisons_are_the_same_and_say_it(root, tmp_path):
    data = BoxList(root, root / "boxes.csv", classes=CLASSES)
    scores, tables = [], []
    for kind in ("pillow", "device"):
        explainer = attrib.Explainer("demo", "cam", decode=kind)
        scores.append(evaluate_wsol(explainer, data, wsol_protocols("infocam", boxes=True)))
        table = attrib.compare("demo", data, ["cam"], "true", metrics=["gt-known"], decode=kind)
        tables.append(table.to_dict())
    assert scores[0]["protocols"] == scores[1]["protocols"]
    assert tables[0]["methods"][0]["scores"] == tables[1]["methods"][0]["scores"]
    for told in (scores[1]["made_by"], tables[1]["model"]):
        assert told["preprocessing"]["decode"] == "torchvision"


def test_the_command_takes_it(root):
    run = CliRunner()
    given = [str(path) for path in paths(root)]
    done = run.invoke(app, ["explain", *given, "-m", "demo", "--decode", "device", "--json"])
    assert done.exit_code == 0, done.output
    models = [answer["model"] for answer in json.loads(done.stdout)]
    assert all(model["preprocessing"]["decode"] == "torchvision" for model in models)


def test_real_photographs(shared, reader):
    files = sorted((shared / "data/VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))[:10]
    for file in files:
        same(reader.read(file), read_image(file))
