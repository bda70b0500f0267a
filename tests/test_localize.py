from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.errors import DegenerateMapWarning, InputError
from attrib.localize import (
    covered,
    cut_values,
    label_components,
    largest_component,
    largest_component_batched,
    localize,
    normalize,
    otsu,
    status_of,
    to_source,
)
from attrib.types import Attribution, Frame, Targets


def attribution(maps, frames=(), size=(64, 64), images=None):
    n = len(maps)
    return Attribution(
        maps=maps,
        targets=Targets(image=torch.arange(n), label=torch.arange(n)),
        logits=torch.zeros(images or n, max(n, 1)),
        method="cam",
        unit="logits",
        exact=True,
        input_size=size,
        frames=frames,
    )


def bump(u=8, v=8, at=(2, 5)):
    y, x = torch.meshgrid(torch.arange(u), torch.arange(v), indexing="ij")
    return torch.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 3.0)


# Resampling


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(224, 200), (5, 4), (333, 71), (7, 9)])
def test_squashed_pictures_are_interpolated_as_torch_does(mode, size):
    maps = torch.randn(3, 7, 9, dtype=torch.float64)
    frame = Frame(source=size, resized=(224, 288), tensor=(224, 288))
    want = F.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0]
    torch.testing.assert_close(to_source(maps, frame, mode), want)
    assert covered(frame, maps.device) is None


def test_nearest_repeats_cells():
    maps = torch.arange(4.0).view(1, 2, 2)
    frame = Frame(source=(4, 6), resized=(10, 10), tensor=(10, 10))
    want = maps.repeat_interleave(2, 1).repeat_interleave(3, 2)
    assert torch.equal(to_source(maps, frame, "nearest"), want)


def test_crop_goes_back_to_its_place():
    """A map of a centre crop at scale 1 is the resized map inside the crop, unseen outside."""
    maps = torch.randn(1, 4, 4)
    frame = Frame(source=(40, 48), resized=(40, 48), offset=(4, 8), tensor=(32, 32))
    out, seen = to_source(maps, frame), covered(frame, maps.device)
    inside = F.interpolate(maps[None], size=(32, 32), mode="bilinear")[0]
    torch.testing.assert_close(out[:, 4:36, 8:40], inside)
    assert seen.sum() == 32 * 32
    assert seen[4:36, 8:40].all()


def test_padding_is_left_out():
    maps = torch.randn(1, 4, 4)
    frame = Frame(source=(16, 32), resized=(16, 32), offset=(-8, 0), tensor=(32, 32))
    whole = F.interpolate(maps[None], size=(32, 32), mode="bilinear")[0]
    torch.testing.assert_close(to_source(maps, frame), whole[:, 8:24])
    assert covered(frame, maps.device) is None


def test_flip_is_undone():
    maps = torch.randn(2, 5, 6)
    straight = Frame(source=(30, 40), resized=(50, 60), tensor=(50, 60))
    mirrored = Frame(source=(30, 40), resized=(50, 60), tensor=(50, 60), flip=True)
    torch.testing.assert_close(to_source(maps.flip(2), mirrored), to_source(maps, straight))


