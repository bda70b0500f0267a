import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.bottleneck.aib_attached import AttachedAIB
from attrib.errors import InputError
from attrib.images import Picture, preprocess
from attrib.metrics.consistency import (
    THETAS,
    Frequencies,
    Looks,
    Window,
    agreement,
    consistency,
    looks_of,
)
from tests.models import SPEC, make


def pictures(count=6, size=(20, 24), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)


def literal_scores(a, b, said, says, thetas):
    """The definition, one picture and one cell at a time."""
    cosines = []
    for i in range(len(a)):
        x, y = ([v for row in m[i].tolist() for v in row] for m in (a, b))
        x, y = ([(v - min(m)) / (max(m) - min(m)) for v in m] for m in (x, y))
        norm = math.sqrt(sum(v * v for v in x)) * math.sqrt(sum(v * v for v in y))
        cosines.append(sum(p * q for p, q in zip(x, y, strict=True)) / norm)
    kept = [c for c, p, q in zip(cosines, said.tolist(), says.tolist(), strict=True) if p == q]
    return cosines, [100 * sum(c >= theta for c in kept) / len(kept) for theta in thetas]


def test_score_written_out():
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(40, 5, 4, generator=generator)
    scale = torch.linspace(0, 1.5, 40)[:, None, None]
    b = -3 + 2 * (a + scale * torch.randn(40, 5, 4, generator=generator))
    said, says = (torch.randint(0, 2, (40,), generator=generator) for _ in range(2))
    found = agreement(Looks(maps=a, predictions=said), Looks(maps=b, predictions=says))
    cosines, scores = literal_scores(a.double(), b.double(), said, says, THETAS)
    np.testing.assert_allclose(found.cosines, cosines)
    assert found.scores == pytest.approx(scores)
    assert 100 > found.scores[0] > found.scores[1] > found.scores[2] > 0
    assert found.thetas == (0.85, 0.9, 0.95)
    assert torch.equal(found.same, said == says)
    assert found.unusable == 0


def test_without_a_prediction_that_stayed_there_is_no_score():
    maps = torch.rand(3, 2, 2)
    before = Looks(maps=maps, predictions=torch.tensor([0, 1, 2]))
    after = Looks(maps=maps, predictions=torch.tensor([1, 2, 0]))
    assert all(math.isnan(score) for score in agreement(before, after).scores)
    assert agreement(before, before).scores == (100, 100, 100)


def test_maps_without_a_range_are_consistent_with_none():
    maps = torch.rand(4, 3, 3)
    flat = maps.clone()
    flat[0] = 0.7
    flat[1, 2, 2] = torch.nan
    flat[2] = -maps[2] - 1  # negative maps are as good as any
    said = torch.zeros(4, dtype=torch.int64)
    before, after = (Looks(maps=m, predictions=said) for m in (flat, flat.clone()))
    found = agreement(before, after)
    assert found.scores == (50, 50, 50)
    assert found.unusable == 2
    assert found.cosines[:2].tolist() == [0, 0]


def test_a_window_is_drawn_and_filled_once_per_picture():
    for size in (1, 4, 20):
        before = pictures(50)
        after = Window(size=size, seed=3)(before)
        for one, other in zip(before.tolist(), after.tolist(), strict=True):
            one, other = np.array(one), np.array(other)
            rows, columns = ((one != other).any(0).any(1), (one != other).any(0).any(0))
            ys, xs = np.flatnonzero(rows), np.flatnonzero(columns)
            assert len(ys) <= size
            assert len(xs) <= size
            boxes = [
                other[:, y : y + size, x : x + size]
                for y in range(20 - size + 1)
                for x in range(24 - size + 1)
                if y <= ys.min() and ys.max() < y + size and x <= xs.min() and xs.max() < x + size
            ]
            assert any((box == box[:, :1, :1]).all() for box in boxes)
    assert torch.equal(before, pictures(50))


def test_places_and_colours_are_uniform():
    black = torch.zeros(6000, 3, 5, 6, dtype=torch.uint8)
    after = Window(size=3)(black).amax(1)
    rows, columns = after.amax(2).ne(0).int().argmax(1), after.amax(1).ne(0).int().argmax(1)
    places = torch.bincount(rows * 4 + columns, minlength=12)
    assert len(places) == 12
    assert (places - 500).abs().max() < 110  # five standard deviations
    colours = Window(size=3)(black).amax((2, 3)).double()
    assert (colours.mean(0) - 127.5).abs().max() < 5
    assert torch.corrcoef(colours.T).triu(1).abs().max() < 0.065
    assert {int(colours.min()), int(colours.max())} == {0, 255}


def test_windows_filled_with_pictures():
    fill = pictures(2, (8, 10), seed=9)
    black = torch.zeros(30, 3, 12, 12, dtype=torch.uint8)
    after = Window(size=4, fill=fill, seed=2)(black)
    resized = [
        F.interpolate(f[None].float(), (4, 4), mode="bilinear", antialias=True)[0].round()
        for f in fill
    ]
    taken = set()
    for picture in after:
        windows = picture.unfold(1, 4, 1).unfold(2, 4, 1)
        found = [
            (k, y, x)
            for k, one in enumerate(resized)
            for y in range(9)
            for x in range(9)
            if torch.equal(windows[:, y, x].float(), one)
        ]
        assert len(found) == 1
        taken.add(found[0][0])
        assert picture.count_nonzero() == resized[found[0][0]].count_nonzero()
    assert taken == {0, 1}


