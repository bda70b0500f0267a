"""The field's standard evaluator, written out: threshold, contours, boxes, one by one."""

from importlib import import_module

import cv2
import numpy as np
import pytest
import torch

from attrib.errors import InputError
from attrib.localize.level_sets import all_contours, largest_contours
from attrib.metrics import MaxBoxAcc, PxAP, WsolBatch, best_ious, threshold_boxes
from attrib.metrics.pxap import pixel_counts, pixel_precision_recall
from attrib.types import Frame

RNG = np.random.default_rng(5)


def smooth(height, width, cells):
    grid = RNG.normal(size=(cells, cells))
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def points(height, width, count=6):
    plane = np.zeros((height, width))
    plane[RNG.integers(height, size=count), RNG.integers(width, size=count)] = RNG.integers(1, 3)
    return plane


def rings(height, width):
    y, x = np.mgrid[:height, :width]
    return (np.maximum(abs(y - height // 2), abs(x - width // 2)) % 3).astype(float)


ADVERSARIAL = {
    "noise": lambda h, w: RNG.random((h, w)),
    "smooth": lambda h, w: smooth(h, w, 5),
    "negative": lambda h, w: smooth(h, w, 7) - 40,
    "two values": lambda h, w: RNG.integers(0, 2, (h, w)).astype(float),
    "three values": lambda h, w: RNG.integers(0, 3, (h, w)).astype(float),
    "plateaus": lambda h, w: np.round(3 * smooth(h, w, 4)),
    "mostly on": lambda h, w: (RNG.random((h, w)) < 0.8).astype(float),
    "checkerboard": lambda h, w: (np.indices((h, w)).sum(0) % 2).astype(float),
    "single pixels": points,
    "lines": lambda h, w: np.repeat(RNG.integers(0, 4, (h, 1)), w, 1).astype(float),
    "ramp": lambda h, w: np.add.outer(np.arange(h), np.arange(w)).astype(float),
    "rings": rings,
    "constant": lambda h, w: np.full((h, w), 3.0),
    "one hole": lambda h, w: 1 - points(h, w, 1),
}
SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 3), (13, 8), (20, 21)]


def normalised(plane):
    low, high = plane.min(), plane.max()
    return np.zeros_like(plane) if low == high else (plane - low) / (high - low)


def literal_boxes(score, threshold, multiple):
    height, width = score.shape
    image = (score * 255).astype(np.uint8)
    _, cut = cv2.threshold(image, int(threshold * image.max()), 255, cv2.THRESH_BINARY)
    contours = cv2.findContours(cut, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return [[0, 0, 0, 0]]
    if not multiple:
        contours = [max(contours, key=cv2.contourArea)]
    boxes = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
    return boxes


def literal_iou(a, b):
    overlap_x = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    overlap_y = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return overlap_x * overlap_y / (areas[0] + areas[1] - overlap_x * overlap_y)


@pytest.mark.parametrize("engine", ["opencv", "torch"])
@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_every_box_is_the_evaluators(kind, multiple, engine, monkeypatch):
    find = all_contours if multiple else largest_contours
    monkeypatch.setattr(
        f"attrib.metrics.maxboxacc.{find.__name__}",
        lambda *maps: find(*maps, engine),
    )
    thresholds = torch.from_numpy(np.arange(0, 1, 0.07))
    for height, width in SIZES:
        scores = np.stack([normalised(ADVERSARIAL[kind](height, width)) for _ in range(2)])
        found = threshold_boxes(
            torch.from_numpy(scores), thresholds, "all" if multiple else "largest"
        )
        for i, score in enumerate(scores):
            for j, threshold in enumerate(thresholds.tolist()):
                here = (found.image == i) & (found.threshold == j)
                want = literal_boxes(score, threshold, multiple)
                assert sorted(found.boxes[here].tolist()) == sorted(want), (height, width, j)


@pytest.mark.parametrize("multiple", [False, True])
def test_a_thousand_thresholds_at_full_size(multiple):
    score = normalised(smooth(224, 224, 14))
    thresholds = np.arange(0, 1, 0.001)
    found = threshold_boxes(
        torch.from_numpy(score)[None],
        torch.from_numpy(thresholds),
        "all" if multiple else "largest",
    )
    for j in range(0, 1000, 7):
        want = literal_boxes(score, thresholds[j], multiple)
        assert sorted(found.boxes[found.threshold == j].tolist()) == sorted(want)


@pytest.mark.parametrize("find", [all_contours, largest_contours])
def test_some_maps_at_a_time_are_all_maps(find, monkeypatch):
    monkeypatch.setattr(import_module("attrib.localize.level_sets"), "TOGETHER", 6000)
    dark, many = np.zeros((48, 60)), [RNG.random((48, 60)) for _ in range(2)]
    planes = [dark, *many, normalised(smooth(48, 60, 7)), dark]
    scores, cuts = torch.from_numpy(np.stack(planes)), torch.arange(255)
    answers = []
    for engine in ("opencv", "torch"):
        found = find(scores, cuts, engine)
        rows = torch.cat([found.image[:, None], found.cut[:, None], found.boxes], 1)
        answers.append(rows.unique(dim=0, return_counts=True))
    assert set(answers[0][0][:, 0].tolist()) == {1, 2, 3}
    for here, there in zip(*answers, strict=True):
        assert torch.equal(here, there)


def test_maps_that_do_not_use_the_whole_range():
    scores = torch.from_numpy(0.3 * normalised(smooth(12, 12, 5)))[None]
    thresholds = torch.from_numpy(np.arange(0, 1, 0.1))
    found = threshold_boxes(scores, thresholds, "all")
    for j, threshold in enumerate(thresholds.tolist()):
        want = literal_boxes(scores[0].numpy(), threshold, True)
        assert sorted(found.boxes[found.threshold == j].tolist()) == sorted(want)


def test_overlaps_are_the_evaluators():
    scores = np.stack([normalised(smooth(24, 30, 6)) for _ in range(5)] + [np.zeros((24, 30))])
    truth = [RNG.integers(0, 12, (m, 4)) + np.array([0, 0, 12, 10]) for m in (1, 2, 1, 3, 1, 1)]
    truth[-1][0] = [0, 0, 1, 1]
    thresholds = np.arange(0, 1, 0.05)
    for kind in ("largest", "all"):
        got = best_ious(
            torch.from_numpy(scores),
            torch.from_numpy(thresholds),
            [torch.from_numpy(boxes).double() for boxes in truth],
            kind,
        )
        for i, score in enumerate(scores):
            for j, threshold in enumerate(thresholds):
                found = literal_boxes(score, threshold, kind == "all")
                want = max(literal_iou(a, b) for a in found for b in truth[i])
                assert float(got[i, j]) == want


def batch_of(maps, boxes, *, sources, masks=None, rank=None):
    side = maps.shape[-1]
    return WsolBatch(
        ids=tuple(str(i) for i in range(len(maps))),
        maps=maps,
        frames=tuple(Frame(source=s, resized=(side, side), tensor=(side, side)) for s in sources),
        boxes=tuple(boxes),
        masks=tuple(masks or [None] * len(maps)),
        rank=rank,
    )


@pytest.mark.parametrize("version", [MaxBoxAcc, MaxBoxAcc.v2])
def test_counts_are_the_evaluators(version):
    """From raw maps and source boxes to the figures, in two batches."""
    maps = torch.from_numpy(np.stack([smooth(40, 40, 4) for _ in range(8)]))
    sources = [(50, 70), (31, 64)] * 4
    boxes = [torch.tensor([[7.5, 3, 40.2, 29.9], [1, 1, 9, 9]])[: 1 + i % 2] for i in range(8)]
    protocol = version(interval=0.05, size=40)
    rank = torch.tensor([0, 1, 4, 5, 0, 0, 9, 2])
    for part in (slice(0, 3), slice(3, 8)):
        protocol.update(batch_of(maps[part], boxes[part], sources=sources[part], rank=rank[part]))
    right = np.zeros((3, len(protocol.ious), 20))
    for plane, source, true, place in zip(maps.numpy(), sources, boxes, rank, strict=True):
        height, width = source
        scale = np.array([width, height, width, height])
        square = (true.double().numpy() * 40 / scale).astype(int)
        for j, threshold in enumerate(np.arange(0, 1, 0.05)):
            found = literal_boxes(normalised(plane), threshold, protocol.contours == "all")
            best = max(literal_iou(a, b) for a in found for b in square)
            for k, iou in enumerate(protocol.ious):
                right[:, k, j] += np.array([1, place < 1, place < 5]) * (best >= iou)
    result = protocol.result()
    share = 100 * right / 8
    assert result["images"] == 8
    assert result["oracle"][protocol.name] == pytest.approx(share[0].max(1).mean())
    for k, (fixed, oracle) in enumerate(
        zip(result["fixed"]["ious"], result["oracle"]["ious"], strict=True)
    ):
        at = share[0, k].argmax()
        for row, j in ((fixed, 4), (oracle, at)):
            want = [np.arange(0, 1, 0.05)[j], *share[:, k, j]]
            got = [row[x] for x in ("threshold", "gt_known_loc", "top1_loc", "top5_loc")]
            assert got == pytest.approx(want)


def literal_pxap(scores, masks, interval):
    edges = np.append(np.arange(0, 1, interval), [1.0, 2.0, 3.0])
    right, wrong = (np.histogram(scores[masks == v], edges)[0].astype(float) for v in (1, 0))
    tp, fp = right[::-1].cumsum(), wrong[::-1].cumsum()
    area = 0.0
    for i in range(1, len(tp)):
        if tp[i] + fp[i] > 0:
            area += tp[i] / (tp[i] + fp[i]) * (tp[i] - tp[i - 1]) / right.sum()
    iou = max(t / (right.sum() + f) for t, f in zip(tp, fp, strict=True))
    return 100 * area, 100 * iou


@pytest.mark.parametrize("interval", [0.001, 0.1])
def test_pxap_is_the_evaluators(interval):
    scores = np.stack([normalised(smooth(30, 30, 5)) for _ in range(4)])
    scores[0] = np.round(scores[0], 1)  # on the edges of bins
    masks = RNG.choice(np.array([0, 1, 255], np.uint8), (4, 30, 30))
    protocol = PxAP(interval=interval, size=30)
    protocol.update(
        batch_of(
            torch.from_numpy(scores),
            [torch.zeros(0, 4)] * 4,
            sources=[(30, 30)] * 4,
            masks=list(torch.from_numpy(masks)),
        )
    )
    again = np.stack([normalised(score) for score in scores])
    area, iou = literal_pxap(again, masks, interval)
    result = protocol.result()
    assert result["pxap"] == pytest.approx(area, rel=1e-12)
    assert result["piou"]["oracle"]["iou"] == pytest.approx(iou, rel=1e-12)


def test_pixel_counts_by_hand():
    scores = torch.tensor([[[0.0, 0.5, 1.0, 0.49]]], dtype=torch.float64)
    masks = torch.tensor([[[0, 1, 1, 255]]])
    counts = pixel_counts(scores, masks, torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert counts.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0]]
    precision, recall, iou = pixel_precision_recall(counts)
    assert recall.tolist() == [0, 0.5, 1, 1]
    assert precision[1:].tolist() == [1, 1, pytest.approx(2 / 3)]
    assert iou[2] == 1


def test_what_has_no_score_is_refused():
    grid = torch.tensor([0.2], dtype=torch.float64)
    bad = torch.full((1, 4, 4), torch.nan, dtype=torch.float64)
    for scores in (bad, bad.nan_to_num(2.0), bad.nan_to_num(-1.0)):
        with pytest.raises(InputError, match=r"scores lie in \[0, 1\]"):
            threshold_boxes(scores, grid)
    with pytest.raises(InputError, match="thresholds lie in"):
        threshold_boxes(bad.nan_to_num(0.5), grid + 1)
    with pytest.raises(InputError, match="picture 0 holds NaN"):
        batch_of(bad, [torch.zeros(1, 4)], sources=[(4, 4)])
