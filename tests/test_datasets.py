"""Labelled data sets: small layouts written by hand, and the real ones."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from attrib.datasets.coco import COCO
from attrib.datasets.folder import Folder
from attrib.datasets.labelled import IGNORE, LabelledDataset
from attrib.datasets.voc import VOC
from attrib.errors import InputError, MissingExtraError

VOC_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def write_mask(path, rows, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(rows, np.uint8))
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.convert(mode).save(path)


def write_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(path)


def voc(tmp_path, annotations=()):
    """Two pictures, a cat with a person and a bus, and their lists."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    write(root / "ImageSets/Segmentation/train.txt", "2007_000001\n2007_000002\n\n")
    write(root / "ImageSets/Segmentation/val.txt", "2007_000002\n")
    lines = (f"/JPEGImages/{i}.jpg /SegmentationClassAug/{i}.png" for i in ("2007_000001", "extra"))
    write(root / "ImageSets/SegmentationAug/train_aug.txt", "\n".join(lines))
    write_mask(root / "SegmentationClass/2007_000001.png", [[0, 8, 255], [15, 8, 0]])
    write_mask(root / "SegmentationClass/2007_000002.png", [[6, 6, 6], [0, 0, 0]])
    write_mask(root / "SegmentationClassAug/2007_000001.png", [[1, 1, 20], [0, 0, 255]], "L")
    write_mask(root / "SegmentationClassAug/extra.png", [[0, 0, 255], [0, 0, 0]])
    for key, names in dict(annotations).items():
        write(root / f"Annotations/{key}.xml", annotation(names))
    return root


def annotation(names):
    part = "<part><name>head</name></part>"
    objects = (f"<object><name>{n}</name><difficult>1</difficult>{part}</object>" for n in names)
    return f"<annotation><filename>x</filename>{''.join(objects)}</annotation>"


def labels_of(data):
    return {sample.id: sample.labels for sample in data}


# PASCAL VOC


def test_voc_labels_from_masks(tmp_path):
    root = voc(tmp_path)
    data = VOC(root, "train")
    assert isinstance(data, LabelledDataset)
    assert (data.name, len(data), data.label_source) == ("VOC 2012 train", 2, "masks")
    assert list(data.labels) == VOC_NAMES
    assert data.category_ids == tuple(range(1, 21))
    assert labels_of(data) == {"2007_000001": (7, 14), "2007_000002": (5,)}
    assert data[0].picture == root / "JPEGImages/2007_000001.jpg"
    assert data.mask(0).tolist() == [[0, 8, 255], [15, 8, 0]]
    assert data.mask(-1).dtype == torch.uint8
    with pytest.raises(IndexError):
        data[2]


def test_voc_above_and_by_list_file(tmp_path):
    root = voc(tmp_path)
    assert labels_of(VOC(root.parent, "val")) == {"2007_000002": (5,)}
    own = write(tmp_path / "own.txt", "2007_000001")
    for split in (own, str(own)):
        assert VOC(root, split).name == "VOC 2012 own"
        assert VOC(root, split)[0].labels == (7, 14)
    (root.parent / "VOC2007").mkdir()
    with pytest.raises(InputError, match="holds VOC2007, VOC2012; pass the folder of one"):
        VOC(root.parent)


def test_voc_augmented_lists_and_masks(tmp_path):
    root = voc(tmp_path)
    data = VOC(root, "train_aug")
    assert labels_of(data) == {"2007_000001": (0, 19), "extra": ()}
    assert data[1].picture == root / "JPEGImages/extra.jpg"
    assert data.mask(0).tolist() == [[1, 1, 20], [0, 0, 255]]
    data = VOC(root, "train_aug", masks=root / "SegmentationClassAug")
    assert data.mask(0)[0, 0] == 1
    own = VOC(root, "val", masks=root / "SegmentationClass")
    assert own.mask(0)[0, 0] == 6
    with pytest.raises(InputError, match=r"no mask .*SegmentationClassAug/2007_000002\.png"):
        VOC(root, "train", masks=root / "SegmentationClassAug")
    with pytest.raises(InputError, match="masks is a folder"):
        VOC(root, "train", masks=root / "nowhere")


