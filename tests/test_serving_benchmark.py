"""The serving benchmark measures what it says; how fast is not tested."""

import json

import pytest
import torch

from benchmarks import serving


@pytest.mark.slow
def test_every_way_to_serve_is_compared_with_the_forward_pass(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(serving, "ONNX", ("no_such_package",))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    file = tmp_path / "serving.json"
    serving.main(["--model", "demo", "--rounds", "2", "--json", str(file)])
    rows = json.loads(file.read_text())["models"]["demo"]["rows"]
    names = [row["what"] for row in rows]
    assert names[:2] == ["forward", "forward again"]
    assert {"explain(), from a picture", "torch.export program"} <= set(names)
    assert rows[0]["ratio"] == 1
    assert all(row["milliseconds"] > 0 and row["low"] <= row["high"] for row in rows)
    assert "| torch.export program |" in capsys.readouterr().out
