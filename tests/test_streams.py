"""Pictures on their way to a GPU that is not there: in a stream of their own, and waited for."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import io as torchvision_io

from attrib.datasets import Scenes
from attrib.datasets.labelled import LabelledSample
from attrib.errors import ImageError
from attrib.images import Reader, pixels_on, preprocess, read_image
from attrib.methods import CAM
from attrib.seeds import SeedOptions, seed_views
from attrib.seeds.maker import SeedMaker
from attrib.transfer import Sender, Sent
from attrib.types import ModelSpec
from tests.test_device import RESULTS, explainers

GPU = torch.device("cuda", 0)
pytestmark = pytest.mark.filterwarnings("ignore::attrib.errors.DegenerateMapWarning")


def pixels(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def jpeg(seed: int, **options: object) -> bytes:
    stream = io.BytesIO()
    scene = Scenes(length=1, size=64, seed=seed)[0].image.permute(1, 2, 0).numpy()
    Image.fromarray(scene[:40, :60]).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.fixture
def nvjpeg(waits, monkeypatch):
    """Decodes as torchvision does on the CPU; the sizes of its batches."""
    plain, calls = torchvision_io.decode_jpeg, []

    def decode(files, mode, device):
        calls.append(len(files))
        found = plain(files, mode)
        return [x.to(device, non_blocking=True) for x in found] if device.type == "cuda" else found

    monkeypatch.setattr("torchvision.io.decode_jpeg", decode)
    monkeypatch.setattr("attrib.images.reader._try", lambda _device: None)
    return calls


# The instrument, and what it finds


def test_what_is_sent_is_waited_for_and_kept(waits):
    (sent,) = Sender(GPU)([torch.arange(3)])
    assert sent.tensor.device == GPU
    with pytest.raises(RuntimeError, match="another stream may not have made yet"):
        sent.tensor + 1
    there = sent.here() + 1
    assert waits == []
    assert there.cpu().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("forgotten", "told"), [("wait_event", "not have made yet"), ("record_stream", "may reuse")]
)
def test_what_is_forgotten_is_found(forgotten, told, waits, monkeypatch):
    (sent,) = Sender(GPU)([torch.arange(3)])
    owner = torch.cuda.Stream if forgotten == "wait_event" else type(sent.tensor)
    monkeypatch.setattr(owner, forgotten, lambda *_: None)
    with pytest.raises(RuntimeError, match=told):
        sent.here() + 1


def test_on_the_cpu_nothing_is_done():
    sender, x = Sender(torch.device("cpu")), torch.arange(3)
    with sender.aside():
        (sent,) = sender([x])
    assert sent.here() is x
    assert sent.event is None
    (picture,) = (read.result() for _, read in Reader(torch.device("cpu")).ahead(
        [pixels(0)], lambda x: x, depth=1
    ))  # fmt: skip
    assert picture.sent is None


def test_a_tensor_that_is_there_is_not_awaited():
    x = torch.arange(3)
    assert Sent(tensor=x).here() is x


# Pictures


@pytest.mark.parametrize("readers", [0, 2])
def test_pictures_are_sent_ahead_in_order(readers, waits):
    given = [pixels(i, 8 + i) for i in range(5)]
    reads = Reader(GPU).ahead(enumerate(given), lambda pair: pair[1], readers=readers, depth=2)
    for want, ((_, item), read) in zip(given, reads, strict=True):
        picture = read.result()
        assert item is want
        assert picture.pixels.device.type == "cpu"
        there = pixels_on(picture, GPU)
        assert there.device == GPU
        assert torch.equal(there.cpu(), read_image(want).pixels)


def test_an_error_on_the_way_belongs_to_its_picture(waits, tmp_path):
    given = [pixels(0), tmp_path / "none.png", pixels(2)]
    reads = [read for _, read in Reader(GPU).ahead(given, lambda x: x, depth=3)]
    with pytest.raises(ImageError, match="does not exist"):
        reads[1].result()
    assert all(reads[i].result().sent is not None for i in (0, 2))


def test_explaining_files_waits_for_results_alone(waits, tmp_path):
    here, there = explainers("infocam+", "plain", fit="crop")
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.fromarray(pixels(i)).save(path)
    want = here.explain(paths, 1, batch_size=2)
    waits.clear()
    found = there.explain(paths, 1, batch_size=2)
    assert waits == 4 * RESULTS  # two in each batch
    for one, other in zip(want, found, strict=True):
        torch.testing.assert_close(
            other.localization.boxes.cpu(), one.localization.boxes, rtol=0, atol=1
        )
        assert other.picture.sent is None
        assert other.picture.pixels.device.type == "cpu"


def test_jpegs_are_decoded_there_at_once(nvjpeg, waits):
    here, there = explainers("infocam+", "plain", fit="crop", decode="device")
    files = [jpeg(0), jpeg(1), pixels(2), jpeg(3)]
    want = here.explain(files, 1)
    nvjpeg.clear(), waits.clear()
    found = there.explain(files, 1)
    assert nvjpeg == [3]
    assert waits == 2 * RESULTS
    for one, other in zip(want, found, strict=True):
        torch.testing.assert_close(
            other.localization.boxes.cpu(), one.localization.boxes, rtol=0, atol=1
        )
    assert [e.picture.pixels.device.type for e in found] == ["cuda", "cuda", "cpu", "cuda"]


def test_a_damaged_file_is_found_among_those_decoded_at_once(nvjpeg, waits):
    cut = jpeg(1)
    files = [jpeg(0), cut[:2] + cut[-2:], cut[: len(cut) // 2], jpeg(3)]
    reads = Reader(GPU, "device").ahead(files, lambda x: x, depth=4)
    reads = [read for _, read in reads]
    for bad in (1, 2):
        with pytest.raises(ImageError, match=r"a picture of \d+ bytes is"):
            reads[bad].result()
    for good in (0, 3):
        there = pixels_on(reads[good].result(), GPU)
        assert torch.equal(there.cpu(), read_image(files[good]).pixels)


def test_preprocessing_does_not_wait_for_what_was_sent(waits):
    (read,) = (read for _, read in Reader(GPU).ahead([pixels(0)], lambda x: x, depth=1))
    waits.clear()
    images, _ = preprocess([read.result()], ModelSpec(), device=GPU)
    assert waits == []
    want, _ = preprocess([read_image(pixels(0))], ModelSpec())
    torch.testing.assert_close(images.cpu(), want, rtol=0, atol=1 / 255 / 0.22)


# Seeds


@pytest.mark.parametrize("size", [None, (32, 48)])
def test_views_made_there_are_those_of_pillow(size, waits):
    picture = read_image(jpeg(4))
    want = seed_views(picture, ModelSpec(), size=size)
    waits.clear()
    there = replace(picture, pixels=picture.pixels.to(GPU, non_blocking=True))
    found = seed_views(there, ModelSpec(), size=size)
    assert waits == []
    for one, other in zip(want, found, strict=True):
        levels = torch.tensor(ModelSpec().std)[:, None, None] * 255
        assert other.device == GPU
        assert float(((other.cpu() - one) * levels).abs().max()) < 2 + 1e-3


@pytest.mark.parametrize("refine", [None, "pamr"])
@pytest.mark.parametrize("decode", ["pillow", "device"])
def test_seeds_are_those_of_the_cpu(decode, refine, nvjpeg, waits, tmp_path):
    here, there = (one.classifier for one in explainers("cam", "plain"))
    options = SeedOptions(scales=(1.0, 0.5), refine=refine)
    (tmp_path / "a.jpg").write_bytes(jpeg(5))
    sample = LabelledSample(id="a", picture=tmp_path / "a.jpg", labels=(1, 3))
    seeds = []
    for classifier in (here, there):
        maker = SeedMaker(classifier, CAM(), options, decode)
        picture, views, salient = maker.read(sample)
        waits.clear()
        seeds.append(maker(sample, picture, views, salient))
    want, found = seeds
    checks, results = 2 * ["labels.py _strongest"], 5 * ["maker.py __call__"]
    assert sorted(waits) == checks + results + RESULTS  # maps, labels and scores; then the boxes
    torch.testing.assert_close(found.maps.high_res, want.maps.high_res, rtol=0, atol=0.05)
    assert found.scores == pytest.approx(want.scores, abs=1e-2)
