"""The page of the benchmarks says what was measured."""

from benchmarks import page


def row(library, method, ratio, high=1.0):
    return {
        "library": library,
        "method": method,
        "milliseconds": 100 * ratio,
        "ratio": ratio,
        "low": 1.0,
        "high": high,
    }


def report(speedup, high, *rows):
    return {
        "setting": {"model": "m", "batch": 2, "size": 32, "rounds": 3},
        "machine": {"device": "x86_64", "threads": 2, "torch": "2.9"},
        "speedup": speedup,
        "growth": [row("attrib", "cam, 4 per image", 1.01)],
        "imports": {"torch": 1.0, "attrib": 1.25, "difference": 0.25},
        "methods": [row("torch", page.CONTROL, 1.0, high), *rows],
    }


def test_targets_are_judged_for_attrib_alone():
    rows = row("attrib", "cam", 1.05), row("attrib", "gradcam", 1.26), row("Captum", "gradcam", 2)
    text = page.page([report(1.5, 1.05, *rows)])
    assert "| attrib | cam | 105.0 | 1.050 | 1.00 .. 1.00 | met |" in text
    assert "| attrib | gradcam | 126.0 | 1.260 | 1.00 .. 1.00 | missed by 20.0% |" in text
    assert "| Captum | gradcam | 200.0 | 2.000 | 1.00 .. 1.00 |  |" in text
    assert "x86_64, 2 threads, 3 rounds; torch 2.9." in text
    assert "More classes of each picture: cam, 4 per image 1.010." in text
    assert "takes 0.25 s more than `import torch`" in text
    assert "BUSY" not in text
    assert "NOISY" not in text


def test_a_busy_machine_is_marked():
    text = page.page([report(0.5, 1.5)])
    assert "**BUSY**" in text
    assert "**NOISY**" in text
