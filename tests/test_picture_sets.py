"""The AIB paper's data sets, from tiny files in the layouts that their archives unpack to."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from attrib.datasets import InMemory, Squashed, matched, picture_set, resized, split_folders
from attrib.datasets.crops import random_shift
from attrib.errors import InputError, UnknownNameError
from attrib.fit.loading import generator_of

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
STL10 = "airplane bird car cat deer dog horse monkey ship truck".split()


@pytest.fixture(autouse=True)
def _any_checksum(monkeypatch):
    """torchvision knows the archives' checksums, which tiny files cannot have."""
    import os

    from torchvision.datasets import cifar, stl10, svhn

    for module in (cifar, stl10, svhn):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: os.path.isfile(path))


def write_cifar(root, kind):
    """Rows of 3072 bytes, all red first; so pickled since Python 2."""
    folder = root / ("cifar-10-batches-py" if kind == 10 else "cifar-100-python")
    folder.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] if kind == 10 else ["train"]
    for n, name in enumerate([*names, "test_batch" if kind == 10 else "test"]):
        rows = np.zeros((2, 3072), np.uint8)
        rows[0, :1024], rows[1, 1024] = 200 + n, 7
        labels = {"labels": [n, 9]} if kind == 10 else {"fine_labels": [n, 99]}
        (folder / name).write_bytes(pickle.dumps({"data": rows, **labels}))
    key = "label_names" if kind == 10 else "fine_label_names"
    labels = CIFAR10 if kind == 10 else [f"class {i}" for i in range(100)]
    (folder / ("batches.meta" if kind == 10 else "meta")).write_bytes(pickle.dumps({key: labels}))


@pytest.mark.parametrize("kind", [10, 100])
def test_cifar(tmp_path, kind):
    write_cifar(tmp_path, kind)
    train = picture_set(f"cifar{kind}", tmp_path)
    assert len(train) == (10 if kind == 10 else 2)
    assert train.classes[:2].tolist() == [0, kind - 1]
    assert train.labels[:2] == (
        ("airplane", "automobile") if kind == 10 else ("class 0", "class 1")
    )
    red, green = train.read([0, 1])
    assert (red[0] == 200).all()
    assert red[1:].sum() == 0
    assert green[1, 0, 0] == green.sum() == 7
    test = picture_set(f"cifar{kind}", tmp_path, "test")
    assert len(test) == 2
    assert test.name == f"CIFAR-{kind} test"
    with pytest.raises(InputError, match="splits 'train' and 'test', got 'val'"):
        picture_set(f"cifar{kind}", tmp_path, "val")


def test_svhn(tmp_path):
    from scipy.io import savemat

    pixels = np.zeros((32, 32, 3, 3), np.uint8)
    pixels[5, 6, 2, 1] = 9
    savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": np.array([[1], [10], [9]])})
    found = picture_set("svhn", tmp_path, "test")
    assert found.classes.tolist() == [1, 0, 9]
    assert found.labels == tuple("0123456789")
    assert found.pixels[1, 2, 5, 6] == found.pixels.sum() == 9


