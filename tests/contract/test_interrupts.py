"""What every method promises on Ctrl-C, and with other threads and batches."""

import pytest
import torch

import attrib
from tests.contract.test_methods import NAMES
from tests.models import SPEC, Everything, Pooled, images, make


class Interrupted(Pooled):
    """Ctrl-C comes while the second half of a pass runs, the given number of passes from now."""

    passes = None

    def forward(self, x):
        maps = self.features(x)
        if self.passes is not None:
            self.passes -= 1
            if self.passes < 0:
                raise KeyboardInterrupt
        return self.fc(maps.mean((2, 3)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("passes", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_model_is_left_as_it_was_when_the_user_interrupts(name, passes):
    model = Interrupted()
    explainer = attrib.Explainer(model, name, spec=SPEC)
    wanted = explainer(images()).maps  # also finds out what is found out lazily
    model.passes = passes
    before = Everything(model)
    try:
        explainer(images())
    except KeyboardInterrupt:
        interrupted = True
    else:
        interrupted = False  # a method of one pass is done before the second
    model.passes = None
    assert interrupted or passes
    before.assert_same(model)
    assert torch.equal(explainer(images()).maps, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_threads_and_batch_sizes_change_no_more_than_rounding(name):
    """Sums in another order differ by 1e-4 of the largest value of the map at most."""
    explainer = attrib.Explainer(make("plain"), name, spec=SPEC)
    batch, labels, threads = images(5), [0, 1, 2, 3, 4], torch.get_num_threads()
    whole = explainer(batch, labels).maps
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        other = explainer(batch, labels).maps
    finally:
        torch.set_num_threads(threads)
    parts = [explainer(batch[i : i + 2], labels[i : i + 2]).maps for i in (0, 2, 4)]
    for found in (other, torch.cat(parts)):
        assert (found - whole).abs().max() <= 1e-4 * whole.abs().max()
