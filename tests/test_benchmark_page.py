"""The page of the benchmarks shows what stands in the JSON, and judges nothing itself."""

import json

import pytest

from benchmarks import page


def row(library, what, **given):
    figures = {"values": [1.0, 2.0], "value": 105.0, "ratio": 1.05, "low": 0.9, "high": 1.2}
    judged = {"limit": None, "verdict": "", "peer": "", "slower": False}
    return {"library": library, "what": what, **figures, **judged, **given}


def report(*rows, warnings=(), **given):
    table = {"title": "m, batch 2", "rows": rows, "unit": "ms", "warnings": [], "notes": ["Note."]}
    return {
        "subject": "maps",
        "title": "Maps",
        "about": "What it is.",
        "machine": {"device": "x86_64", "threads": 2, "torch": "2.9"},
        "speedup": 1.5,
        "clock": "wall",
        "seconds": 61.2,
        "warnings": warnings,
        "met": 3,
        "missed": [],
        "slower": [],
        "tables": [table],
        **given,
    }


def test_rows_are_shown_as_they_are():
    ours = row("attrib", "cam", limit=1.05, verdict="met", peer="0.98 × torchcam")
    text = page.page([report(row("torch", "forward"), ours)])
    assert "| library | what | ms | ratio | range | target |  | beside the fastest peer |" in text
    line = "| attrib | cam | 105 | 1.050 | 0.90 .. 1.20 | 1.05 | met | 0.98 × torchcam |"
    assert line in text
    assert "x86_64, 2 threads; torch 2.9; 61 s." in text
    assert "What it is." in text
    assert "- 2 rounds." in text
    assert "- Note." in text


def test_small_ratios_keep_their_digits():
    text = page.page([report(row("attrib", "cam", ratio=0.00123, low=0.0012, high=0.12))])
    assert "| 0.0012 | 0.001 .. 0.12 |" in text


def test_columns_that_say_nothing_are_left_out():
    text = page.page([report(row("torch", "forward"))])
    assert "| library | what | ms | ratio | range |\n" in text


def test_warnings_and_the_clock_are_shown():
    text = page.page([report(warnings=["BUSY: so."], clock="processor")])
    assert "**BUSY: so.**" in text
    assert "times are of the processor" in text


def test_targets_stand_at_the_top():
    missed = ["m, batch 2: gradcam missed by 20.0%"]
    text = page.page([report(missed=missed, slower=["m: cam 1.10 × torchcam"])])
    assert "| Maps | 3 | 1 | 1 |" in text
    assert "\nMissed:\n\n- m, batch 2: gradcam missed by 20.0%\n" in text
    assert "\n- m: cam 1.10 × torchcam\n" in text
    assert "Missed" not in page.page([report()])


def test_the_page_is_written_from_the_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="make bench"):
        page.write(tmp_path, tmp_path / "page.md")
    (tmp_path / "maps.json").write_text(json.dumps(report()))
    page.write(tmp_path, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == page.page([report()])