def write_stl10(root, labels):
    folder = root / "stl10_binary"
    folder.mkdir()
    names = "train_X train_y unlabeled_X test_X test_y".split()
    for name in names:
        (folder / f"{name}.bin").write_bytes(b"")
    pixels = np.zeros((len(labels), 3, 96, 96), np.uint8)
    pixels[:, 0, :, 0] = 50  # columns come first in the file
    (folder / "test_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
    (folder / "test_y.bin").write_bytes(np.array(labels, np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join(STL10))


def test_stl10_is_matched_by_name(tmp_path):
    write_stl10(tmp_path, [1, 2, 3, 8, 7, 10])
    found = picture_set("stl10", tmp_path, "test")
    assert found.pixels.shape == (6, 3, 96, 96)
    assert (found.pixels[:, 0, :, 0] == 50).all()
    ours = resized(matched(found, CIFAR10), (32, 32))
    assert ours.labels == tuple(CIFAR10)
    names = [CIFAR10[i] for i in ours.classes]
    assert names == ["airplane", "bird", "automobile", "horse", "truck"]  # the monkey is left out
    assert ours.pixels.shape == (5, 3, 32, 32)
    assert 0 < ours.pixels[0, 0, 0, 0] < 50
    known = matched(found, CIFAR10, {})
    assert len(known) == 4
    with pytest.raises(InputError, match="none of"):
        matched(found, ["oak"])


@pytest.mark.parametrize("packed", [False, True])
def test_folders_and_zips_of_splits(tmp_path, packed):
    root = tmp_path / "pictures"
    for split, count in (("train", 2), ("test", 1)):
        for label in ("b", "a"):
            for i in range(count):
                path = root / split / label / f"{i:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (6, 4), (ord(label), i, 0)).save(path)
    (root / "train" / "a" / "notes.txt").write_text("no picture")
    if packed:
        with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
            for path in root.rglob("*.*"):
                archive.write(path, path.relative_to(root))
        root = tmp_path / "pictures.zip"
    train = picture_set("splits", root)
    assert (train.name, train.labels) == ("pictures train", ("a", "b"))
    assert train.classes.tolist() == [0, 0, 1, 1]
    assert train.pixels[:, 0, 0, 0].tolist() == [97, 97, 98, 98]
    assert train.pixels[:, 1, 0, 0].tolist() == [0, 1, 0, 1]
    assert len(split_folders(root, "test")) == 2
    with pytest.raises(InputError, match=r"holds no pictures val/CLASS/NAME\.jpg"):
        split_folders(root, "val")


def test_pictures_of_several_sizes_are_refused(tmp_path):
    for i in (1, 2):
        (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (i, 4)).save(tmp_path / "train" / "a" / f"{i}.png")
    with pytest.raises(InputError, match=r"of one size, got \[\(4, 1\), \(4, 2\)\]"):
        split_folders(tmp_path)


def test_cub_is_read_at_224_pixels(tmp_path):
    lists = {
        "images": "1 001.A/x.png\n2 002.B/y.png",
        "classes": "1 001.A\n2 002.B",
        "image_class_labels": "1 1\n2 2",
        "bounding_boxes": "1 0 0 2 2\n2 0 0 2 2",
        "train_test_split": "1 1\n2 1",
    }
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text + "\n")
    for path, colour in (("001.A/x.png", (3, 4, 5)), ("002.B/y.png", (255, 0, 1))):
        (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), colour).save(tmp_path / "images" / path)
    found = picture_set("cub", tmp_path)
    assert isinstance(found, Squashed)
    assert found.classes.tolist() == [0, 1]
    assert found.spec.input_size == (224, 224)
    pixels = found.read([1, 0])
    assert pixels.shape == (2, 3, 224, 224)
    assert pixels[:, :, 100, 100].tolist() == [[255, 0, 1], [3, 4, 5]]


def test_what_is_not_there(tmp_path):
    for name, expected in (
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("svhn", "SPLIT_32x32"),
        ("stl10", "stl10_binary"),
    ):
        with pytest.raises(InputError, match=f"expected .*{expected}.* Nothing is downloaded"):
            picture_set(name, tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
        picture_set("cifar-10", tmp_path)
    (tmp_path / "no.zip").write_text("text")
    with pytest.raises(InputError, match=r"no\.zip cannot be read"):
        picture_set("splits", tmp_path / "no.zip")


def test_mean_and_deviation_are_the_pictures(monkeypatch):
    pixels = torch.randint(0, 256, (9, 3, 5, 4), dtype=torch.uint8)
    made = InMemory(name="x", labels=("a",), pixels=pixels, classes=torch.zeros(9, dtype=int))
    values = pixels.double() / 255
    assert made.spec.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert made.spec.std == pytest.approx(values.std((0, 2, 3)).tolist(), abs=1e-4)
    assert made.spec.input_size == (5, 4)
    other = InMemory(name="x", labels=("a", "b"), pixels=pixels, classes=torch.arange(9) % 2)
    assert other.digest != made.digest
    with pytest.raises(InputError, match="are 0 to 0, got 0 to 1"):
        InMemory(name="x", labels=("a",), pixels=pixels, classes=torch.arange(9) % 2)
    with pytest.raises(InputError, match="0 pictures and 0 classes"):
        InMemory(name="x", labels=("a",), pixels=pixels[:0], classes=torch.zeros(0, dtype=int))


def literal_shift(picture, top, left, mirrored, pad):
    """NumPy's mirror padding, a window, and perhaps its mirror image."""
    padded = np.pad(picture.numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    height, width = picture.shape[1:]
    cut = padded[:, top + pad : top + pad + height, left + pad : left + pad + width]
    return cut[:, :, ::-1] if mirrored else cut


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("pad", [0, 3])
def test_shifts_are_the_literal_ones(flip, pad):
    pixels = torch.randint(0, 256, (20, 3, 6, 5), dtype=torch.uint8)
    found = random_shift(pixels, pad, generator_of(3), flip)
    generator = generator_of(3)
    top, left = torch.randint(-pad, pad + 1, (2, 20, 1), generator=generator)
    mirrored = torch.randint(0, 2, (20, 1), generator=generator) == 1
    for i in range(20):
        arguments = (top[i].item(), left[i].item(), flip and mirrored[i].item(), pad)
        np.testing.assert_array_equal(found[i], literal_shift(pixels[i], *arguments))
    with pytest.raises(InputError, match="less than 5 pixels, got 5"):
        random_shift(pixels, 5, generator_of(0))
