from __future__ import annotations

import copy
import inspect
import io
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile
from torch import Tensor

import attrib.images
from attrib.errors import ImageError, InputError
from attrib.images import (
    Picture,
    as_batch,
    boxes_to_source,
    boxes_to_tensor,
    preprocess,
    read_image,
    tensor_picture,
)
from attrib.images.fitting import _frame, _resized
from attrib.types import Frame, ModelSpec

MEAN, STD = ModelSpec().mean, ModelSpec().std


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def hwc(picture: Picture) -> np.ndarray:
    return picture.pixels.permute(1, 2, 0).numpy()


def encoded(image: Image.Image, fmt: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, fmt, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (ihdr, idat)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


# Reading: what a picture may be


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_reads_files_losslessly(tmp_path: Path, suffix: str) -> None:
    pixels, path = noise(13, 17), tmp_path / f"bird.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(path, **options)
    for picture in (read_image(path), read_image(str(path)), read_image(path.read_bytes())):
        assert (hwc(picture) == pixels).all()
    assert read_image(path).name == str(path)
    assert read_image(path.read_bytes()).name == ""


def test_reads_arrays_tensors_and_pil_alike() -> None:
    pixels = noise(5, 7)
    chw = torch.from_numpy(pixels).permute(2, 0, 1)
    same = [
        pixels, pixels / 255, (pixels / 255).astype(np.float16), pixels.astype(np.uint16) * 257,
        pixels.astype(">u2") * 257, np.asfortranarray(pixels), pixels[::-1][::-1],
        np.dstack([pixels, np.full((5, 7), 255, np.uint8)]), Image.fromarray(pixels),
        chw, chw / 255, (chw / 255).double(), (chw.int() * 257).to(torch.uint16),
    ]  # fmt: skip
    for picture in same:
        assert (hwc(read_image(picture)) == pixels).all()
    picture = Picture(pixels=chw, name="x")
    assert read_image(picture) is picture


def test_grey_masks_and_alpha() -> None:
    grey = noise(4, 6)[..., 0]
    for picture in (grey, grey[..., None], torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        assert (hwc(read_image(picture)) == grey[..., None]).all()
    assert (hwc(read_image(grey > 99)) == 255 * (grey > 99)[..., None]).all()
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [1, 1, 1, 128]]], dtype=np.uint8)
    expected = [[[255, 0, 0], [255, 255, 255], [128, 128, 128]]]
    for picture in (rgba, Image.fromarray(rgba), encoded(Image.fromarray(rgba), "PNG")):
        assert hwc(read_image(picture)).tolist() == expected


def test_every_mode_of_pil() -> None:
    rgb = Image.fromarray(noise(9, 8))
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"):
        converted = rgb.convert("RGB").convert(mode) if mode != "LAB" else Image.new(mode, (8, 9))
        assert (hwc(read_image(converted)) == np.array(converted.convert("RGB"))).all(), mode
    cmyk = Image.new("CMYK", (8, 9), (0, 255, 255, 0))
    for fmt in ("JPEG", "TIFF"):
        assert np.abs(hwc(read_image(encoded(cmyk, fmt))).astype(int) - [255, 0, 0]).max() <= 3
    deep = np.array([[0, 128, 129, 32768, 65535]])
    for picture in (
        encoded(Image.fromarray(deep.astype(np.uint16)), "PNG"),
        encoded(Image.fromarray(deep.astype(np.uint16)), "TIFF"),
        Image.fromarray(deep.astype(">u2")),
        Image.fromarray(deep.astype(np.int32)),
        Image.fromarray((deep / 65535).astype(np.float32)),
    ):
        assert hwc(read_image(picture))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_palette_transparency_shows_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    for options in ({"transparency": 0}, {"transparency": b"\x00\xff"}):
        picture = read_image(encoded(image, "PNG", **options))
        assert hwc(picture).tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_animations(fmt: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], fmt, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.abs(hwc(read_image(data)).astype(int) - [255, 0, 0]).max() <= 2


