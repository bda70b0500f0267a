"""Pictures whose class shows in a known region."""

import io
import pickle
import zipfile

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from attrib.datasets.digits import digits
from attrib.datasets.house_numbers import house_numbers
from attrib.datasets.synthetic import (
    anchors,
    cifar10_rectangles,
    digit_rectangles,
    rectangles,
    small_digits,
)
from attrib.errors import InputError

MAKERS = {
    "rectangles": digit_rectangles,
    "two": small_digits,
    "four": lambda **k: small_digits(count=4, **k),
    "anchors": anchors,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_pictures_are_in_range_seeded_and_whole(make):
    data, again, other = make(), make(), make(seed=1)
    assert data.images.dtype == torch.float32
    assert 0 <= data.images.min() < data.images.max() <= 1
    assert torch.equal(data.images, again.images)
    assert torch.equal(data.labels, again.labels)
    assert not torch.equal(data.images, other.images)
    assert set(data.labels.tolist()) == set(range(data.classes))
    assert data.regions.shape == (len(data), *data.images.shape[2:])
    assert len(make(split="test")) < len(data)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_loader_makes_batches_of_them(make):
    data = make(split="test")
    batches = list(DataLoader(data, batch_size=100))
    for part, whole in zip(
        zip(*batches, strict=True), (data.images, data.labels, data.regions), strict=True
    ):
        assert torch.equal(torch.cat(part), whole)
    image, label, region = data[-1]
    assert torch.equal(image, data.images[-1])
    assert (label, region.shape) == (data.labels[-1], image.shape[1:])
    with pytest.raises(IndexError):
        data[len(data)]


@pytest.mark.parametrize("packed", [True, False])
def test_rectangles_on_photographs(tmp_path, monkeypatch, packed):
    """As torchvision leaves CIFAR-10, or as a zip of pictures."""
    pixels = torch.randint(256, (40, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    pixels, root = pixels.byte(), tmp_path
    if packed:
        root = tmp_path / "cifar.zip"
        with zipfile.ZipFile(root, "w") as archive:
            for i, picture in enumerate(pixels):
                stream = io.BytesIO()
                Image.fromarray(picture.permute(1, 2, 0).numpy()).save(stream, "png")
                archive.writestr(f"test/cat/{i:02}.png", stream.getvalue())
    else:
        from torchvision.datasets import cifar

        monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)
        folder = tmp_path / "cifar-10-batches-py"
        folder.mkdir()
        rows = {"data": pixels.flatten(1).numpy(), "labels": [0] * 40}
        (folder / "test_batch").write_bytes(pickle.dumps(rows))
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["cat"]}))
    data = cifar10_rectangles(root, "test", seed=2)
    assert (len(data), data.classes) == (40, 2)
    assert torch.equal(data.labels > 0, data.regions.flatten(1).any(1))
    assert 5 < int(data.labels.sum()) < 35
    outside = ~data.regions[:, None].expand_as(data.images)
    assert torch.equal(data.images[outside], (pixels.float() / 255)[outside])
    assert torch.equal(data.images, cifar10_rectangles(root, "test", seed=2).images)


@pytest.mark.parametrize("channels", [1, 3])
def test_rectangles_have_one_colour_the_stated_sides_and_nothing_else_changes(channels):
    before = torch.rand(400, channels, 28, 28)
    data = rectangles(before, seed=3)
    there = data.regions.flatten(1).any(1)
    assert torch.equal(there.long(), data.labels)
    assert 0.4 < there.float().mean() < 0.6
    sides, colours = set(), []
    for image, old, region in zip(data.images, before, data.regions, strict=True):
        assert torch.equal(image[:, ~region], old[:, ~region])
        if region.any():
            rows, columns = region.any(1).nonzero().flatten(), region.any(0).nonzero().flatten()
            assert region.sum() == len(rows) * len(columns)  # no holes
            sides |= {len(rows), len(columns)}
            assert (image[:, region] == image[:, region][:, :1]).all()
            colours.append(image[:, region][:, 0])
    assert sides == set(range(3, 11))
    colours = torch.stack(colours) * 255
    assert colours.min() >= (100 if channels == 1 else 0)
    assert colours.max() > 240
    assert (colours.min() < 20) == (channels == 3)


def test_rectangles_reach_every_border():
    data = rectangles(torch.zeros(3000, 1, 12, 12), probability=1, sides=(2, 4))
    often = data.regions.float().mean(0)
    assert often.min() > 0
    torch.testing.assert_close(often, often.flip(1), atol=0.05, rtol=0)


