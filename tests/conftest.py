"""What the tests share: tiny awkward models, and the folder of real models and data if any."""

import importlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models, data and golden files; tests are skipped without it."""
    root = Path(os.environ.get("ATTRIB_SHARED", Path(__file__).parents[2] / "shared"))
    if not (root / "golden").is_dir():
        pytest.skip(f"no real models and data at {root}; set ATTRIB_SHARED")
    return root


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set of `tests.seed_jobs`, only to be read."""
    from tests.seed_jobs import render

    return render(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def explainer():
    """The model that comes with the package, explained by CAM."""
    import attrib  # not before the run's type checks are hooked in

    return attrib.Explainer("demo", "cam")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The places in attrib that wait for a GPU; its kernels are stood in for by OpenCV."""
    from attrib.localize import largest_component
    from tests.pretend_gpu import beneath, pretend_gpu

    for name in ("attrib.localize.localize", "attrib.seeds.maker"):
        place = importlib.import_module(name)
        monkeypatch.setattr(place, "largest_component", partial(beneath, largest_component))
    with pretend_gpu(monkeypatch) as places:
        yield places


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Draw the same weights and pictures in every run, whatever ran before."""
    torch.manual_seed(0)
