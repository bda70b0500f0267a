import random
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import attrib.models
from attrib.datasets import scene_creatures, scenes
from attrib.datasets.scenes import CLASSES, Scene, Scenes
from attrib.errors import InputError
from attrib.models.demo_net import DemoNet, demo_config, load_demo


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    return list(Scenes(length=400, seed=7))


def same(a: Scene, b: Scene) -> bool:
    tensors = ("image", "mask", "part")
    return (a.label, a.box) == (b.label, b.box) and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in tensors
    )


# What a scene depends on


def test_a_scene_follows_from_seed_and_index():
    assert same(Scenes(seed=3)[5], Scenes(seed=3)[5])
    assert not same(Scenes(seed=3)[5], Scenes(seed=3)[6])
    assert not same(Scenes(seed=3)[5], Scenes(seed=4)[5])


def test_a_scene_does_not_depend_on_length_or_order():
    assert same(Scenes(length=6)[5], Scenes(length=1000)[5])
    assert [s.label for s in Scenes(length=6)] == [Scenes()[i].label for i in range(6)]


def test_a_scene_neither_reads_nor_moves_global_random_states():
    scene = Scenes()[0]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert same(scene, Scenes()[0])
    assert before == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_clutter_changes_the_background_only():
    bare, full = Scenes(clutter=0.0)[2], Scenes(clutter=4.0)[2]
    inside = torch.from_numpy(cv2.erode(bare.mask.numpy().astype(np.uint8), np.ones((5, 5)))) > 0
    changed = (bare.image != full.image).any(0)
    assert torch.equal(bare.mask, full.mask)
    assert bare.label == full.label
    assert not changed[inside].any()
    assert changed[~bare.mask].float().mean() > 0.1


@pytest.mark.parametrize(
    ("kinship", "least", "most"), [(0.0, 0, 30), (0.5, 40, 75), (1.0, 100, 100)]
)
def test_kinship_is_how_often_body_and_head_match(monkeypatch, kinship, least, most):
    drawn, creature = [], scenes.creature

    def spy(rng, head, build, hue):
        drawn.append((head, build))
        return creature(rng, head, build, hue)

    monkeypatch.setattr(scenes, "creature", spy)
    labels = [CLASSES[scene.label] for scene in Scenes(length=100, kinship=kinship)]
    assert labels == [head for head, _ in drawn]
    assert least <= sum(head == build for head, build in drawn) <= most


# The ground truth


def test_box_is_tight_and_part_lies_within_mask(many):
    for scene in many:
        x0, y0, x1, y1 = scene.box
        assert (scene.part <= scene.mask).all()
        assert scene.mask.sum() == scene.mask[y0:y1, x0:x1].sum()
        edges = scene.mask[y0], scene.mask[y1 - 1], scene.mask[:, x0], scene.mask[:, x1 - 1]
        assert all(edge.any() for edge in edges)


def test_mask_is_where_a_white_and_a_black_background_look_alike(monkeypatch):
    def on(value: float) -> list[torch.Tensor]:
        def flat(rng, height, width, hue, clutter):
            return np.full((height, width, 3), value, np.float32)

        monkeypatch.setattr(scenes, "background", flat)
        return [s.image[0].float() for s in Scenes(length=20)]

    for scene, white, black in zip(Scenes(length=20), on(255), on(0), strict=True):
        showing = (white - black) / 255  # 1 - coverage, up to 40 % less in the shadow
        assert not scene.mask[showing > 0.51].any()
        assert scene.mask[showing < 0.29].all()


def test_part_is_what_changes_when_the_head_is_painted_over(monkeypatch):
    data, head = Scenes(length=12, size=256), scene_creatures._head
    plain = list(data)

    def green(*args):
        return [shape._replace(colour=(0.0, 255.0, 0.0)) for shape in head(*args)]

    monkeypatch.setattr(scene_creatures, "_head", green)
    for before, after in zip(plain, data, strict=True):
        changed = (before.image.int() - after.image.int()).abs().amax(0) > 20
        near = cv2.dilate(before.part.numpy().astype(np.uint8), np.ones((5, 5))) > 0
        assert not changed[~torch.from_numpy(near)].any()
        assert changed[before.part].float().mean() > 0.8