frames = st.builds(
    lambda h, w, a, b, top, left, th, tw, flip: Frame(
        source=(h, w), resized=(a, b), offset=(top, left), tensor=(th, tw), flip=flip
    ),
    *[st.integers(4, 60)] * 4,
    *[st.integers(-10, 10)] * 2,
    *[st.integers(8, 60)] * 2,
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(frame=frames, y=st.integers(0, 59), x=st.integers(0, 59))
def test_a_source_pixel_takes_the_value_of_the_cell_it_was_shown_in(frame, y, x):
    """With one cell per tensor pixel and no blending, values carry their own address."""
    h, w = frame.tensor
    y, x = y % frame.source[0], x % frame.source[1]
    address = torch.arange(h * w, dtype=torch.float64).view(1, h, w)
    value = int(to_source(address, frame, "nearest")[0, y, x])
    ty = (y + 0.5) * frame.resized[0] / frame.source[0] - frame.offset[0]
    tx = (x + 0.5) * frame.resized[1] / frame.source[1] - frame.offset[1]
    tx = w - tx if frame.flip else tx
    seen = covered(frame, address.device)
    if 0 <= ty < h and 0 <= tx < w:
        assert divmod(value, w) == (int(ty), int(tx))
        assert seen is None or bool(seen[y, x])
    else:
        assert not bool(seen[y, x])


# Normalisation


def test_normalize():
    maps = torch.tensor([[[-1.0, 0.0], [1.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]]])
    out, low, high = normalize(maps)
    assert out[0].flatten().tolist() == [0.0, 0.25, 0.5, 1.0]
    assert (low.tolist(), high.tolist()) == ([-1.0, 5.0], [3.0, 5.0])
    assert not out[1].any()
    cut, _, _ = normalize(maps[:1], "max")
    torch.testing.assert_close(cut[0].flatten(), torch.tensor([0, 0, 1 / 3, 1]))
    seen = torch.tensor([[True, True], [True, False]])
    masked, _, top = normalize(maps[:1], "minmax", seen)
    assert masked[0].flatten().tolist() == [0.0, 0.5, 1.0, 0.0]
    assert top.item() == 1.0
    with pytest.raises(InputError, match="'minmax' or 'max', got 'range'"):
        normalize.__wrapped__(maps, "range")


def test_status():
    maps = torch.stack(
        [bump(), torch.full((8, 8), 3.0), -bump() - 1, bump() / 0, torch.zeros(8, 8)]
    )
    maps[1, 0, 0] += 1e-6
    assert status_of(maps) == ("ok", "constant", "negative", "nan", "constant")


# Components

ADVERSARIAL = {}


def adversarial(function):
    ADVERSARIAL[function.__name__] = function()
    return function


@adversarial
def spiral():
    mask = np.zeros((41, 41), bool)
    y = x = 20
    for length, (dy, dx) in zip(
        [n // 2 for n in range(4, 84)], [(0, 1), (1, 0), (0, -1), (-1, 0)] * 20, strict=False
    ):
        for _ in range(length):
            if 0 <= y < 41 and 0 <= x < 41:
                mask[y, x] = True
            y, x = y + dy, x + dx
    return mask


@adversarial
def comb():
    mask = np.zeros((30, 61), bool)
    mask[:, ::2] = True
    mask[-1] = True
    return mask


@adversarial
def serpentine():
    mask = np.zeros((60, 17), bool)
    mask[::2] = True
    mask[1::4, -1] = True
    mask[3::4, 0] = True
    return mask


@adversarial
def checkerboard():
    return np.indices((23, 34)).sum(0) % 2 == 0


@adversarial
def dots():
    mask = np.zeros((20, 20), bool)
    mask[::2, ::2] = True
    return mask


@adversarial
def diagonal():
    return np.eye(37, dtype=bool)


@adversarial
def full():
    return np.ones((16, 9), bool)


@adversarial
def empty():
    return np.zeros((16, 9), bool)


@adversarial
def one_pixel():
    mask = np.zeros((5, 6), bool)
    mask[4, 5] = True
    return mask


@adversarial
def one_row():
    return np.array([[True, True, False, True, False, True, True]])


@adversarial
def equal_areas_first_wins():
    mask = np.zeros((8, 8), bool)
    mask[5:7, 0:2] = True
    mask[0, 3:7] = True
    return mask


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_both_paths_agree_on_adversarial_masks(name):
    masks = torch.from_numpy(ADVERSARIAL[name])[None]
    for batch in (masks, torch.cat([masks, masks.flip(1), ~masks, masks.flip(2)])):
        a, b = largest_component(batch), largest_component_batched(batch)
        assert torch.equal(a.masks, b.masks)
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.areas, b.areas)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 33), st.integers(1, 33)),
    density=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_both_paths_agree_on_random_masks(shape, density, seed):
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density
    a, b = largest_component(masks), largest_component_batched(masks)
    assert torch.equal(a.masks, b.masks)
    assert torch.equal(a.boxes, b.boxes)
    assert torch.equal(a.areas, b.areas)