def test_voc_annotations_are_the_source_once_their_folder_exists(tmp_path):
    given = {"2007_000001": ["tvmonitor", "bird", "bird"], "2007_000002": []}
    data = VOC(voc(tmp_path, given), "train")
    assert data.label_source == "annotations"
    assert labels_of(data) == {"2007_000001": (2, 19), "2007_000002": ()}
    (tmp_path / "VOCdevkit/VOC2012/Annotations/2007_000002.xml").unlink()
    with pytest.raises(InputError, match=r"cannot read .*2007_000002\.xml"):
        VOC(voc(tmp_path), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares a document type"),
        ("<annotation>", "is damaged"),
        ("<svg/>", "holds <svg>"),
        (annotation(["person", "horze"]), "'horze' is no VOC class; did you mean 'horse'"),
        (annotation(["3"]), "'3' is no VOC class"),
        ("<annotation><object/></annotation>", "'' is no VOC class"),
    ],
)
def test_voc_bad_annotations(tmp_path, text, message):
    root = voc(tmp_path, {"2007_000002": ["bus"]})
    path = write(root / "Annotations/2007_000002.xml", text)
    with pytest.raises(InputError, match=message):
        VOC(root, "val")
    path.write_bytes(text.encode("utf-16"))  # a document type must not hide in another encoding
    with pytest.raises(InputError, match="is not UTF-8 text"):
        VOC(root, "val")


def test_voc_labels_from_a_file_come_before_annotations(tmp_path):
    root = voc(tmp_path, {"2007_000001": ["bus"], "2007_000002": ["bus"]})
    files = [
        write(tmp_path / "l.json", {"2007_000001": ["cat", 0], "2007_000002": [], "more": [1]}),
        write(tmp_path / "a.csv", "id,labels\n2007_000001,cat;aeroplane\n2007_000002,\n"),
        write(tmp_path / "b.csv", "\ufefflabels,id\r\n7 0 7,2007_000001\r\n\r\n,2007_000002\r\n"),
    ]
    for file in files:
        data = VOC(root, "train", labels=file)
        assert data.label_source == "file"
        assert labels_of(data) == {"2007_000001": (0, 7), "2007_000002": ()}


def test_voc_pickled_class_vectors(tmp_path):
    root, path = voc(tmp_path), tmp_path / "cls_labels.npy"
    cat, bus = np.eye(20, dtype=np.float32)[[7, 5]]
    for rows in (
        {np.int32(2007000001): cat + bus, np.int32(2007000002): bus},
        {"2007_000001": cat + bus, "2007_000002": bus},
    ):
        np.save(path, rows, allow_pickle=True)
        data = VOC(root, "train", labels=path, allow_pickle=True)
        assert labels_of(data) == {"2007_000001": (5, 7), "2007_000002": (5,)}
    with pytest.raises(InputError, match="pass allow_pickle=True"):
        VOC(root, "train", labels=path)
    np.save(path, {"2007_000001": cat / 2})
    with pytest.raises(InputError, match="2007_000001 needs 20 values, 0 or 1"):
        VOC(root, "train", labels=path, allow_pickle=True)
    np.save(path, np.zeros(3))
    with pytest.raises(InputError, match="holds no pickled dict"):
        VOC(root, "train", labels=path, allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.json", {"2007_000001": ["cat"]}, "no labels for 2007_000002, which the split lists"),
        ("l.json", [1], "one JSON object, got a list"),
        ("l.json", "{", "is not JSON"),
        ("l.json", '{"a": ["cat"], "a": ["dog"]}', "lists a more than once"),
        ("l.json", {"a": "cat"}, "'a' needs a list of names or integers, got 'cat'"),
        ("l.json", {"a": [True]}, r"got \[True\]"),
        ("l.json", {"2007_000001": [20], "2007_000002": []}, "20 of 2007_000001 is no class"),
        ("l.json", {"2007_000001": [-1], "2007_000002": []}, "they are 0 to 19"),
        ("l.csv", "id,labels\na,cat\na,dog\n", "lists a more than once"),
        ("l.csv", "id,labels\na,cat,dog\n", "'a,cat,dog' has 3 cells under a header of 2"),
        ("l.csv", "id,labels\na\n", "'a' has 1 cells"),
        ("l.csv", "path,labels\na,cat\n", "first line is 'path,labels'"),
        ("l.csv", "id,label,labels\na,cat,\n", "either label or labels"),
        ("l.csv", 'id,labels\n"a,cat\n', "is not CSV"),
        ("l.csv", "\n", "is empty"),
        ("l.csv", "id,labels\n2007_000001,trian\n2007_000002,\n", "did you mean 'train'"),
        ("l.txt", "", r"ends in \.csv or \.json"),
    ],
)
def test_bad_label_files(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(InputError, match=message):
        VOC(voc(tmp_path), "train", labels=path)


def test_a_label_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*gone\.json: No such file"):
        VOC(voc(tmp_path), "train", labels=tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no pictures"),
        ("a\nb\na\n", "lists a more than once"),
        ("../../a\n", "within the data set's folder"),
        ("/JPEGImages/../../a.jpg /b.png\n", "within the data set's folder"),
        ("2007_000001  1\n", "expected an id, or a picture and a mask"),
        ("a b c\n", "expected an id"),
    ],
)
def test_voc_bad_lists(tmp_path, text, message):
    path = write(tmp_path / "own.txt", text)
    with pytest.raises(InputError, match=message):
        VOC(voc(tmp_path), path)