@pytest.mark.parametrize(("count", "side"), [(2, 18), (4, 14)])
def test_the_small_digit_lies_in_its_circle_and_tells_the_class(count, side):
    data = small_digits(count=count, seed=5)
    y, x = torch.meshgrid(torch.arange(56.0) + 0.5, torch.arange(56.0) + 0.5, indexing="ij")
    middles = []
    for region in data.regions:
        cy, cx = y[region].mean(), x[region].mean()
        assert torch.equal(region, (y - cy) ** 2 + (x - cx) ** 2 <= 8**2)
        middles.append((float(cy), float(cx)))
    shifts = {round((m - 14) % 28) for pair in middles for m in pair}
    assert shifts == {0, 1, 2, 3, 4, 24, 25, 26, 27}
    assert len({(cy > 28, cx > 28) for cy, cx in middles}) == 4
    pixels, numbers = digits(None, "train")
    small = torch.nn.functional.interpolate(
        pixels[:, None].float() / 255, size=(side, side), mode="bilinear", antialias=True
    )[:, 0]
    found = 0
    for image, label, (cy, cx) in list(zip(data.images, data.labels, middles, strict=True))[:50]:
        top, left = round(cy) - side // 2, round(cx) - side // 2
        crop = image[0, top : top + side, left : left + side]
        gap = (small[numbers == label] - crop).abs().amax((1, 2)).min()
        found += int(gap < 1e-6)
    assert found > (40 if count == 2 else 25)  # the rest touch a neighbour


@pytest.mark.parametrize("count", [2, 4])
def test_as_many_quadrants_hold_a_digit_as_are_asked_for(count):
    middle = small_digits(count=count).images[:, 0].unfold(1, 28, 28).unfold(2, 28, 28)
    lit = (middle[..., 8:20, 8:20].amax((3, 4)) > 0.5).flatten(1).sum(1)
    assert (lit == count).float().mean() > 0.95


def test_lengths_go_round_the_digits():
    count = len(digits(None, "test")[0])
    data = small_digits(split="test", length=2 * count)
    assert torch.bincount(data.labels).equal(2 * torch.bincount(digits(None, "test")[1]))


def test_anchors_are_alike_in_every_picture():
    data = anchors()
    solid = (data.images == 1).all(0)[0]
    assert solid.sum() == 4 * 8 * 8
    assert torch.equal(solid, solid.flip(0))
    assert torch.equal(solid, solid.flip(1))
    assert not (data.regions & solid).any()
    assert data.labels.max() == 4
    assert data.images[:, 0][~data.regions & ~solid].mean() < 0.01
    noisy = anchors(noise=0.3).images[:, 0][~data.regions & ~solid]
    assert 0.13 < noisy.mean() < 0.18


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: rectangles(torch.zeros(2, 2, 9, 9)), "grey or RGB"),
        (lambda: rectangles(torch.zeros(2, 1, 9, 9)), "sides ascend"),
        (lambda: rectangles(torch.zeros(2, 1, 20, 20), probability=2), "probability"),
        (lambda: small_digits(count=3), "2 or 4"),
        (lambda: small_digits(length=0), "1 or more"),
        (lambda: anchors(noise=2.0), "noise"),
    ],
)
def test_mistakes_are_named(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_house_numbers_are_rows_of_their_digits():
    digits = torch.randint(256, (7, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    digits = digits.to(torch.uint8)
    strips = digits[..., 6:26].float() / 255
    data = house_numbers(digits, length=60, side=96, seed=2)
    assert set(data.labels.tolist()) == {0, 1, 2, 3}
    for image, label, region in zip(data.images, data.labels, data.regions, strict=True):
        rows, columns = region.any(1).nonzero().flatten(), region.any(0).nonzero().flatten()
        assert (len(rows), len(columns)) == (32, 20 * (label + 1))
        row = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        parts = row.split(20, 2)
        found = [[torch.equal(part, strip) for strip in strips].index(True) for part in parts]
        ground = strips[found[0]].mean((1, 2))
        torch.testing.assert_close(
            image[:, ~region], ground[:, None].expand(-1, int((~region).sum()))
        )
    again = house_numbers(digits, length=60, side=96, seed=2)
    assert torch.equal(data.images, again.images)
    with pytest.raises(InputError, match="have to fit"):
        house_numbers(digits, length=2, side=64)
