"""The Triton kernels, run by Triton's interpreter in a process of its own, against OpenCV."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from attrib.errors import InputError
from attrib.localize import component_engine, largest_component
from attrib.localize.level_sets import all_contours, largest_contours
from tests.test_localize import ADVERSARIAL

pytest.importorskip("triton")

SIZES = ((2, 13, 22), (5, 3, 7), (1, 1, 33), (1, 33, 1), (3, 16, 16))


def cases():
    """Masks `[n, H, W]` by name, each with the block that it is cut into."""
    generator = torch.Generator().manual_seed(0)
    found = {name: (torch.from_numpy(m)[None], 256) for name, m in ADVERSARIAL.items()}
    found["none"] = torch.zeros(0, 6, 7, dtype=torch.bool), 16
    for name in ("equal_areas_first_wins", "full"):
        found[f"{name} upside down"] = torch.from_numpy(ADVERSARIAL[name])[None].flip(1), 64
    for i, size in enumerate(SIZES):
        mask = torch.rand(size, generator=generator) < 0.3 + 0.1 * i
        for block in (4, 32) if mask.numel() < 200 else (64,):
            found[f"random {size} in blocks of {block}"] = mask, block
    return found


def level_sets():
    """Maps `[n, H, W]` in 8 bits by name, with the levels to cut them above."""
    generator = torch.Generator().manual_seed(1)

    def noise(*size):
        return torch.rand(size, generator=generator)

    y, x = torch.meshgrid(torch.arange(9), torch.arange(11), indexing="ij")
    soft = torch.nn.functional.interpolate(noise(2, 1, 4, 5), (12, 17), mode="bicubic")[:, 0]
    rings = torch.maximum((y - 4).abs(), (x - 5).abs())
    few, many = torch.arange(0, 250, 31), torch.arange(255)
    return {
        "noise": ((255 * noise(2, 7, 10)).byte(), few),
        "soft": ((255 * soft.clamp(0, 1)).byte(), few),
        "at every level": ((255 * noise(1, 6, 5)).byte(), many),
        "rings": ((85 * (rings % 4))[None].byte(), few),
        "two values": ((noise(2, 8, 9) < 0.6).byte() * 255, torch.tensor([0, 100])),
        "checkerboard": ((255 * ((x + y) % 2))[None].byte(), torch.tensor([7])),
        "ramp": ((10 * (x + y))[None].byte(), few),
        "constant": (torch.full((2, 3, 4), 9, dtype=torch.uint8), torch.tensor([3, 8, 9])),
        "one pixel": (torch.full((1, 1, 1), 200, dtype=torch.uint8), few),
        "none": (torch.zeros(0, 4, 4, dtype=torch.uint8), few),
    }


def found_by(engine, levels, cuts):
    """All contours and the largest ones, as sorted rows of map, cut and box."""
    answers = []
    for find in (all_contours, largest_contours):
        found = find(((levels + 0.25).double() / 255).clamp(max=1), cuts, engine)
        rows = torch.cat([found.image[:, None], found.cut[:, None], found.boxes], 1)
        answers.append(sorted(rows.tolist()))
    return answers


def interpret(folder):
    """Label every case; to be called where `TRITON_INTERPRET` was set before the imports."""
    from attrib.localize import components_triton

    answers = {}
    for name, (masks, block) in cases().items():
        components_triton.BLOCK = block
        found = largest_component(masks, "triton")
        table = components_triton.component_table(masks, block)
        answers[name] = {"largest": vars(found), "table": vars(table)}
    answers["level sets"] = {name: found_by("triton", *c) for name, c in level_sets().items()}
    torch.save(answers, Path(folder) / "answers.pt")


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interpreted")
    call = f"from tests.test_components_triton import interpret; interpret({str(folder)!r})"
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", call], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "answers.pt")


@pytest.mark.parametrize("name", cases())
def test_the_largest_is_the_one_that_opencv_finds(name, answers):
    found, want = answers[name]["largest"], largest_component(cases()[name][0])
    for field in ("masks", "boxes", "areas"):
        assert torch.equal(found[field], getattr(want, field)), field


@pytest.mark.parametrize("name", [name for name in cases() if name != "none"])
def test_every_component_is_in_the_table(name, answers):
    import cv2

    found = answers[name]["table"]
    for i, mask in enumerate(cases()[name][0].numpy().astype(np.uint8)):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        roots, areas, boxes = (found[k][..., i, :] for k in ("roots", "areas", "boxes"))
        flat, want = torch.from_numpy(labels).flatten(), torch.full_like(roots, -1)
        for label, (x, y, w, h, area) in enumerate(stats[1:].tolist(), 1):
            first = int((flat == label).int().argmax())
            want[flat == label] = first
            assert boxes[:, first].tolist() == [x, y, x + w, y + h]
            assert areas[first] == area
        assert torch.equal(roots, want)
        assert int((areas > 0).sum()) == len(stats) - 1


@pytest.mark.parametrize("name", level_sets())
def test_contours_above_all_levels_are_those_that_opencv_finds(name, answers):
    assert answers["level sets"][name] == found_by("opencv", *level_sets()[name])


KERNELS = ("_point_to_runs", "_unite", "_measure", "_follow", "_unite_above")


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_compile_for_a_gpu_that_is_not_here(kernel, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from attrib.localize import components_triton, level_sets_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    arrays = dict.fromkeys(("parents", "sums", "first", "second", "saddle"), "*i32")
    kinds = {"masks": "*i1", "BLOCK": "constexpr", **arrays}
    function = getattr(level_sets_triton, kernel, None) or getattr(components_triton, kernel)
    signature = {name: kinds.get(name, "i32") for name in function.arg_names}
    source = ASTSource(function, signature, {"BLOCK": 256})
    made = triton.compile(
        source, target=GPUTarget("cuda", 80, 32), options=components_triton.COMPILED
    )
    atomic = re.search(r"\b(atom|red)\.global", made.asm["ptx"])  # red: nobody asks what was there
    assert bool(atomic) == (kernel not in ("_point_to_runs", "_follow"))
    assert len(made.asm["cubin"]) > 0


def test_engines_are_named():
    masks = torch.from_numpy(ADVERSARIAL["spiral"])[None]
    assert component_engine(masks.device) == "opencv"
    assert component_engine(torch.device("meta")) == "torch"
    assert torch.equal(largest_component(masks, "torch").boxes, largest_component(masks).boxes)
    with pytest.raises(InputError, match="needs masks on the CPU, got meta"):
        largest_component(masks.to("meta"), "opencv")
