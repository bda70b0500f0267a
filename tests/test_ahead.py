"""Threads that read ahead keep the order, and go no further than they were told."""

import threading
import time

import pytest
import torch

from attrib.ahead import READERS, read_ahead, readers_beside
from attrib.errors import ImageError


@pytest.mark.parametrize(
    ("device", "threads", "readers"),
    [("cpu", 4, 0), ("cpu", 8, 0), ("cpu", 3, READERS), ("cuda", 4, READERS)],
)
def test_nothing_is_read_beside_a_model_that_takes_every_core(
    device, threads, readers, monkeypatch
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert readers_beside(torch.device(device)) == readers


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_items_come_in_order_with_what_is_read_of_them(readers):
    pairs = read_ahead(lambda i: i * i, range(20), readers=readers, depth=4)
    assert [(i, read.result()) for i, read in pairs] == [(i, i * i) for i in range(20)]


@pytest.mark.parametrize("readers", [0, 2])
def test_an_error_belongs_to_its_item_alone(readers):
    def read(i: int) -> int:
        if i == 1:
            raise ImageError("damaged")
        return i

    reads = [read for _, read in read_ahead(read, range(3), readers=readers, depth=3)]
    assert [reads[0].result(), reads[2].result()] == [0, 2]
    with pytest.raises(ImageError, match="damaged"):
        reads[1].result()


def test_what_was_handed_out_is_read_to_the_end():
    reads = [read for _, read in read_ahead(lambda i: (time.sleep(0.01), i)[1], range(9), depth=2)]
    assert [read.result() for read in reads] == list(range(9))


def test_no_more_is_taken_than_was_asked_for():
    taken = []
    pairs = read_ahead(str, (taken.append(i) or i for i in range(100)), readers=1, depth=3)
    next(pairs)
    assert taken == [0, 1, 2, 3]
    pairs.close()
    assert taken == [0, 1, 2, 3]


def test_items_are_taken_in_the_calling_thread_and_read_in_others():
    here = threading.get_ident()
    items = (threading.get_ident() for _ in range(3))
    pairs = read_ahead(lambda taken: (taken, threading.get_ident()), items, depth=1)
    found = [read.result() for _, read in pairs]
    assert all(taken == here and reading != here for taken, reading in found)
