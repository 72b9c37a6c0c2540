"""Figures whose value on a small case can be worked out by hand."""

import threading
import time

import numpy as np
import pytest

from DatasetLoader import DatasetLoader
from syncnet.inference.match import matching_accuracy


def test_the_interval_of_matching_is_the_middle_95_percent():
    """40 people of one clip, half of them always matched: a bootstrap mean is binomial(40, 1/2) / 40, of which 2.5 %
    lie at 13 or below (1.9 %) and not all of 14 (4.0 %), and as many above."""
    won = np.arange(40) % 2 == 0
    similarity = np.zeros((40, 40)) + np.diag(np.where(won, 1.0, -1.0))
    found = matching_accuracy(similarity, [str(n) for n in range(40)], 2)
    assert (found.accuracy, found.low, found.high) == pytest.approx((50, 35, 65))


def test_the_seed_decides_order_and_starts(tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"/{n}.mp4 /{n}.wav 0 200\n" for n in range(20)))
    one, same, other = (
        DatasetLoader(str(tmp_path / "list.txt"), 20, 2, 10, 1, seed=seed) for seed in (3, 3, 4)
    )
    clip = one.clips[0]
    for draw in (
        lambda loader: loader.draws(1),
        lambda loader: [loader.draw_start(clip, 1, n) for n in range(20)],
    ):
        assert draw(one) == draw(same) != draw(other)
    assert sorted(one.draws(1), key=str) == sorted(one.clips, key=str)
    assert one.draws(0) != one.draws(1)


class HeldBack(DatasetLoader):
    """Reads a batch of two at once, and more only when it is let."""

    def __init__(self, *args):
        super().__init__(*args)
        self.let = threading.Event()
        self.read = 0

    def read_clip(self, *_):
        self.read += 1
        if self.read > 2:
            self.let.wait(60)


def test_qsize_counts_the_batches_that_are_decoded(tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"/{n}.mp4 /{n}.wav 0 200\n" for n in range(20)))
    loader = HeldBack(str(tmp_path / "list.txt"), 20, 2, 10, 1)
    batches = iter(loader)
    next(batches)
    assert loader.qsize() == 0
    loader.let.set()
    while loader.qsize() < 1:
        time.sleep(0.01)
    assert loader.qsize() == 1
    batches.close()
    assert loader.qsize() == 0