def test_labels_are_the_components_that_opencv_finds():
    import cv2

    masks = torch.rand(6, 40, 50, generator=torch.Generator().manual_seed(0)) < 0.4
    for mask, ours in zip(masks, label_components(masks), strict=True):
        count, theirs = cv2.connectedComponents(mask.numpy().astype(np.uint8), connectivity=8)
        pairs = {*zip(ours.flatten().tolist(), theirs.flatten().tolist(), strict=True)}
        assert len(pairs) == count


def test_tie_goes_to_the_component_met_first():
    found = largest_component(torch.from_numpy(ADVERSARIAL["equal_areas_first_wins"])[None])
    assert found.boxes.tolist() == [[3, 0, 7, 1]]
    assert found.areas.tolist() == [4]


def test_chunks_change_nothing(monkeypatch):
    from attrib.localize import components

    masks = torch.rand(7, 20, 20, generator=torch.Generator().manual_seed(0)) < 0.5
    want = largest_component_batched(masks)
    monkeypatch.setattr(components, "CHUNK_PIXELS", 900)
    assert torch.equal(largest_component_batched(masks).masks, want.masks)


# Thresholds


def test_otsu_parts_as_scikit_image_does():
    from skimage.filters import threshold_otsu

    generator = torch.Generator().manual_seed(0)
    for i in range(5):
        low = 0.1 * i + 0.1 * torch.rand(300, generator=generator)
        high = 0.5 + 0.5 * torch.rand(200, generator=generator)
        level = (torch.cat([low, high]).clamp(0, 1) * 255).round()
        want = threshold_otsu(level.numpy().astype(np.uint8))
        ours = otsu(level[None] / 255).item()
        assert ((level / 255 >= ours) == (level > want)).all()


def test_rules():
    maps = torch.arange(100.0).view(1, 10, 10) * 2 - 20
    of = attribution(maps, size=(10, 10))
    area = lambda **k: localize(of, resize="nearest", **k).areas.tolist()  # noqa: E731
    assert area(threshold=0.5) == [50]
    assert area(threshold=0.0) == [100]
    assert area(threshold=1.0) == [1]
    assert area(threshold=[0.9, 0.5]) == [10, 50]
    assert area(threshold=90.0, rule="percentile") == [11]
    assert area(threshold=100.0, rule="absolute") == [40]
    assert area(threshold=1e6, rule="absolute") == []
    assert area(rule="otsu") == [50]
    assert area(threshold=0.5, normalize="max") == [int((maps >= maps.max() / 2).sum())]


def test_maps_in_which_zero_says_nothing():
    """Against a large negative value all that is zero would lie in the upper half of the range."""
    maps = torch.zeros(1, 10, 10)
    maps[0, 1, 1], maps[0, 4:6, 5:8] = -9, 3
    signed = replace(attribution(maps, size=(10, 10)), normalize="max")
    assert localize(signed).boxes.tolist() == [[5, 4, 8, 6]]
    assert localize(signed, normalize="minmax").boxes.tolist() == [[0, 0, 10, 10]]
    assert localize(attribution(maps, size=(10, 10))).boxes.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 20.0}, r"fraction threshold lies in \[0, 1\], got 20"),
        ({"threshold": 101.0, "rule": "percentile"}, r"lies in \[0, 100\], got 101"),
        ({"threshold": []}, "threshold is empty"),
    ],
)
def test_bad_thresholds(options, message):
    with pytest.raises(InputError, match=message):
        localize(attribution(bump()[None]), **options)


# The whole stage