def test_voc_unknown_split_or_root(tmp_path):
    with pytest.raises(InputError, match="no split 'trian'; did you mean 'train'"):
        VOC(voc(tmp_path), "trian")
    with pytest.raises(InputError, match="root is the folder VOC2012"):
        VOC(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"cannot read .*gone\.txt"):
        VOC(voc(tmp_path), "gone.txt")


def test_bad_masks(tmp_path):
    root = voc(tmp_path, {"2007_000002": ["bus"]})
    data, path = VOC(root, "val"), root / "SegmentationClass/2007_000002.png"
    write_mask(path, [[0, 21, 254]])
    with pytest.raises(InputError, match=r"has the values \[21, 254\]; a mask has 0 to 20 and 255"):
        data.mask(0)
    write_mask(path, [[0, 1]], "RGB")
    with pytest.raises(InputError, match="this has mode RGB"):
        data.mask(0)
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"2007_000002\.png cannot be read"):
        data.mask(0)
    path.unlink()
    with pytest.raises(InputError, match=r"there is no mask .*2007_000002\.png"):
        data.mask(0)


def test_real_voc(shared):
    data = VOC(shared / "data/VOCdevkit")
    assert len(data) == 528
    assert data.label_source == "masks"
    for i in range(len(data)):
        seen = set(data.mask(i).unique().tolist()) - {0, IGNORE}
        assert {label + 1 for label in data[i].labels} == seen
    with Image.open(data[0].picture) as image:
        assert data.mask(0).shape == (image.height, image.width)


# COCO


