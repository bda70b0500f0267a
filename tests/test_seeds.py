import numpy as np
import pytest
import torch
from PIL import Image

import attrib
from attrib.errors import InputError
from attrib.images import Picture
from attrib.methods.rib import multi_scale_cam
from attrib.metrics.segmentation import SeedSweep
from attrib.seeds import aggregate, seed_views
from tests.models import SPEC
from tests.reference.test_rib import load, mirrored, multi_hot, split, weights_of


def literal_scores(cases, classes, threshold):
    """The definition: prepend a plane, take the argmax, fill a confusion matrix, divide."""
    confusion = np.zeros((classes + 1, classes + 1))
    for maps, keys, truth in cases:
        plane = np.full((1, *truth.shape), threshold)
        names = np.concatenate([[0], keys.numpy() + 1]).astype(int)
        said = names[np.concatenate([plane, maps.double().numpy()]).argmax(0)]
        for t, s in zip(truth.numpy().ravel(), said.ravel(), strict=True):
            if t != 255:
                confusion[t, s] += 1
    with np.errstate(invalid="ignore"):
        right = confusion.diagonal()
        return (
            right / (confusion.sum(0) + confusion.sum(1) - right),
            right / confusion.sum(0),
            right / confusion.sum(1),
        )


def cases(seed=0):
    generator = torch.Generator().manual_seed(seed)
    out = []
    for keys, size in (([1, 3], (9, 12)), ([0], (7, 8)), ([], (5, 5)), ([3], (6, 4))):
        maps = torch.rand(len(keys), *size, generator=generator).mul(20).round().div(20)
        truth = torch.randint(0, 5, size, generator=generator)
        truth[0, :2] = 255
        out.append((maps, torch.tensor(keys, dtype=torch.int64), truth))
    return out


def test_one_sweep_equals_thresholding_again_and_again():
    thresholds = (0.0, 0.25, 0.5, 0.75, 1.0)  # maps take these values too: ties are background
    sweep = SeedSweep(4, thresholds)
    for case in cases():
        sweep.update(*case)
    for i, threshold in enumerate(thresholds):
        found = sweep.at(i)
        want = literal_scores(cases(), 4, threshold)
        for got, expected in zip((found.iou, found.precision, found.recall), want, strict=True):
            np.testing.assert_allclose(got.numpy(), expected)
    scores = [sweep.at(i).miou for i in range(5)]
    best = sweep.best()
    assert (best.miou, best.threshold) == (max(scores), thresholds[int(np.argmax(scores))])
    assert list(sweep.curve().values()) == scores
    assert sweep.pictures == 4
    table = best.to_dict(("a", "b", "c", "d"))
    assert table["miou"] == best.miou
    assert table["classes"]["c"] == {"iou": 0, "precision": None, "recall": 0}


def test_sweep_errors():
    with pytest.raises(InputError, match="ascending order"):
        SeedSweep(4, (0.5, 0.2))
    with pytest.raises(InputError, match=r"maps are \(3, 4\), the mask \(4, 3\)"):
        SeedSweep(4).update(torch.rand(1, 3, 4), torch.tensor([0]), torch.zeros(4, 3).long())
    with pytest.raises(InputError, match="class 4 is none of the 4"):
        SeedSweep(4).update(torch.rand(1, 3, 4), torch.tensor([4]), torch.zeros(3, 4).long())
    with pytest.raises(InputError, match="class 6 is none of the 4"):
        SeedSweep(4).update(torch.rand(1, 3, 4), torch.tensor([0]), torch.full((3, 4), 7))


def test_views_are_pillow_bicubic_at_rounded_sizes():
    pixels = torch.randint(0, 256, (3, 45, 31), dtype=torch.uint8)
    views = seed_views(Picture(pixels=pixels), SPEC, (1.0, 0.5, 1.5))
    assert [tuple(v.shape) for v in views] == [(2, 3, 45, 31), (2, 3, 22, 16), (2, 3, 68, 46)]
    small = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((16, 22), Image.BICUBIC)
    want = (np.array(small) / 255 - SPEC.mean) / SPEC.std
    np.testing.assert_allclose(views[1][0].permute(1, 2, 0), want, atol=1e-6)
    assert torch.equal(views[2][1], views[2][0].flip(2))
    assert len(seed_views(Picture(pixels=pixels), SPEC, (1.0,), flip=False)[0]) == 1


@pytest.mark.parametrize("name", ["rib_main", "rib_gap"])
def test_published_seed_maps(shared, name):
    golden = load(shared, name)
    sums = [torch.from_numpy(golden[f"sum_cam_scale{i}"]) for i in range(4)]
    found = aggregate(sums, multi_hot(golden["labels"]), (67, 90))
    assert found.keys.tolist() == golden["keys"].tolist()
    np.testing.assert_allclose(found.cam, golden["cam_strided"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.high_res, golden["cam_highres"], atol=1e-4)


def test_published_multi_scale_pipeline_from_the_picture(shared):
    """From 8-bit pictures of odd sizes to both maps, through our own resizing."""
    golden = load(shared, "irn_make_cam")
    classifier = split(weights_of(golden, "w/"))
    for i in range(int(golden["n_images"])):
        picture = attrib.read_image(golden[f"image_u8_{i}"])
        views = seed_views(picture, classifier.spec)
        for s, view in enumerate(views):
            torch.testing.assert_close(view, mirrored(golden[f"ms_u8_{i}_{s}"]))
        sums = multi_scale_cam(classifier, views)
        labels = multi_hot(golden[f"keys_{i}"])
        found = aggregate(sums, labels, tuple(picture.pixels.shape[1:]))
        np.testing.assert_allclose(found.cam, golden[f"cam_{i}"], atol=1e-5)
        np.testing.assert_allclose(found.high_res, golden[f"high_res_{i}"], atol=1e-5)
