import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import attrib
from attrib.datasets import CUB, BoxSample, ScenesWithBoxes
from attrib.datasets.scenes import Scenes
from attrib.errors import InputError
from attrib.evaluate import evaluate_wsol
from attrib.metrics import InfoCAMProtocol, infocam_boxes, pairwise_iou
from attrib.types import Attribution, Targets


def test_iou_of_half_open_boxes():
    a = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [2, 2, 2, 2]]).float()
    b = torch.tensor([[0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 8, 4], [2, 2, 2, 2]]).float()
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([1, 4 / 28, 0, 0]))


def of(maps, logits=None, size=(64, 64)):
    n = len(maps)
    return Attribution(
        maps=maps,
        targets=Targets(image=torch.arange(n), label=torch.arange(n)),
        logits=torch.eye(max(n, 1)) if logits is None else logits,
        method="cam",
        unit="logits",
        exact=True,
        input_size=size,
    )


def literal_box(plane, threshold=0.2, size=64):
    """The protocol written out: resize, range, cut, flood fill, tight box."""
    big = torch.nn.functional.interpolate(plane[None, None], size=(size, size), mode="bilinear")
    big = ((big - big.min()) / (big.max() - big.min()))[0, 0] >= threshold
    left, best = {(y, x) for y, x in big.nonzero().tolist()}, set()
    while left:
        todo, part = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            part.add((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            todo += near
        best = max(best, part, key=len)
    ys, xs = zip(*best, strict=True)
    return [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def test_boxes_follow_the_protocol_to_the_letter():
    maps = torch.randn(12, 8, 8, generator=torch.Generator().manual_seed(2))
    for threshold in (0.2, 0.5, 0.7):
        want = [literal_box(plane, threshold) for plane in maps]
        assert infocam_boxes(of(maps), threshold=threshold).long().tolist() == want


def test_negative_maps_count_and_constant_ones_have_no_box():
    maps = torch.randn(2, 8, 8)
    shifted = maps - 100
    assert torch.equal(infocam_boxes(of(maps)), infocam_boxes(of(shifted)))
    assert infocam_boxes(of(torch.ones(1, 8, 8))).tolist() == [[0, 0, 0, 0]]


def test_counts():
    plane = torch.zeros(8, 8)
    plane[2:5, 3:6] = 1
    maps = plane.expand(3, 8, 8)
    (box,) = infocam_boxes(of(maps[:1])).tolist()
    truth = torch.tensor([box, [0, 0, 3, 3], box])
    logits = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    protocol = InfoCAMProtocol()
    assert protocol.update(of(maps, logits), truth).tolist() == [True, False, True]
    found = protocol.result()
    assert found["images"] == 3
    assert found["gt_known_loc"] == pytest.approx(200 / 3)
    assert found["top1_loc"] == pytest.approx(100 / 3)
    assert found["top1_acc"] == pytest.approx(200 / 3)
    assert math.isnan(InfoCAMProtocol().result()["gt_known_loc"])


def test_scenes_end_to_end():
    model = attrib.load_model("demo", device="cpu")
    data = ScenesWithBoxes(Scenes(length=40, size=96, seed=3))
    scores = {
        method: evaluate_wsol(
            attrib.Explainer(model, method), data, InfoCAMProtocol(threshold=0.3), limit=30
        )
        for method in ("cam", "infocam+")
    }
    for method, found in scores.items():
        assert (found["images"], found["method"], found["exact"]) == (30, method, True)
        assert found["top1_acc"] > 90
    assert scores["infocam+"]["gt_known_loc"] > 0


def write_cub(root, pictures=4):
    (root / "images" / "001.A").mkdir(parents=True)
    names = [f"001.A/{i}.jpg" for i in range(pictures)]
    for name in names:
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(root / "images" / name)
    keys = [str(3 * i + 1) for i in range(pictures)]

    def table(name, rows):
        (root / name).write_text("".join(f"{k} {v}\n" for k, v in rows))

    table("images.txt", zip(keys, names, strict=True))
    table("classes.txt", [("7", "001.A"), ("9", "002.B")])
    table("image_class_labels.txt", [(k, "9" if i % 2 else "7") for i, k in enumerate(keys)])
    table("bounding_boxes.txt", [(k, "5.0 6.0 20.0 10.5") for k in keys])
    table("train_test_split.txt", [(k, str(int(i == 0))) for i, k in enumerate(keys)])


def test_cub_layout(tmp_path):
    write_cub(tmp_path)
    test, train = CUB(tmp_path), CUB(tmp_path, "train")
    assert (len(test), len(train)) == (3, 1)
    assert test.labels == ("001.A", "002.B")
    sample = test[0]
    assert isinstance(sample, BoxSample)
    assert (sample.id, sample.label) == ("001.A/1.jpg", 1)
    assert sample.boxes.tolist() == [[5, 6, 25, 16.5]]
    assert attrib.read_image(sample.picture).pixels.shape == (3, 40, 60)


def test_cub_errors(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*classes.txt.*root is the folder"):
        CUB(tmp_path)
    write_cub(tmp_path)
    with pytest.raises(InputError, match="splits 'train' and 'test', got 'val'"):
        CUB.__init__.__wrapped__(CUB.__new__(CUB), tmp_path, "val")
    (tmp_path / "bounding_boxes.txt").write_text("1 2 3 4 5\n")
    with pytest.raises(InputError, match="do not fit together"):
        CUB(tmp_path)


def test_a_model_of_other_classes_is_refused(tmp_path):
    write_cub(tmp_path)
    explainer = attrib.Explainer(attrib.load_model("demo", device="cpu"), "cam")
    with pytest.raises(InputError, match="class names differ: demo has 'bull' where CUB"):
        evaluate_wsol(explainer, CUB(tmp_path), InfoCAMProtocol())


CUB_REFERENCE = {
    "cam": (51.28, 38.89),
    "cam(region=4)": (58.40, 45.30),
    "infocam": (58.55, 45.30),
    "infocam(region=1)": (51.28, 39.03),
    "infocam+": (61.40, 46.44),
    "infocam+(region=1)": (52.28, 39.32),
    "infocam+(region=3)": (60.26, 45.44),
    "infocam+(region=5, border='same')": (41.88, 30.20),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", CUB_REFERENCE)
def test_cub_agrees_with_independent_figures(shared, method, tmp_path):
    model = attrib.load_model(f"local-dir:{shared}/models/mobilenetv2_cub50")
    data = CUB(shared / "data" / "CUB_200_2011")
    found = evaluate_wsol(attrib.Explainer(model, method), data, InfoCAMProtocol())
    (tmp_path / "found.json").write_text(json.dumps(found))
    known, top1 = CUB_REFERENCE[method]
    assert found["images"] == 702
    assert found["gt_known_loc"] == pytest.approx(known, abs=1.0)
    assert found["top1_loc"] == pytest.approx(top1, abs=1.0)
    assert found["top1_acc"] == pytest.approx(73.08, abs=0.5)


def test_cub_sample_localises_better_with_infocam_plus(shared):
    """A cheap cousin of the full comparison: every eighth test picture."""
    model = attrib.load_model(f"local-dir:{shared}/models/mobilenetv2_cub50")

    class Sample(CUB):
        def __len__(self):
            return super().__len__() // 8

        def __getitem__(self, index):
            return super().__getitem__(8 * index)

    data = Sample(shared / "data" / "CUB_200_2011")
    known = [
        evaluate_wsol(attrib.Explainer(model, m), data, InfoCAMProtocol())["gt_known_loc"]
        for m in ("cam", "infocam+")
    ]
    assert 40 < known[0] < known[1] < 75
