"""The serving benchmark measures what it says; how fast is not tested."""

import pytest

from benchmarks.harness import Effort
from benchmarks.subjects import serving

ONE_ROUND = Effort(factor=0.0)


@pytest.mark.slow
def test_every_way_to_serve_is_compared_with_the_forward_pass(monkeypatch):
    monkeypatch.setattr(serving, "ONNX", ("no_such_package",))
    (table,) = serving.tables(ONE_ROUND, ["torchvision/resnet18"])
    assert [row.what for row in table.rows] == [
        "forward",
        "forward again",
        "explain, from a picture",
        "Explainer, raw maps",
        "torch.export program",
    ]
    checked, absent = table.notes
    assert "torch program's maps differ by up to " in checked
    assert absent == "no_such_package missing; pip install 'attrib[export]'"


@pytest.mark.slow
def test_programs_run_in_onnxruntime_beside_the_network_alone():
    for package in serving.ONNX:
        pytest.importorskip(package)
    (table,) = serving.tables(ONE_ROUND, ["torchvision/resnet18"])
    assert [(row.library, row.what) for row in table.rows[-2:]] == [
        ("onnxruntime", "network alone"),
        ("attrib", "onnx program, in onnxruntime"),
    ]
    assert "onnx program's maps differ by up to " in table.notes[-1]
