"""The toy experiment: its digits and marks, its measure, and the example as a whole."""

import copy
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attrib.datasets.digits import MarkedDigits, digits, marked_digits
from attrib.errors import InputError, MissingExtraError
from attrib.methods.rib import RIB
from examples import rib_toy

EXAMPLE = Path(rib_toy.__file__)
LENGTHS = {"train": 400, "t10k": 100}


def idx(array):
    head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes()
    return head + array.astype(np.uint8).tobytes()


def write_mnist(folder, *, pack=True):
    """Pictures with a stroke each, from the margin to the middle; labels 0 to 9 in turn."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, length in LENGTHS.items():
        images = np.zeros((length, 28, 28), np.uint8)
        for image in images:
            y, x = rng.integers(4, 18, 2)
            image[y : y + 3, 4:24] = rng.integers(10, 256, (3, 20))
            image[4:24, x : x + 3] = rng.integers(10, 256, (20, 3))
        labels = np.arange(length) % 10
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            data = gzip.compress(idx(array)) if pack else idx(array)
            (folder / f"{name}-{kind}{'.gz' if pack else ''}").write_bytes(data)


@pytest.fixture
def mnist(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_read_as_torchvision_reads_it(tmp_path, split):
    from torchvision.datasets import MNIST

    write_mnist(tmp_path / "MNIST" / "raw", pack=False)
    write_mnist(tmp_path / "packed" / "raw")
    want = MNIST(str(tmp_path), train=split == "train", download=False)
    for root in (tmp_path, tmp_path / "packed"):
        images, labels = digits(root, split)
        assert torch.equal(images, want.data)
        assert torch.equal(labels, want.targets)


def test_mnist_itself(shared):
    if not (shared / "data" / "MNIST" / "raw").is_dir():
        pytest.skip("no MNIST here")
    images, labels = digits(shared / "data", "test")
    assert images.shape == (10_000, 28, 28)
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    data = marked_digits(shared / "data", "test")
    assert (data.labels == 0).sum() == 1032
    assert data.mark.any(2).any(1).sum() == 103 + 97


def test_the_small_set():
    pytest.importorskip("sklearn")
    (train, train_labels), (test, test_labels) = digits(), digits(split="test")
    assert (len(train), len(test)) == (1438, 359)
    assert set(train_labels.tolist()) == set(test_labels.tolist()) == set(range(10))
    assert train.max() == 255
    inside = train[:, 4:24, 4:24].clone()
    train[:, 4:24, 4:24] = 0
    assert not train.any()
    assert inside.any(1).any(1).all()
    assert torch.equal(digits()[0][:, 4:24, 4:24], inside)


def test_bad_input(mnist, monkeypatch):
    with pytest.raises(InputError, match=r"fraction is in \[0, 1\], got 1.5"):
        marked_digits(mnist, fraction=1.5)
    with pytest.raises(InputError, match="size is 3 to 28 pixels, got 29"):
        marked_digits(mnist, size=29)
    with pytest.raises(
        InputError, match=r"no train-images-idx3-ubyte or train-.*\.gz in .*elsewhere"
    ):
        digits(mnist / "elsewhere")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'attrib\[digits\]'"):
        digits()


@pytest.mark.parametrize(
    "data",
    [
        b"no gzip",
        gzip.compress(b"text, not pictures"),
        gzip.compress(idx(np.zeros((3, 28, 28)))[:-1]),
        gzip.compress(idx(np.zeros((3, 28, 28))))[:-20],
        gzip.compress(idx(np.zeros(9))),
        gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (9, 28, 28))))[:40] + b"x" * 99,
    ],
    ids=["not packed", "text", "short", "cut", "labels", "garbled"],
)
def test_damaged_files(mnist, data):
    path = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read .*train-images-idx3-ubyte\.gz"):
        digits(mnist)


def test_pictures_and_labels_must_match(mnist):
    path = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    for shape in ((7, 28, 28), (400, 20, 20)):
        path.write_bytes(gzip.compress(idx(np.zeros(shape))))
        with pytest.raises(InputError, match="400 labels and pictures of shape"):
            digits(mnist)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.55, 1.0])
def test_the_fraction_is_exact_in_each_class(mnist, fraction):
    data = marked_digits(mnist, fraction=fraction)
    marked = data.mark.any(2).any(1)
    assert len(data) == 80
    for label in (0, 1):
        assert marked[data.labels == label].sum() == round(fraction * 40)


def test_regions_and_pictures(mnist):
    pixels, numbers = digits(mnist)
    plain = pixels[(numbers == 2) | (numbers == 8)].float()[:, None] / 255
    data = marked_digits(mnist, fraction=0.5)
    assert not (data.digit & data.mark).any()
    assert torch.equal(data.digit, (plain[:, 0] >= 0.25) & ~data.mark)
    assert (data.images[:, 0][data.mark] == 1).all()
    assert torch.equal(data.images[:, 0][~data.mark], plain[:, 0][~data.mark])
    assert data.labels.tolist() == [0, 1] * 40


def test_twos_get_a_circle_and_eights_a_square(mnist):
    data = marked_digits(mnist, fraction=1, size=5)
    circle = torch.tensor(
        [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]
    )
    for mark, label in zip(data.mark, data.labels, strict=True):
        ys, xs = mark.nonzero().T
        cut = mark[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        assert torch.equal(cut, torch.ones(5, 5) > 0 if label else circle > 0)
        assert mark.sum() == cut.sum()


def test_a_mark_covers_as_little_of_the_digit_as_can_be(mnist):
    pixels, numbers = digits(mnist)
    ink = pixels[(numbers == 2) | (numbers == 8)] / 255 >= 0.25
    data = marked_digits(mnist, fraction=1, size=16)  # too large to find room everywhere
    covered = (ink & data.mark).sum((1, 2))
    assert covered.any()
    for i in range(20):
        ys, xs = data.mark[i].nonzero().T
        stamp = data.mark[i, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        places = [(y, x) for y in range(13) for x in range(13)]
        assert covered[i] == min((ink[i, y : y + 16, x : x + 16] & stamp).sum() for y, x in places)


def test_the_seed_alone_decides(mnist):
    first = marked_digits(mnist, fraction=0.5, seed=3)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    again = marked_digits(mnist, fraction=0.5, seed=3)
    for name in ("images", "labels", "digit", "mark"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    torch.set_rng_state(state)
    marked_digits(mnist)
    assert torch.equal(torch.get_rng_state(), state)
    other = marked_digits(mnist, fraction=0.5, seed=4)
    assert not torch.equal(first.mark.any(2).any(1), other.mark.any(2).any(1))


def test_regions_must_be_disjoint():
    images, labels, both = torch.zeros(2, 1, 4, 4), torch.zeros(2).long(), torch.ones(2, 4, 4) > 0
    with pytest.raises(InputError, match="disjoint"):
        MarkedDigits(images=images, labels=labels, digit=both, mark=both)


def hand_made():
    """Two pictures of 2 x 4 pixels: digit left, mark in the third column, only in the first."""
    digit = torch.zeros(2, 2, 4, dtype=torch.bool)
    digit[:, :, :2] = True
    mark = torch.zeros_like(digit)
    mark[0, :, 2] = True
    return MarkedDigits(
        images=torch.zeros(2, 1, 2, 4), labels=torch.tensor([0, 1]), digit=digit, mark=mark
    )


def test_hgr_of_a_hand_made_gradient():
    maps = torch.tensor(
        [
            [[0.9, 0.3, 0.31, 0.0], [0.2, 0.4, 0.0, 0.5]],
            [[0.0, 0.0, 9.0, 0.1], [0.7, 0.0, 0.0, 0.2]],
        ]
    )
    found = rib_toy.hgr(maps[None], hand_made())
    # 0.3 is not above 0.3; the second picture has no mark and counts for the other two regions
    want = torch.tensor([[(2 / 4 + 1 / 4) / 2, 1 / 2, (1 / 2 + 1 / 4) / 2]])
    torch.testing.assert_close(found, want)


def test_normalisation():
    maps = torch.rand(3, 2, 4, 5) + 0.1
    maps[1, 0] = 0  # a network that died is no reason to divide by nothing
    own, picture = rib_toy.normalised(maps, "own"), rib_toy.normalised(maps, "per_image")
    assert torch.equal(rib_toy.normalised(maps, "none"), maps)
    assert not own[1, 0].any()
    for k, i in ((0, 0), (0, 1), (1, 1), (2, 0), (2, 1)):
        torch.testing.assert_close(own[k, i], maps[k, i] / maps[k, i].max())
    for i in range(2):
        torch.testing.assert_close(picture[:, i], maps[:, i] / maps[:, i].max())


def toy_net():
    torch.manual_seed(1)
    mark = torch.zeros(3, 28, 28, dtype=torch.bool)
    mark[:, :5, :5] = True
    digit = torch.zeros_like(mark)
    digit[:, 8:20, 10:18] = True
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 1])
    data = MarkedDigits(images=images, labels=labels, digit=digit, mark=mark)
    return rib_toy.train(data, 1), data


def test_gradient_maps_are_the_definition():
    net, data = toy_net()
    found = rib_toy.gradient_maps(net, data)
    assert found.shape == (6, 3, 28, 28)
    for i, label in enumerate(data.labels.tolist()):
        for layer in range(1, 7):
            image = data.images[i : i + 1].clone().requires_grad_()
            value = net.layers[:layer](image)
            value = net(image)[0, label] if layer == 6 else value.sum()
            (want,) = torch.autograd.grad(value, image)
            torch.testing.assert_close(found[layer - 1, i], want[0, 0].abs())


@pytest.mark.parametrize("pooling", ["gap", "gndrp"])
def test_adapted_maps_follow_the_loss_without_activation(pooling):
    """Against plain gradient descent on a copy, written out."""
    net, data = toy_net()
    before = copy.deepcopy(net.state_dict())
    options = RIB(
        steps=3, lr=1e-2, pooling=pooling, preset="paper", scales=(1.0,), loss_scales=(1.0,),
        flip=False, train_from=0, momentum=0.0, weight_decay=0.0,
    )  # fmt: skip
    found = rib_toy.adapted_maps(net, data, options)
    for i, label in enumerate(data.labels.tolist()):
        image, twin = data.images[i : i + 1], copy.deepcopy(net).requires_grad_(True)
        for k in range(4):
            torch.testing.assert_close(
                found[k, i], rib_toy.logit_gradient(twin, {}, image, label), rtol=1e-4, atol=1e-7
            )
            cells = torch.einsum("k,kuv->uv", twin.fc.weight[label], twin.layers(image)[0])
            kept = cells <= 0.4 * cells.max() if cells.max() > 0 else cells > cells.max()
            logit = cells.mean() if pooling == "gap" else (cells * kept).sum() / kept.sum().clamp(1)
            trained = [p for n, p in twin.named_parameters() if n != "fc.bias"]
            gradients = torch.autograd.grad(-logit, trained)
            with torch.no_grad():
                for p, gradient in zip(trained, gradients, strict=True):
                    p -= (1e-1 if p is twin.fc.weight else 1e-2) * gradient
    assert not torch.equal(found[0], found[3])
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def verdicts(layers, steps):
    return [ok for _, ok in rib_toy.findings(torch.tensor(layers), torch.tensor(steps))]


def test_findings_follow_the_numbers():
    middle = [[0.8, 0.8, 0.1]] * 2
    layers = [[1.0, 1.0, 0.5], [0.9, 0.9, 0.1], *middle, [0.8, 0.5, 0.1], [0.4, 0.09, 0.1]]
    rising = [[0.4, 0.1, 0.1], [0.6, 0.3, 0.14]]
    assert verdicts(layers, rising) == [True, True, True, True]
    assert verdicts([[1.0, 1.0, 0.1], *layers[1:]], rising) == [False, True, True, True]
    assert verdicts([*layers[:5], [0.4, 0.11, 0.1]], rising) == [True, False, True, True]
    assert verdicts([*layers[:5], [0.1, 0.1, 0.1]], rising) == [True, False, True, True]
    assert verdicts([*layers[:5], [0.0, 0.0, 0.0]], rising) == [True, False, True, True]
    assert verdicts(layers, [rising[0], [0.6, 0.3, 0.16]]) == [True, True, True, False]
    assert verdicts(layers, [rising[0], [0.6, 0.09, 0.1]]) == [True, True, False, False]


def test_the_example_runs_from_training_to_picture(mnist):
    command = (
        f"{EXAMPLE} --mnist {mnist} --epochs 1 --steps 2 --pictures 4 --normalise none own "
        f"--out {mnist / 'deep' / 'toy.png'}"
    )
    done = subprocess.run(
        [sys.executable, *command.split()],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "trained on 80 pictures" in done.stdout
    for name in ("G_1", "G_6", "step 0", "step 2"):
        assert done.stdout.count(f"\n{name:8} ") == 2
    assert done.stdout.count("holds: ") + done.stdout.count("does not hold: ") == 8
    with Image.open(mnist / "deep" / "toy.png") as picture:
        assert picture.width > 1000