def test_what_is_drawn_follows_from_the_seed():
    once, again, other = (Window(size=4, seed=seed)(pictures()) for seed in (5, 5, 6))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    state = torch.get_rng_state()
    Window(size=4)(pictures())
    assert torch.equal(torch.get_rng_state(), state)


def literal_frequencies(picture, radius, keep):
    """Per channel: shifted spectrum, mask cell by cell, back, real part, range to 8 bits."""
    height, width = picture.shape[1:]
    out = np.zeros(picture.shape)
    for c in range(3):
        spectrum = np.fft.fftshift(np.fft.fft2(picture[c].astype(float)))
        for i in range(height):
            for j in range(width):
                near = math.sqrt((i - height / 2) ** 2 + (j - width / 2) ** 2) < radius
                if near != (keep == "low"):
                    spectrum[i, j] = 0
        plane = np.fft.ifft2(np.fft.ifftshift(spectrum)).real
        out[c] = np.round(255 * (plane - plane.min()) / (plane.max() - plane.min()))
    return out


@pytest.mark.parametrize("size", [(32, 32), (12, 18), (9, 7)])
@pytest.mark.parametrize(("radius", "keep"), [(4, "high"), (12, "low"), (2.5, "low"), (5, "high")])
def test_frequencies_written_out(size, radius, keep):
    before = pictures(2, size)
    after = Frequencies(radius=radius, keep=keep)(before)
    for one, other in zip(before.numpy(), after.numpy(), strict=True):
        want = literal_frequencies(one, radius, keep)
        assert np.abs(other - want).max() <= 1
        assert (other != want).mean() < 0.02  # halves that rounding puts on either side


def test_waves_pass_on_one_side_of_the_radius():
    x = torch.arange(32)
    slow, fast = (127 + 100 * torch.cos(2 * math.pi * k * x / 32) for k in (3, 10))
    picture = torch.stack([slow, fast, slow]).round()[:, None].expand(3, 32, 32).to(torch.uint8)
    low, high = (Frequencies(radius=6, keep=k)(picture[None])[0].double() for k in ("low", "high"))
    assert torch.corrcoef(torch.stack([low[0, 0], slow]).double())[0, 1] > 0.999
    assert torch.corrcoef(torch.stack([high[1, 0], fast]).double())[0, 1] > 0.999
    flat = Frequencies(radius=6, keep="high")(torch.full((1, 3, 8, 8), 77, dtype=torch.uint8))
    assert flat.eq(0).all()


def look_of(explainer):
    classifier = explainer.classifier

    def look(batch):
        images, _ = preprocess([Picture(pixels=p) for p in batch], classifier.spec)
        found = explainer(images)
        return found.maps, found.logits.argmax(1)

    return look


@pytest.mark.parametrize("method", ["cam", "infocam+", "gradcam", "layercam"])
def test_any_method_can_be_scored(method):
    look = look_of(attrib.Explainer(make("plain"), method, spec=SPEC))
    some = pictures(10, (32, 32))
    same = consistency(look, some, torch.clone)
    assert same.scores == (100, 100, 100)
    found = [consistency(look, some, Window(size=12), batch_size=n) for n in (3, 10)]
    torch.testing.assert_close(found[0].cosines, found[1].cosines)
    assert found[0].cosines.min() < 1 - 1e-4
    want = look(some), look(Window(size=12)(some))
    cosines, scores = literal_scores(
        want[0][0].double(), want[1][0].double(), want[0][1], want[1][1], THETAS
    )
    np.testing.assert_allclose(found[0].cosines, cosines, rtol=1e-5)
    assert found[0].scores == pytest.approx(scores)


def test_attached_attention_can_be_scored():
    aib = AttachedAIB(attrib.split(make("plain"), spec=SPEC), latent=4).eval()

    def look(batch):
        images, _ = preprocess([Picture(pixels=p) for p in batch], SPEC)
        logits = aib(images, (1, 1), torch.Generator().manual_seed(0)).logits
        return aib.attention_map(images), logits.argmax(1)

    found = consistency(look, pictures(8, (32, 32)), Frequencies(radius=12, keep="low"))
    assert found.cosines.shape == (8,)
    assert not found.cosines.requires_grad


def test_bad_arguments():
    with pytest.raises(InputError, match="1 pixel wide or more, got 0"):
        Window(size=0)
    with pytest.raises(InputError, match="fill holds no pictures"):
        Window(size=2, fill=pictures(0))
    with pytest.raises(InputError, match=r"21 pixels does not fit \(20, 24\)"):
        Window(size=21)(pictures())
    with pytest.raises(InputError, match="positive number of cycles, got 0"):
        Frequencies(radius=0.0, keep="low")
    look = look_of(attrib.Explainer(make("plain"), "cam", spec=SPEC))
    with pytest.raises(InputError, match="1 or more, got 0 and 32"):
        looks_of(look, pictures(0))
    with pytest.raises(InputError, match=r"of 6 pictures look gives maps .* got \(1, 4, 4\)"):
        looks_of(lambda batch: (torch.rand(1, 4, 4), torch.zeros(6).long()), pictures())
    one, other = looks_of(look, pictures(2)), looks_of(look, pictures(3))
    with pytest.raises(InputError, match="same pictures and grid"):
        agreement(one, other)
    for thetas in ((), (1.5,)):
        with pytest.raises(InputError, match=r"cosines in \[0, 1\]"):
            agreement(one, one, thetas)
