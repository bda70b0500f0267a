import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from attrib.datasets import BoxDataset, BoxList, ImageNetBoxes, PerClass, TinyImageNet, WsolMetadata
from attrib.datasets.voc import VOC
from attrib.errors import InputError
from attrib.metrics.wsol_batch import square_masks

XML = (
    "<annotation><object><name>{name}</name><bndbox><xmin>3</xmin><ymin>4</ymin>"
    "<xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>"
)


def picture(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 80, 70)).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def tiny(tmp_path):
    text(tmp_path / "wnids.txt", "n01443537\nn01440764\n")
    text(tmp_path / "words.txt", "n01440764\ttench, Tinca tinca\nn01443537\tgoldfish\n")
    text(tmp_path / "val/val_annotations.txt", "v0.JPEG\tn01440764\t0\t32\t44\t62\n")
    picture(tmp_path / "val/images/v0.JPEG", (64, 64))
    text(tmp_path / "train/n01443537/n01443537_boxes.txt", "t0.JPEG\t1\t2\t3\t63\n")
    text(tmp_path / "train/n01440764/n01440764_boxes.txt", "")
    return tmp_path


def test_tiny_imagenet_by_itself(tiny):
    data = TinyImageNet(tiny)
    assert isinstance(data, BoxDataset)
    assert data.labels == ("goldfish", "tench, Tinca tinca")
    (sample,) = list(data)
    assert (sample.id, sample.label) == ("v0.JPEG", 1)
    assert sample.boxes.tolist() == [[0, 32, 45, 63]]
    train = TinyImageNet(tiny, "train")
    assert (train[0].id, train[0].boxes.tolist()) == ("n01443537/t0.JPEG", [[1, 2, 4, 64]])


def test_tiny_imagenet_in_the_classes_of_an_imagenet_model(tiny):
    names = ["tench", "goldfish, Carassius auratus", *map(str, range(998))]
    assert TinyImageNet(tiny, classes=names)[0].label == 0
    with pytest.raises(InputError, match="the model's classes are in another order"):
        TinyImageNet(tiny, classes=names[::-1])
    assert TinyImageNet(tiny, classes=names[:10])[0].label == 1


def test_tiny_imagenet_errors(tiny):
    text(tiny / "val/val_annotations.txt", "v0.JPEG\tn9\t0\t32\t44\t62\n")
    with pytest.raises(InputError, match=r"n9, which wnids.txt does not list"):
        TinyImageNet(tiny)
    text(tiny / "val/val_annotations.txt", "v0.JPEG\tn01440764\t0\t32\n")
    with pytest.raises(InputError, match="expected name, class, 4 corners"):
        TinyImageNet(tiny)


@pytest.mark.parametrize("place", ["n01440764/a.JPEG", "a.JPEG"])
def test_imagenet(tmp_path, place):
    picture(tmp_path / "val" / place)
    text(tmp_path / "xml/val/a.xml", XML.format(name="n01440764"))
    data = ImageNetBoxes(tmp_path / "val", tmp_path / "xml")
    assert len(data.labels) == 1000
    assert (data[0].id, data[0].label, data[0].boxes.tolist()) == ("a", 0, [[3, 4, 20, 30]])
    text(tmp_path / "xml/val/b.xml", XML.format(name="n01440764"))
    with pytest.raises(InputError, match=r"lacks pictures that .* annotates: b"):
        ImageNetBoxes(tmp_path / "val", tmp_path / "xml")


def metadata(root, localization):
    text(root / "m/test/image_ids.txt", "test/a.jpg\ntest/b.jpg\n")
    text(root / "m/test/class_labels.txt", "test/a.jpg,3\ntest/b.jpg,0\n")
    text(root / "m/test/localization.txt", localization)
    return WsolMetadata(root, root / "m/test")


def test_evaluator_lists_with_boxes(tmp_path):
    data = metadata(tmp_path, "test/a.jpg,1,2,3,4\ntest/b.jpg,0,0,5,5\ntest/a.jpg,5,6,7,8\n")
    assert data.name == "m test"
    assert (data[0].id, data[0].label) == ("test/a.jpg", 3)
    assert data[0].boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert data[0].picture == tmp_path / "test/a.jpg"
    with pytest.raises(InputError, match=r"no class or no object for test/b.jpg"):
        metadata(tmp_path, "test/a.jpg,1,2,3,4\n")
    with pytest.raises(InputError, match="expected 3 or 5 columns"):
        metadata(tmp_path, "test/a.jpg,1,2\n,\n")


def test_evaluator_lists_with_masks(tmp_path):
    rows = "test/a.jpg,1.png,i.png\ntest/a.jpg,2.png,i.png\ntest/b.jpg,1.png,\n"
    planes = {"1": [[255, 0, 0, 0]], "2": [[0, 200, 90, 0]], "i": [[255, 0, 255, 0]]}
    for name, plane in planes.items():
        Image.fromarray(np.array(plane, np.uint8)).save(tmp_path / f"{name}.png")
    data = metadata(tmp_path, rows)
    assert data[0].mask.tolist() == [[1, 1, 1, 0]]
    assert data[1].mask.tolist() == [[1, 0, 0, 0]]
    assert data[0].boxes.shape == (0, 4)


