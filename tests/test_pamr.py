import math

import pytest
import torch

from attrib.errors import InputError
from attrib.localize.pamr import pamr


def literal_pamr(image, maps, iterations, dilations):
    """The definition for one picture, pixel by pixel, on nested lists of doubles."""
    k, height, width = image.shape
    image, planes = image.tolist(), maps.tolist()

    def neighbours(y, x):
        for d in dilations:
            for dy in (-d, 0, d):
                for dx in (-d, 0, d):
                    if dy or dx:
                        yield min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)

    def weights(y, x):
        around = list(neighbours(y, x))
        logits = [0.0] * len(around)
        for channel in image:
            own = channel[y][x]
            values = [channel[v][u] for v, u in around]
            mean = (own + sum(values)) / (len(values) + 1)
            variance = sum((value - mean) ** 2 for value in [own, *values]) / len(values)
            for j, value in enumerate(values):
                logits[j] -= abs(own - value) / (1e-8 + 0.1 * math.sqrt(variance)) / k
        highest = max(logits)
        exponentials = [math.exp(logit - highest) for logit in logits]
        return [(e / sum(exponentials), *at) for e, at in zip(exponentials, around, strict=True)]

    alpha = [[weights(y, x) for x in range(width)] for y in range(height)]
    for _ in range(iterations):
        planes = [
            [[sum(a * m[v][u] for a, v, u in cell) for cell in row] for row in alpha]
            for m in planes
        ]
    return torch.tensor(planes, dtype=torch.float64)


@pytest.mark.parametrize(
    ("k", "size", "iterations", "dilations"),
    [
        (3, (7, 9), 3, (1, 2, 4, 8, 12, 24)),  # wider than the picture: the edge is repeated
        (3, (12, 5), 2, (1, 3)),
        (1, (6, 6), 10, (2,)),
        (4, (1, 8), 1, (1, 2)),
    ],
)
def test_equals_the_literal_definition(k, size, iterations, dilations):
    image = torch.rand(1, k, *size, dtype=torch.float64)
    image[:, :, :, :2] = 0.5  # a flat patch, which the repeated edge makes wider
    maps = torch.rand(1, 2, *size, dtype=torch.float64)
    want = literal_pamr(image[0], maps[0], iterations, dilations)
    found = pamr(image, maps, iterations=iterations, dilations=dilations)
    torch.testing.assert_close(found[0], want, rtol=1e-9, atol=1e-12)
    single = pamr(image.float(), maps.float(), iterations=iterations, dilations=dilations)
    torch.testing.assert_close(single[0].double(), want, rtol=1e-4, atol=1e-5)


def test_linear_and_constant_maps_stay():
    image = torch.rand(1, 3, 20, 30, dtype=torch.float64)
    a, b = torch.rand(2, 1, 1, 20, 30, dtype=torch.float64)
    torch.testing.assert_close(pamr(image, 2 * a - 3 * b), 2 * pamr(image, a) - 3 * pamr(image, b))
    torch.testing.assert_close(
        pamr(image.float(), torch.full((1, 1, 20, 30), 0.3)), 0 * a + 0.3, check_dtype=False
    )
    refined = pamr(image, a)
    assert a.min() < refined.min() < refined.max() < a.max()
    in_bytes = pamr(255 * image + 7, a)
    torch.testing.assert_close(in_bytes, refined, rtol=1e-4, atol=1e-6)


def iou(a, b):
    return float((a & b).sum() / (a | b).sum())


def test_a_sloppy_mask_snaps_to_the_edge_of_colour():
    y, x = torch.meshgrid(torch.arange(64), torch.arange(80), indexing="ij")
    disc = (y - 30) ** 2 + (x - 42) ** 2 < 18**2
    red, blue = torch.tensor([0.8, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.7])
    image = torch.where(disc[..., None], red, blue).permute(2, 0, 1)
    image = image + 0.02 * torch.randn(3, 64, 80)
    sloppy = torch.exp(-((y - 33) ** 2 + (x - 38) ** 2) / (2 * 20.0**2))
    before = iou(sloppy > 0.5, disc)
    after = iou(pamr(image[None], sloppy[None, None])[0, 0] > 0.5, disc)
    assert before < 0.7
    assert after > 0.95


def test_a_batch_is_its_pictures_and_the_input_stays():
    images, maps = torch.rand(3, 3, 17, 23), torch.rand(3, 2, 17, 23, requires_grad=True)
    kept = images.clone(), maps.detach().clone()
    together = pamr(images, maps)
    one_by_one = [
        pamr(images[i : i + 1], maps[i : i + 1, j : j + 1])[0, 0]
        for i in range(3)
        for j in range(2)
    ]
    assert torch.equal(together, torch.stack(one_by_one).view_as(together))
    assert not together.requires_grad
    assert torch.equal(images, kept[0])
    assert torch.equal(maps, kept[1])
    untouched = pamr(images, maps, iterations=0)
    assert torch.equal(untouched, maps)
    assert untouched.data_ptr() != maps.data_ptr()


def test_no_maps_and_no_pictures():
    assert pamr(torch.rand(2, 3, 8, 9), torch.rand(2, 0, 8, 9)).shape == (2, 0, 8, 9)
    assert pamr(torch.rand(0, 3, 8, 9), torch.rand(0, 4, 8, 9)).shape == (0, 4, 8, 9)


def test_errors():
    maps = torch.rand(2, 1, 8, 9)
    for shape in ((2, 3, 9, 8), (1, 3, 8, 9), (2, 3, 8, 10), (2, 0, 8, 9)):
        with pytest.raises(InputError, match=r"got \(.*\) and \(2, 1, 8, 9\); bring both"):
            pamr(torch.rand(shape), maps)
    for option in ({"iterations": -1}, {"dilations": ()}, {"dilations": (1, 0)}):
        with pytest.raises(InputError, match="dilations one or more distances from 1, got"):
            pamr(torch.rand(2, 3, 8, 9), maps, **option)


def test_a_lonely_pixel_has_weights_too():
    image, maps = torch.zeros(1, 3, 9, 9), torch.rand(1, 1, 9, 9)
    image[:, :, 4, 4] = 1  # further from all its neighbours than an exponential can tell
    dilations = tuple(range(1, 20))
    want = literal_pamr(image[0], maps[0], 1, dilations)
    found = pamr(image, maps, iterations=1, dilations=dilations)
    torch.testing.assert_close(found[0].double(), want, rtol=1e-4, atol=1e-5)
