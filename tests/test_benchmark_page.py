"""The page of the benchmarks shows what stands in the JSON, and judges nothing itself."""

import json

import pytest

from benchmarks import page


def row(library, what, **given):
    figures = {"values": [1.0, 2.0], "value": 105.0, "ratio": 1.05, "low": 0.9, "high": 1.2}
    judged = {"limit": None, "verdict": "", "peer": "", "beside": None, "slower": False}
    return {"library": library, "what": what, **figures, **judged, **given}


def report(*rows, warnings=(), **given):
    table = {"title": "m, batch 2", "rows": rows, "unit": "ms", "warnings": [], "notes": ["Note."]}
    return {
        "subject": "maps",
        "title": "Maps",
        "about": "What it is.",
        "date": "2026-01-02T03:04+00:00",
        "commit": "abc",
        "machine": {"device": "x86_64", "threads": 2, "torch": "2.9"},
        "speedup": 1.5,
        "clock": "wall",
        "seconds": 61.2,
        "warnings": warnings,
        "met": 3,
        "missed": [],
        "compared": 4,
        "slower": [],
        "surely": 0,
        "tables": [table],
        **given,
    }


def test_rows_are_shown_as_they_are():
    ours = row("attrib", "cam", limit=1.05, verdict="met", peer="torchcam", beside=0.98)
    text = page.page([report(row("torch", "forward"), ours)])
    assert "| library | what | ms | ratio | range | target |  | beside the fastest peer |" in text
    line = "| attrib | cam | 105 | 1.050 | 0.90 .. 1.20 | 1.05 | met | 0.98 × torchcam |"
    assert line in text
    assert "2026-01-02T03:04+00:00, abc; x86_64, 2 threads; torch 2.9; 61 s." in text
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


def finding(what, says, why="", table="m, batch 2"):
    return {"table": table, "what": what, "says": says, "why": why}


def test_targets_stand_at_the_top():
    missed = [
        finding("gradcam", "missed by 20.0%", "it goes back"),
        finding("cam", "missed by 1.0%"),
        finding("layercam", "missed by 9.0%", "it goes back"),
    ]
    slower = [finding("cam", "1.100 × torchcam by the median")]
    text = page.page([report(missed=missed, slower=slower, surely=0)])
    assert "| Maps | 3 | 3 | 4 | 1 | 0 |" in text
    line = "- m, batch 2: gradcam missed by 20.0%; layercam missed by 9.0%. Why: it goes back.\n"
    assert f"\nMissed:\n\n{line}- m, batch 2: cam missed by 1.0%. No reason is known.\n" in text
    assert "\n- m, batch 2: cam 1.100 × torchcam by the median. No reason is known.\n" in text
    assert "Missed" not in page.page([report()])


def test_reports_of_several_commits_are_not_one_run():
    assert "NOT ONE RUN" not in page.page([report(), report(title="Seeds")])
    text = page.page([report(), report(title="Seeds"), report(title="RIB", commit="def")])
    assert "**NOT ONE RUN: Maps, Seeds of abc; RIB of def.**" in text


def test_the_page_is_written_from_the_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="make bench"):
        page.write(tmp_path, tmp_path / "page.md")
    (tmp_path / "maps.json").write_text(json.dumps(report()))
    page.write(tmp_path, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == page.page([report()])