def test_the_head_is_a_small_part_of_a_creature_of_moderate_size(many):
    covered = torch.stack([scene.mask.float().mean() for scene in many])
    share = torch.stack([scene.part.sum() / scene.mask.sum() for scene in many])
    assert 0.1 < covered.quantile(0.02) < covered.quantile(0.98) < 0.4
    assert 0.1 < share.quantile(0.02) < share.quantile(0.98) < 0.25


def test_classes_are_equally_likely(many):
    counts = torch.bincount(torch.tensor([scene.label for scene in many]), minlength=len(CLASSES))
    assert len(counts) == len(CLASSES)
    expected = len(many) / len(CLASSES)
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # chi-squared, 7 degrees, p = 0.001


# Sizes and errors


@pytest.mark.parametrize("size", [32, 96, 512, (64, 128), (200, 33), (32, 400)])
def test_sizes(size):
    height, width = (size, size) if isinstance(size, int) else size
    for scene in Scenes(length=4, size=size):
        assert scene.image.shape == (3, height, width)
        assert scene.image.dtype == torch.uint8
        assert scene.mask.shape == scene.part.shape == (height, width)
        assert scene.part.any()
        assert scene.box[2] <= width
        assert scene.box[3] <= height


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": -1}, "length is a number of scenes, 0 or more, got -1"),
        ({"size": 31}, "32 pixels or more, got 31"),
        ({"size": (96, 8)}, r"32 pixels or more, got \(96, 8\)"),
        ({"seed": -2}, "seed must be 0 or more, got -2"),
        ({"clutter": -0.5}, "clutter must be 0 or more, got -0.5"),
        ({"kinship": 1.5}, r"kinship is a probability in \[0, 1\], got 1.5"),
        ({"clutter": float("nan")}, "clutter must be 0 or more, got nan"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        Scenes(**options)


@pytest.mark.parametrize("index", [3, -4, 100])
def test_index_out_of_range(index):
    with pytest.raises(IndexError, match=f"scene {index} is out of range; there are 3"):
        Scenes(length=3)[index]


def test_scenes_are_a_sequence():
    data = Scenes(length=3)
    assert len(data) == len(list(data)) == 3
    assert same(data[-1], data[2])
    assert list(Scenes(length=0)) == []
    assert replace(data, length=4) != data


# The shipped classifier


def prepared(images: torch.Tensor) -> torch.Tensor:
    config = demo_config()
    mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
    return (images / 255 - mean) / std


def test_shipped_weights_classify_fresh_scenes(many):
    images, labels = (torch.stack([s.image for s in many]), torch.tensor([s.label for s in many]))
    with torch.no_grad():
        right = load_demo()(prepared(images)).argmax(1) == labels
    assert right.float().mean() >= 0.95
    assert demo_config()["test_accuracy"] >= 0.95


def test_shipped_files_are_small_and_fit_the_scenes():
    folder = Path(attrib.models.__file__).parent / "demo"
    assert (folder / "model.safetensors").stat().st_size <= 2 * 2**20
    assert tuple(demo_config()["classes"]) == CLASSES


def test_loading_draws_no_random_number_and_leaves_nothing_on_meta():
    before = torch.get_rng_state()
    net = load_demo()
    assert torch.equal(before, torch.get_rng_state())
    assert not net.training
    assert all(t.device.type == "cpu" for t in (*net.parameters(), *net.buffers()))
    assert all(p.requires_grad for p in net.parameters())


def test_logits_are_the_head_over_pooled_features():
    net = DemoNet(classes=5).eval()
    images = torch.randn(2, 3, 96, 96)
    features = net.features(images)
    assert features.shape == (2, 64, 12, 12)
    torch.testing.assert_close(net(images), net.head(features.mean((2, 3))))