def test_boxes_come_in_source_pixels_for_pictures_of_many_sizes():
    frames = (
        Frame(source=(80, 160), resized=(64, 64), tensor=(64, 64)),
        Frame(source=(20, 30), resized=(64, 64), tensor=(64, 64)),
        Frame(source=(80, 160), resized=(64, 64), tensor=(64, 64)),
    )
    maps = torch.stack([bump(at=(2, 5)), bump(at=(6, 1)), bump(at=(4, 4))])
    found = localize(attribution(maps, frames), threshold=0.6)
    assert [tuple(h.shape) for h in found.heatmaps] == [(80, 160), (20, 30), (80, 160)]
    assert found.map_index.tolist() == [0, 1, 2]
    for i, (at, frame) in enumerate(zip([(2, 5), (6, 1), (4, 4)], frames, strict=True)):
        x0, y0, x1, y1 = found.boxes[i].tolist()
        H, W = frame.source  # noqa: N806
        assert x0 < (at[1] + 0.5) * W / 8 < x1
        assert y0 < (at[0] + 0.5) * H / 8 < y1
        mask = found.masks[i][0]
        assert mask[y0:y1, x0:x1].sum() == mask.sum() == found.areas[i]
        assert mask[y0].any()
        assert mask[:, x0].any()
        assert found.heatmaps[i].max() == 1
        assert found.heatmaps[i].min() == 0


def test_what_the_model_did_not_see_is_zero_and_out_of_every_mask():
    frame = Frame(source=(64, 128), resized=(64, 128), offset=(0, 32), tensor=(64, 64))
    found = localize(attribution(bump()[None], (frame,)), threshold=0.0)
    assert not found.heatmaps[0][:, :32].any()
    assert found.boxes.tolist() == [[32, 0, 96, 64]]


@settings(max_examples=40, deadline=None)
@given(frame=frames, rule=st.sampled_from(["fraction", "percentile", "otsu"]))
def test_the_part_that_was_seen_is_what_the_whole_picture_gives(frame, rule):
    """Cutting the window out first changes nothing: all is done on the whole picture here."""
    threshold = 60 if rule == "percentile" else 0.4
    maps = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0))
    seen = covered(frame, maps.device)
    seen = torch.ones(frame.source, dtype=torch.bool) if seen is None else seen
    assume(seen.any())
    heat, low, high = normalize(to_source(maps, frame), "minmax", seen)
    cut = cut_values(heat[:, seen][:, None], low, high, threshold, rule)
    want = largest_component((heat >= cut[..., None]) & seen)
    found = localize(attribution(maps, (frame,) * 2, frame.tensor), threshold=threshold, rule=rule)
    torch.testing.assert_close(torch.stack(found.heatmaps), heat, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.thresholds, cut, atol=1e-6, rtol=0)
    differ = torch.stack(found.masks)[:, 0] != want.masks
    assert not ((heat - cut[..., None]).abs()[differ] > 1e-6).any()  # but for rounding
    if not differ.any():
        assert torch.equal(found.boxes, want.boxes[want.areas > 0])


@pytest.mark.parametrize("rule", ["fraction", "percentile", "otsu", "absolute"])
def test_a_picture_that_was_not_seen_at_all_has_no_mask(rule):
    frame = Frame(source=(20, 30), resized=(20, 30), offset=(0, 90), tensor=(20, 20))
    assert not covered(frame, torch.device("cpu")).any()
    found = localize(attribution(bump()[None], (frame,), (20, 20)), rule=rule)
    assert found.heatmaps[0].shape == found.masks[0][0].shape == (20, 30)
    assert not found.heatmaps[0].any()
    assert not len(found.boxes)


def test_degenerate_maps_are_empty_flagged_and_explained():
    maps = torch.stack([bump(), torch.ones(8, 8), -1 - bump(), bump() / 0])
    with pytest.warns(DegenerateMapWarning) as caught:
        found = localize(attribution(maps))
    text = " | ".join(str(w.message) for w in caught)
    for cause in ("class 1 is constant", "class 2 is negative", "class 3 is not finite"):
        assert cause in text
    assert found.status == ("ok", "constant", "negative", "nan")
    assert found.map_index.tolist() == [0]
    for i in (1, 2, 3):
        assert not found.masks[i].any()
        assert not found.heatmaps[i].any()


def test_no_maps():
    found = localize(attribution(torch.zeros(0, 8, 8), images=2))
    assert found.heatmaps == ()
    assert found.boxes.shape == (0, 4)


def test_public_names():
    assert attrib.localize is localize