def rectangle(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def by_columns(cover):
    """Run lengths as COCO writes them: down the columns, beginning with those outside."""
    runs, inside = [0], False
    for value in np.asarray(cover, bool).T.ravel():
        if value != inside:
            runs.append(0)
            inside = not inside
        runs[-1] += 1
    return {"size": list(np.shape(cover)), "counts": runs}


def instances(annotations, **changes):
    """Pictures 139 and 9, 8 wide and 6 high; categories 1, 3 and 90 out of order."""
    names = {139: "000000000139.jpg", 9: "COCO_val2014_000000000009.jpg"}
    pictures = [{"id": i, "file_name": n, "height": 6, "width": 8} for i, n in names.items()]
    categories = [{"id": i, "name": n} for i, n in ((90, "toothbrush"), (1, "person"), (3, "car"))]
    full = [{"image_id": 139, "category_id": 1, "iscrowd": 0} | a for a in annotations]
    return {"images": pictures, "categories": categories, "annotations": full} | changes


def coco(tmp_path, annotations=(), **changes):
    write(tmp_path / "annotations/instances_val2017.json", instances(annotations, **changes))
    (tmp_path / "val2017").mkdir(exist_ok=True)
    return COCO(tmp_path)


def test_coco_labels(tmp_path):
    data = coco(tmp_path, [{"category_id": 90}, {"category_id": 1, "iscrowd": 1}] * 2)
    assert isinstance(data, LabelledDataset)
    assert (data.name, len(data)) == ("COCO val2017", 2)
    assert data.labels == ("person", "car", "toothbrush")
    assert data.category_ids == (1, 3, 90)
    assert labels_of(data) == {"000000000139": (0, 2), "COCO_val2014_000000000009": ()}
    assert [data.image_id(i) for i in range(2)] == [139, 9]
    assert data[0].picture == tmp_path / "val2017/000000000139.jpg"
    assert data.mask(1).tolist() == torch.zeros(6, 8).tolist()


def test_coco_annotations_elsewhere(tmp_path):
    path = write(tmp_path / "elsewhere.json", instances([]))
    with pytest.raises(InputError, match=r"there is no folder .*train2014"):
        COCO(tmp_path, "train2014", annotations=path)
    (tmp_path / "train2014").mkdir()
    assert COCO(tmp_path, "train2014", annotations=path).name == "COCO train2014"


def test_coco_paints_small_objects_last_and_crowds_first(tmp_path):
    crowd = np.zeros((6, 8))
    crowd[:, 3:] = 1
    data = coco(
        tmp_path,
        [
            {"category_id": 90, "segmentation": [rectangle(1, 1, 4, 3)]},
            {"category_id": 1, "segmentation": by_columns(crowd), "iscrowd": 1},
            {"category_id": 3, "segmentation": [rectangle(0, 0, 5, 4), rectangle(0, 5, 2, 6)]},
            {"category_id": 1, "segmentation": [[0, 5, 8, 5]]},
            {"category_id": 1, "segmentation": []},
        ],
    )
    expected = np.zeros((6, 8), int)
    expected[:, 3:] = IGNORE
    expected[:4, :5] = expected[5:, :2] = 2
    expected[1:3, 1:4] = 3
    assert data.mask(0).tolist() == expected.tolist()
    assert data.mask(0).dtype == torch.uint8


def test_coco_run_lengths_of_both_kinds(tmp_path):
    import pycocotools.mask as rle

    cover = np.random.default_rng(0).random((6, 8)) < 0.5
    cover[0, 0] = True  # then the first run, of pixels outside, is empty
    packed = rle.encode(np.asfortranarray(cover.astype(np.uint8)))
    packed["counts"] = packed["counts"].decode()
    for outline in (by_columns(cover), packed):
        mask = coco(tmp_path, [{"category_id": 3, "segmentation": outline}]).mask(0)
        assert mask.tolist() == (2 * cover).tolist()


@pytest.mark.parametrize(
    "outline",
    [
        None,
        [[0, 0, 1, 0, 1, 1, 2]],
        [["a"] * 6],
        [[0, 0, float("nan"), 0, 1, 1]],
        [[0, 0, 1e9, 0, 1, 1]],
        {"size": [8, 6], "counts": [48]},
        {"size": [6, 8], "counts": [40]},
        {"size": [6, 8], "counts": [40, 9]},
        {"size": [6, 8], "counts": [-2, 50]},
        {"size": [6, 8], "counts": "5"},
        {"size": [6, 8], "counts": ""},
        {"size": [6, 8], "counts": "zzzz"},
        {"size": [6, 8], "counts": "\u00e9"},
        {"size": [6, 8]},
    ],
)
def test_coco_bad_outlines(tmp_path, outline):
    data = coco(tmp_path, [{"segmentation": outline}])
    with pytest.raises(InputError, match="outline of an object in 000000000139 cannot be used"):
        data.mask(0)


@pytest.mark.parametrize(
    ("annotations", "changes", "message"),
    [
        ([{"category_id": 2}], {}, r"do not fit together \(KeyError\(2\)\)"),
        ([{"image_id": 140}], {}, "do not fit together"),
        ([], {"categories": [{"id": 1}]}, "do not fit together"),
        ([], {"images": []}, "lists no pictures"),
        ([], {"images": [{"id": 1, "file_name": "../a", "height": 1, "width": 1}]}, "names the"),
        ([], {"images": [{"id": 1, "file_name": "C:\\a", "height": 1, "width": 1}]}, "names the"),
        ([], {"images": [{"id": 1, "file_name": "a", "height": 1, "width": 1}] * 2}, "lists 1"),
        (
            [],
            {"images": [{"id": i, "file_name": "a", "height": 1, "width": 1} for i in (1, 2)]},
            "lists a more than once",
        ),
        ([], {"categories": [{"id": 1, "name": "a"}] * 2}, "lists 1 more than once"),
    ],
)
def test_coco_bad_lists(tmp_path, annotations, changes, message):
    with pytest.raises(InputError, match=message):
        coco(tmp_path, annotations, **changes)


def test_coco_without_its_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*instances_val2017\.json"):
        COCO(tmp_path)


def test_coco_masks_hold_254_classes(tmp_path):
    categories = [{"id": i, "name": str(i)} for i in range(1, 256)]
    data = coco(tmp_path, [{"category_id": 255}], categories=categories)
    assert data[0].labels == (254,)
    with pytest.raises(InputError, match="at most 254 classes apart, COCO val2017 has 255"):
        data.mask(0)


def test_coco_without_pycocotools(tmp_path, monkeypatch):
    data = coco(tmp_path, [{"segmentation": [rectangle(0, 0, 1, 1)]}])
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.delitem(sys.modules, "pycocotools.mask", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'attrib\[coco\]'"):
        data.mask(0)


def literal_mask(image, annotations, index):
    """Pillow fills the polygons; the files' own areas give the order."""
    canvas = Image.new("L", (image["width"], image["height"]))
    for a in sorted(annotations, key=lambda a: (not a["iscrowd"], -a["area"])):
        value = IGNORE if a["iscrowd"] else index[a["category_id"]] + 1
        if a["iscrowd"]:
            counts = a["segmentation"]["counts"]
            runs = np.repeat(np.arange(len(counts)) % 2, counts).reshape(canvas.size).T
            canvas = Image.fromarray(np.where(runs, value, canvas).astype(np.uint8))
        else:
            for points in a["segmentation"]:
                ImageDraw.Draw(canvas).polygon(points, fill=value)
    return torch.from_numpy(np.array(canvas))


def test_real_coco(shared):
    data = COCO(shared / "data/coco")
    file = shared / "data/coco/annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    index = {c["id"]: i for i, c in enumerate(content["categories"])}
    assert (len(data), len(data.labels), data.labels[79]) == (79, 80, "toothbrush")
    assert data.category_ids == tuple(index)
    differing = []
    for i, image in enumerate(content["images"]):
        annotations = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert data[i].labels == tuple(sorted({index[a["category_id"]] for a in annotations}))
        assert data.image_id(i) == image["id"]
        assert data[i].picture.is_file()
        wanted = literal_mask(image, annotations, index)
        differing.append((data.mask(i) != wanted).double().mean())
    assert max(differing) < 0.05  # Pillow fills its edges half a pixel wider
    assert np.mean(differing) < 0.02


# Folders


def pictures(tmp_path, *names):
    for name in names:
        write_picture(tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "path,label\na/1.png,cat\nb.png,dog;cat\nc.png,\n"),
        ("l.csv", 'size, labels ,id\n3,cat,./a/1.png\n4,"dog ; cat;",b.png\n5,,c.png\n'),
        ("l.csv", "file,label,id\na/1.png,cat,7\nb.png,cat;dog,7\nc.png,,7\n"),
        ("l.csv", "image,label\na\\1.png,cat\nb.png,cat;dog\nc.png,\n"),
        ("l.json", {"a/1.png": ["cat"], "b.png": ["dog", "cat", "dog"], "c.png": []}),
    ],
)
def test_folder_with_a_list(tmp_path, name, text):
    root = pictures(tmp_path, "a/1.png", "b.png", "c.png", "unlisted.png")
    data = Folder(root, write(tmp_path / name, text))
    assert isinstance(data, LabelledDataset)
    assert data.name == "folder in"
    assert (data.labels, data.category_ids) == (("cat", "dog"), (1, 2))
    assert labels_of(data) == {"a/1": (0,), "b": (0, 1), "c": ()}
    assert data[0].picture == root / "a/1.png"
    with pytest.raises(InputError, match="has no masks; pass masks="):
        data.mask(0)