# The picture whose upper left quarter is white, as a camera held in each of 8 ways stores it.
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int, fmt: str) -> None:
    upright = np.zeros((32, 64), np.uint8)
    upright[:16, :16] = 255
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(Image.fromarray(stored).convert("RGB"), fmt, exif=exif)
    for picture in (read_image(data), read_image(Image.open(io.BytesIO(data)))):
        assert np.abs(hwc(picture).astype(int) - upright[..., None]).max() <= 8
        assert picture.orientation == orientation


def test_unreadable_exif_counts_as_upright() -> None:
    image = Image.fromarray(noise(4, 6))
    for exif in (b"Exif\0\0garbage!", b"garbage"):
        assert read_image(encoded(image, "PNG", exif=exif)).orientation == 1
    odd = Image.Exif()
    odd[ExifTags.Base.Orientation] = 9
    assert read_image(encoded(image, "PNG", exif=odd)).orientation == 1


# Reading: what is refused


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files(tmp_path: Path, fmt: str) -> None:
    data, path = encoded(Image.fromarray(noise(64, 64)), fmt), tmp_path / "cut.img"
    for length in (len(data) // 2, len(data) - 200):
        path.write_bytes(data[:length])
        with pytest.raises(ImageError, match=r"cut\.img' is damaged or incomplete: \w+"):
            read_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_unusable_files(tmp_path: Path) -> None:
    for name, content, message in (
        ("text.jpg", b"not a picture", "text.jpg' is in no picture format"),
        ("empty.png", b"", "empty.png' is empty"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=message):
            read_image(tmp_path / name)
    for path, message in (
        (tmp_path / "missing.png", "missing.png' does not exist"),
        (tmp_path, "is a folder"),
        ("https://example.org/bird.jpg", "URLs are not fetched"),
        ("x" * 5000, "cannot be opened"),
        (b"", "picture of 0 bytes is empty"),
    ):
        with pytest.raises(ImageError, match=message):
            read_image(path)


def test_decompression_bombs() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"not decoded: Image size \(10000000000 pixels\)"):
        read_image(png_header(100_000, 100_000))
    with pytest.raises(ImageError, match=r"10000 x 10000 pixels, more than max_pixels=1000"):
        read_image(png_header(10_000, 10_000), max_pixels=1000)  # and no warning of Pillow's
    with pytest.raises(ImageError, match="damaged"):  # allowed, though Pillow would warn
        read_image(png_header(10_000, 10_000))
    with pytest.raises(ImageError, match="PIL image of mode RGB has 9 x 4 pixels"):
        read_image(Image.new("RGB", (9, 4)), max_pixels=35)
    assert read_image(Image.new("RGB", (9, 4)), max_pixels=36).pixels.shape == (3, 4, 9)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"layout HWC .* got 9 in .*; NumPy arrays are HWC"),
        (torch.zeros(8, 9, 3), r"layout CHW .* got 8 in .* tensors are CHW"),
        (np.zeros((4, 4, 2)), "1, 3 or 4 channels, got 2"),
        (np.zeros((0, 4, 3), np.uint8), r"without zeros, got \(0, 4, 3\)"),
        (Image.new("RGB", (0, 3)), "PIL image .* without zeros"),
        (np.zeros(5), r"got \(5,\)"),
        (torch.zeros(1, 3, 4, 4), r"got \(1, 3, 4, 4\)"),
        (np.full((2, 2), np.nan), "NaN or infinity"),
        (torch.full((3, 2, 2), torch.inf), "NaN or infinity"),
        (np.full((2, 2), 255.0), r"values in \[0, 1\], got 255 to 255; .* uint8"),
        (torch.tensor([[-2.0, 0.5]]), r"got -2 to 0.5"),
        (np.zeros((2, 2), np.int64), "got torch.int64; pass uint8"),
        (np.array([["a"]]), "got <U1; pass uint8"),
        (Image.fromarray(np.array([[70000]], np.int32)), "PIL image of mode I .* got 70000"),
    ],
)  # fmt: skip
def test_unusable_arrays(picture: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(picture)


def test_wrong_types() -> None:  # unwrapped: past the type checks that only tests have
    with pytest.raises(ImageError, match=r"a picture is a path, .* got int"):
        inspect.unwrap(read_image)(42)
    with pytest.raises(ImageError, match=r"uint8 pixels \[3, H, W\], got torch.uint8 \(3, 0, 4\)"):
        Picture(pixels=torch.zeros(3, 0, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match="got 'stretch'"):
        inspect.unwrap(_resized)((4, 4), ModelSpec(), "stretch")


# Batches


def test_as_batch(tmp_path: Path) -> None:
    pixels, path = noise(5, 7), tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    for one in (path, str(path), path.read_bytes(), pixels, Image.fromarray(pixels)):
        listed, single = as_batch(one)
        assert single
        assert [(hwc(read_image(p)) == pixels).all() for p in listed] == [True]
    batch = np.stack([pixels, pixels])
    tensors = torch.from_numpy(batch).permute(0, 3, 1, 2)
    for many in ([path, pixels], (p for p in (path, path)), batch, tensors, (pixels, batch[0])):
        listed, single = as_batch(many)
        assert not single
        assert [(hwc(read_image(p)) == pixels).all() for p in listed] == [True, True]
    assert as_batch([]) == ([], False)
    assert as_batch(["gone.jpg"]) == (["gone.jpg"], False)  # listed, not read


# Preprocessing

SIZES = [(301, 400), (337, 222), (37, 53), (224, 224), (1, 5), (9, 2), (600, 100)]


def largest_difference(images: Tensor, expected: Tensor, std: tuple[float, ...] = STD) -> float:
    return float(((images - expected) * torch.tensor(std)[:, None, None]).abs().max() * 255)


@pytest.mark.parametrize(
    ("crop", "size"), [(0.875, (224, 224)), (0.95, (64, 97)), (1.0, (225, 131))]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("fit", "mode"), [("crop", "center"), ("squash", "squash"), ("pad", "border")]
)
def test_agrees_with_timm(
    fit: str, mode: str, interpolation: str, crop: float, size: tuple
) -> None:
    from timm.data import create_transform, resolve_data_config
    from torchvision.transforms import InterpolationMode

    config = {"input_size": (3, *size), "crop_pct": crop, "crop_mode": mode}
    config |= {"interpolation": interpolation, "mean": MEAN, "std": STD}
    transform = create_transform(**resolve_data_config(config))
    for (
        step
    ) in transform.transforms:  # before 1.0.31 timm takes bilinear for all that is not square
        if hasattr(step, "interpolation"):
            step.interpolation = InterpolationMode(interpolation)
    spec = ModelSpec(input_size=size, crop=crop, fit=fit, interpolation=interpolation)
    arrays = [noise(*shape) for shape in SIZES]
    images, frames = preprocess([read_image(array) for array in arrays], spec)
    assert [frame.source for frame in frames] == SIZES
    for image, array in zip(images, arrays, strict=True):
        assert largest_difference(image, transform(Image.fromarray(array))) < 2.01


def test_agrees_with_timm_on_grey_models() -> None:
    from timm.data import create_transform

    transform = create_transform((1, 28, 28), mean=(0.13,), std=(0.3,), interpolation="bicubic")
    spec = ModelSpec(input_size=(28, 28), mean=(0.13,), std=(0.3,), interpolation="bicubic")
    images, _ = preprocess([read_image(noise(50, 40))], spec)
    expected = transform(Image.fromarray(noise(50, 40)).convert("L"))
    assert images.shape == (1, 1, 28, 28)
    assert largest_difference(images, expected, (0.3,)) < 2.01
    exact = ModelSpec(input_size=(50, 40), crop=1.0, mean=(0.13,), std=(0.3,))
    shown = tensor_picture(preprocess([read_image(noise(50, 40))], exact)[0], exact)
    assert shown.shape == (1, 3, 50, 40)
    assert (shown[0].numpy() == np.array(Image.fromarray(noise(50, 40)).convert("L"))).all()


@pytest.mark.parametrize(("crop", "resize"), [(224, 232), (299, 342), (384, 384)])
def test_agrees_with_torchvision(crop: int, resize: int) -> None:
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(crop_size=crop, resize_size=resize)
    spec = ModelSpec(input_size=(crop, crop), crop=crop / resize)
    for shape in SIZES:
        images, (frame,) = preprocess([read_image(noise(*shape))], spec)
        assert min(frame.resized) == resize
        assert largest_difference(images[0], preset(Image.fromarray(noise(*shape)))) < 2.01


def test_nearest_takes_source_pixels() -> None:
    spec = ModelSpec(input_size=(3, 3), crop=1.0, interpolation="nearest")
    images, _ = preprocess([read_image(noise(9, 9))], spec)
    shown = tensor_picture(images, spec)[0].permute(1, 2, 0).numpy()
    assert (shown == noise(9, 9)[1::3, 1::3]).all()


def test_frames_say_what_was_done() -> None:
    pictures = [
        Picture(pixels=torch.zeros(3, 300, 500, dtype=torch.uint8), orientation=6),
        Picture(pixels=torch.zeros(3, 1, 10_000, dtype=torch.uint8)),
    ]
    expected = {
        "crop": [((256, 426), (16, 101)), ((256, 2_560_000), (16, 1_279_888))],
        "squash": [((256, 256), (16, 16))] * 2,
        "pad": [((154, 256), (-35, 16)), ((1, 256), (-111, 16))],
    }
    for fit, geometry in expected.items():
        images, frames = preprocess(pictures, ModelSpec(fit="crop"), fit=fit)
        assert images.shape == (2, 3, 224, 224)
        assert [(frame.resized, frame.offset) for frame in frames] == geometry
        assert [frame.orientation for frame in frames] == [6, 1]
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    rows = (images[1, 0] == black[0]).all(dim=1)  # padded: one row of picture, the rest the mean
    assert rows.nonzero().flatten().tolist() == [111]
    assert images[1, :, ~rows].abs().max() < 0.01


def test_empty_batch_types_and_devices() -> None:
    images, frames = preprocess([], ModelSpec(input_size=(8, 9)))
    assert (images.shape, frames) == ((0, 3, 8, 9), ())
    picture = read_image(noise(20, 20))
    exact, _ = preprocess([picture], ModelSpec(input_size=(8, 9)), dtype=torch.float64)
    half, _ = preprocess([picture], ModelSpec(input_size=(8, 9)), dtype=torch.float16)
    assert (exact.dtype, half.dtype) == (torch.float64, torch.float16)
    assert torch.allclose(exact, half.double(), atol=2e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_cuda_agrees_with_the_cpu(interpolation: str) -> None:
    pictures = [read_image(noise(*shape)) for shape in [*SIZES, (3, 60_000)]]
    for fit in ("crop", "squash", "pad"):
        spec = ModelSpec(fit=fit, interpolation=interpolation)
        images, frames = preprocess(pictures, spec, device="cuda")
        expected, expected_frames = preprocess(pictures, spec)
        assert frames == expected_frames
        assert largest_difference(images.cpu(), expected) < 2.01


def test_unusable_preprocessing() -> None:
    picture = read_image(noise(4, 4))
    with pytest.raises(InputError, match="the model wants 2"):
        preprocess([picture], ModelSpec(mean=(0.5, 0.5), std=(1.0, 1.0)))
    thread = Picture(pixels=torch.zeros(3, 1, 100_000, dtype=torch.uint8))
    with pytest.raises(ImageError, match=r"100000 x 1 pixels is too thin .* fit='pad'"):
        preprocess([thread], ModelSpec())


def test_tensor_picture_undoes_preprocess() -> None:
    spec = ModelSpec(input_size=(20, 30), crop=1.0, fit="squash")
    images, _ = preprocess([read_image(noise(20, 30))], spec)
    assert (tensor_picture(images, spec)[0].permute(1, 2, 0).numpy() == noise(20, 30)).all()
    assert tensor_picture(images + 100, spec).unique().tolist() == [255]
    with pytest.raises(InputError, match=r"\[b, 3, h, w\], got \(1, 1, 20, 30\)"):
        tensor_picture(images[:, :1], spec)


def test_leaves_inputs_and_random_state_alone() -> None:
    array = noise(30, 20)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    given = [array, tensor, tensor / 255, tensor[0], Image.fromarray(array)]
    before, states = copy.deepcopy(given), (torch.get_rng_state(), np.random.get_state()[1].copy())
    pictures = [read_image(one) for one in given]
    kept = [picture.pixels.clone() for picture in pictures]
    spec = ModelSpec(input_size=(30, 20), crop=1.0)
    images, _ = preprocess(pictures, spec)
    tensor_picture(images, spec)
    assert all(torch.equal(p.pixels, k) for p, k in zip(pictures, kept, strict=True))
    for picture in pictures:
        picture.pixels.zero_()  # must be a copy of what was given
    assert all(np.array_equal(x, y) for x, y in zip(given, before, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


def test_imports_nothing_heavy() -> None:
    files = Path(attrib.images.__file__).parent.glob("*.py")
    text = "".join(file.read_text() for file in files)
    imports = re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)
    assert set(imports).isdisjoint({"torchvision", "timm", "cv2"})
    assert "torch" in imports


# Boxes


@given(
    source=st.tuples(st.integers(1, 1000), st.integers(1, 1000)),
    size=st.tuples(st.integers(8, 300), st.integers(8, 300)),
    fit=st.sampled_from(["crop", "squash", "pad"]),
    crop=st.floats(0.5, 1),
    flip=st.booleans(),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_boxes_make_the_round_trip(source, size, fit, crop, flip, corners) -> None:
    picture = Picture(pixels=torch.zeros(1, 1, 1, dtype=torch.uint8).expand(3, *source))
    spec = ModelSpec(input_size=size, crop=crop)
    frame = replace(_frame(picture, spec, fit), flip=flip)
    window = boxes_to_source(torch.tensor([0.0, 0.0, size[1], size[0]]), frame).tolist()
    x0, x1 = (window[0] + part * (window[2] - window[0]) for part in sorted(corners[:2]))
    y0, y1 = (window[1] + part * (window[3] - window[1]) for part in sorted(corners[2:]))
    box = torch.tensor([[x0, y0, x1, y1]])
    inside = boxes_to_tensor(box, frame)
    assert (inside[:, 2:] >= inside[:, :2]).all()
    assert inside.min() >= -1e-2
    assert (inside[0, 2:] <= torch.tensor(size[::-1]) + 1e-2).all()
    assert torch.allclose(boxes_to_source(inside, frame), box, rtol=0, atol=1e-3)


def test_boxes_by_hand() -> None:
    frame = Frame(source=(100, 200), resized=(50, 100), offset=(-5, 20), tensor=(60, 60))
    source = torch.tensor([[[60.0, 10.0, 100.0, 30.0]]])
    tensor = torch.tensor([[[10.0, 10.0, 30.0, 20.0]]])
    assert torch.equal(boxes_to_tensor(source, frame), tensor)
    assert torch.equal(boxes_to_source(tensor, frame), source)
    mirrored = replace(frame, flip=True)
    assert boxes_to_tensor(source, mirrored).flatten().tolist() == [30, 10, 50, 20]
    whole = torch.tensor([[-30.0, -9.0, 99.0, 99.0]])
    assert boxes_to_source(whole, frame).tolist() == [[0, 0, 200, 100]]  # clipped
    assert boxes_to_source(torch.zeros(0, 4), frame).shape == (0, 4)
    with pytest.raises(InputError, match=r"floating point .* got torch.int64 of shape \(1, 4\)"):
        inspect.unwrap(boxes_to_tensor)(torch.zeros(1, 4, dtype=torch.int64), frame)


def test_boxes_land_where_the_pixels_do() -> None:
    pixels = torch.zeros(3, 120, 200, dtype=torch.uint8)
    pixels[:, 40:80, 90:130] = 255
    for fit in ("crop", "squash", "pad"):
        spec = ModelSpec(input_size=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3)
        images, (frame,) = preprocess([Picture(pixels=pixels)], spec, fit=fit)
        rows, columns = (images[0, 0] > 0.5).nonzero().unbind(1)
        found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        expected = boxes_to_tensor(torch.tensor([90.0, 40.0, 130.0, 80.0]), frame)
        assert (found - expected).abs().max() <= 0.6
