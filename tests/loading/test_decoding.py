"""Threads that decode into a batch, while a neighbor hangs."""

import threading
import time

import numpy as np
import torch

from syncnet.loading.decoding import Batch, DecodingPool
from syncnet.media.clips import Clip


def test_a_clip_that_finishes_after_its_neighbor_was_given_up_is_whole():
    """The memory of the batch is replaced when the hung clip is given up, while the other clip is being decoded."""
    batch = Batch(0, 0, np.zeros((2, 3, 4), np.uint8), torch.zeros(2, 5))
    first, released = batch.video, threading.Event()

    def read(_clip, position, attempt, video, audio):
        if position == 0 and attempt == 0:
            released.wait(20)  # hangs
            return
        if position == 1:
            while batch.video is first:
                time.sleep(0.001)
        video[:], audio[:] = 10 + position, 20 + position

    pool = DecodingPool(2, 0.3, lambda position, _: Clip(str(position), "", 0, 9), read, lambda *_: None)
    # The neighbor has just begun when the hung clip is given up.
    real = pool.give_up

    def give_up() -> None:
        for task in pool.running.values():
            task.deadline = float("inf") if task.slot == 1 else task.deadline
        real()

    pool.give_up = give_up
    try:
        pool.send(batch)
        pool.wait_for(batch)
    finally:
        released.set()
        pool.close()
    assert batch.video is not first
    assert (batch.video[0] == 10).all() and (batch.video[1] == 11).all()
    assert (batch.audio[0] == 20).all() and (batch.audio[1] == 21).all()