def test_folder_with_the_models_classes(tmp_path):
    root = pictures(tmp_path, "a.png", "b.png")
    classes = ["traffic light", "1", "crane", "crane"]
    for file in (
        write(tmp_path / "l.csv", "path,labels\na.png,traffic light;3\nb.png,1\n"),
        write(tmp_path / "l.json", {"a.png": ["traffic light", 3], "b.png": ["1"]}),
    ):
        data = Folder(root, file, classes=classes)
        assert data.labels == tuple(classes)
        assert labels_of(data) == {"a": (0, 3), "b": (1,)}
    crane = write(tmp_path / "l.csv", "path,label\na.png,crane\n")
    with pytest.raises(InputError, match=r"'crane' of a\.png names the classes \[2, 3\]"):
        Folder(root, crane, classes=classes)
    with pytest.raises(InputError, match=r"3 of a\.png is no class; they are 0 to 1"):
        Folder(root, write(tmp_path / "l.json", {"a.png": [3]}), classes=["a", "b"])
    with pytest.raises(InputError, match="labels pictures by number; pass classes="):
        Folder(root, write(tmp_path / "l.json", {"a.png": [3]}))


def test_folder_of_class_folders(tmp_path):
    root = pictures(tmp_path, "dog/2.JPG", "dog/1.png", ".hidden/1.png", "dog/._1.png")
    write(root / "dog/notes.txt", "")
    write_picture(tmp_path / "linked/1.webp")
    (root / "cat").symlink_to(tmp_path / "linked", target_is_directory=True)
    data = Folder(root)
    assert data.labels == ("cat", "dog")
    assert labels_of(data) == {"cat/1": (0,), "dog/1": (1,), "dog/2": (1,)}
    assert labels_of(Folder(root, classes=["dog", "ox", "cat"]))["cat/1"] == (2,)
    told = (
        r"'cat' of cat/1\.webp is no class of the model; give one of its 2 by name, such as 'dog', "
        r"or by index from 0; did you mean 'cats'\?$"
    )
    with pytest.raises(InputError, match=told):
        Folder(root, classes=["dog", "cats"])
    (root / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no pictures"):
        Folder(root)


def test_folder_masks(tmp_path):
    root = pictures(tmp_path, "a/1.png", "b.png")
    labels = write(tmp_path / "l.csv", "path,label\na/1.png,cat\nb.png,dog\n")
    write_mask(tmp_path / "masks/a/1.png", [[0, 1, 255]])
    data = Folder(root, labels, masks=tmp_path / "masks")
    assert data.mask(0).tolist() == [[0, 1, 255]]
    with pytest.raises(InputError, match=r"there is no mask .*b\.png"):
        data.mask(1)
    write_mask(tmp_path / "masks/b.png", [[3]])
    with pytest.raises(InputError, match=r"values \[3\]; a mask has 0 to 2"):
        data.mask(1)
    with pytest.raises(InputError, match="masks is a folder"):
        Folder(root, labels, masks=tmp_path / "nowhere")
    names = [*map(str, range(253)), "cat", "dog"]
    with pytest.raises(InputError, match="at most 254 classes apart, got 255"):
        Folder(root, labels, classes=names, masks=tmp_path / "masks")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"../in/a.png": ["cat"]}, "expected a path within the data set's folder"),
        ({"a/../../in/a.png": ["cat"]}, "within the data set's folder"),
        ({"/etc/a.png": ["cat"]}, "within the data set's folder"),
        ({"C:\\a.png": ["cat"]}, "within the data set's folder"),
        ({"..\\a.png": ["cat"]}, "within the data set's folder"),
        ({".": ["cat"]}, "within the data set's folder"),
        ({"a.png": ["cat"], "a.jpg": ["cat"]}, "lists a more than once"),
        ({"a.png": ["cat"], "./a.png": ["cat"]}, "lists a more than once"),
        ({f"{i}.png": ["cat"] for i in range(5)}, r"not exist: .*0\.png, .*2\.png and 2 more"),
        ({}, "lists no pictures"),
        ({"a.png": [" "]}, "needs a list of names"),
    ],
)
def test_folder_bad_lists(tmp_path, text, message):
    root = pictures(tmp_path, "a.png", "a.jpg")
    with pytest.raises(InputError, match=message):
        Folder(root, write(tmp_path / "l.json", text))


def test_folder_bad_roots(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        Folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no folders named after classes"):
        Folder(pictures(tmp_path, "a.png"))