def literal_mask(objects, ignored):
    """As the evaluator reads them: grey in 8 bits, nearest to 224 x 224, then cut at a half."""

    def read(path):
        plane = np.float32(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        return cv2.resize(plane, (224, 224), interpolation=cv2.INTER_NEAREST) > 0.5

    united = np.stack([read(path) for path in objects]).any(0)
    ignored = read(ignored) & ~united
    return united.astype(np.uint8) + 255 * ignored.astype(np.uint8)


@pytest.mark.parametrize(
    "sizes", [[(50, 40)] * 3, [(50, 40), (33, 61), (224, 224)], [(9, 7), (9, 7), (300, 20)]]
)
@pytest.mark.parametrize("levels", [[0, 100, 255], [0, 1, 2], [0, 255]])
def test_masks_are_read_as_the_evaluator_reads_them(tmp_path, sizes, levels):
    draw = np.random.default_rng(0)
    for name, size in zip("12i", sizes, strict=True):
        plane = draw.choice(np.array(levels, np.uint8), size)
        Image.fromarray(plane).save(tmp_path / f"{name}.png")
    rows = "test/a.jpg,1.png,i.png\ntest/a.jpg,2.png,i.png\ntest/b.jpg,1.png,\n"
    mask = metadata(tmp_path, rows)[0].mask
    want = literal_mask([tmp_path / "1.png", tmp_path / "2.png"], tmp_path / "i.png")
    assert np.array_equal(square_masks([mask], 224, mask.device)[0], want)
    assert (want == 255).any()
    if len(set(sizes)) == 1:
        assert mask.shape == sizes[0]


@pytest.mark.parametrize("mode", ["1", "P", "I;16", "RGB", "LA"])
def test_masks_of_any_kind_of_png(tmp_path, mode):
    levels = np.array([[0, 1, 100, 255]], np.uint8)
    plane = Image.fromarray(levels).resize((224, 224), Image.Resampling.NEAREST)
    deep = np.array(plane).astype(np.uint16) * 256 - (np.array(plane) == 1)  # 255 of 65535: none
    (Image.fromarray(deep) if mode == "I;16" else plane.convert(mode)).save(tmp_path / "1.png")
    mask = metadata(tmp_path, "test/a.jpg,1.png,1.png\ntest/b.jpg,1.png,\n")[0].mask
    assert np.array_equal(mask, literal_mask([tmp_path / "1.png"], tmp_path / "1.png"))


def test_a_csv_of_boxes(tmp_path):
    picture(tmp_path / "a/x.png")
    table = tmp_path / "boxes.csv"
    text(table, "label,path,x0,y0,x1,y1\ncat,a/x.png,1,2,3,4\ndog,a/x.png,0,0,9,9\n"
         "cat,a/x.png,5,5,6,6\n")  # fmt: skip
    data = BoxList(tmp_path, table)
    assert data.labels == ("cat", "dog")
    assert [sample.id for sample in data] == ["a/x.png#cat", "a/x.png#dog"]
    assert data[0].boxes.tolist() == [[1, 2, 3, 4], [5, 5, 6, 6]]
    assert BoxList(tmp_path, table, classes=["dog", "cat"])[0].label == 1
    for line, message in {
        "cat,a/x.png,3,2,1,4": "a box is x0 < x1",
        "cat,a/y.png,1,2,3,4": "files that do not exist: a/y.png",
        "cat,../x.png,1,2,3,4": "within the data set's folder",
        "cat,a/x.png,1,2,3": "5 cells under a header of 6",
    }.items():
        text(table, f"label,path,x0,y0,x1,y1\n{line}\n")
        with pytest.raises(InputError, match=message):
            BoxList(tmp_path, table)
    text(table, "label,path,x0,y0,x1\n")
    with pytest.raises(InputError, match="has no column y1"):
        BoxList(tmp_path, table)


def test_a_picture_once_per_class(tmp_path):
    text(tmp_path / "ImageSets/Segmentation/val.txt", "p\n")
    text(tmp_path / "Annotations/p.xml", XML.format(name="cat"))
    (tmp_path / "SegmentationClass").mkdir()
    mask = Image.fromarray(np.array([[0, 8, 255, 3]], np.uint8))
    mask.save(tmp_path / "SegmentationClass/p.png")
    data = PerClass(VOC(tmp_path, "val"), masks=True)
    (sample,) = [data[i] for i in range(len(data))]
    assert (sample.id, sample.label) == ("p#cat", 7)
    assert sample.boxes.tolist() == [[2, 3, 20, 30]]  # counted from 1, ends included
    assert torch.equal(sample.mask, torch.tensor([[0, 1, 255, 0]], dtype=torch.uint8))


def test_a_csv_of_boxes_names_the_picture_of_an_unknown_class(tmp_path):
    for name in "xyz":
        picture(tmp_path / f"{name}.png")
    table = tmp_path / "boxes.csv"
    text(table, "path,label,x0,y0,x1,y1\nx.png,cat,1,2,3,4\ny.png,cow,1,2,3,4\nz.png,cow,1,2,3,4\n")
    with pytest.raises(InputError, match=r"boxes\.csv: 'cow' of y\.png is no class"):
        BoxList(tmp_path, table, classes=["cat", "dog"])
