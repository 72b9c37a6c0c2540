"""Threads that decode clips straight into the memory of their batch, and survive clips that cannot be decoded."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from media.clips import Clip, MediaError

if TYPE_CHECKING:
    from DatasetLoader import DatasetLoader


class Batch:
    """Room for one batch and the clips that are being decoded into it."""

    def __init__(self, number: int, video: np.ndarray, audio: Tensor):
        self.number = number
        self.video = video
        self.audio = audio
        self.clips: list[Clip | None] = [None] * len(video)  # set when decoded

    @property
    def ready(self) -> bool:
        return None not in self.clips


@dataclass(eq=False)
class Task:
    """One clip of a batch to decode. `attempt`: draws before this one that could not be read."""

    batch: Batch
    slot: int
    attempt: int = 0
    clip: Clip | None = None
    deadline: float = float("inf")
    abandoned: bool = False  # took too long; its thread is on its own and its result does not count


class DecodingPool:
    """The threads that decode one epoch. OpenCV decodes without the interpreter lock.

    The threads are not joined when they hang in a decoder: such a clip is given up after decode_timeout,
    its memory is left to its thread, and another thread takes its place.
    """

    def __init__(self, loader: DatasetLoader, epoch: int):
        self.loader = loader
        self.epoch = epoch
        self.clips = loader.draws(epoch)
        self.replaced: list[str] = []  # reasons, one for each draw of this epoch that was replaced
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.changed = threading.Condition()  # guards everything below, and the batches
        self.running: dict[threading.Thread, Task] = {}
        self.error: BaseException | None = None
        self.threads: list[threading.Thread] = []
        for _ in range(loader.nThreads):
            self.start_thread()

    def start_thread(self) -> None:
        self.threads.append(threading.Thread(target=self.decode, daemon=True))
        self.threads[-1].start()

    def send(self, batch: Batch) -> None:
        for slot in range(len(batch.clips)):
            self.tasks.put(Task(batch, slot))

    def wait_for(self, batch: Batch) -> None:
        """Return when the batch is decoded; raise at once what stops the epoch, whichever batch has it."""
        with self.changed:
            while not self.error and not batch.ready:
                deadline = min((task.deadline for task in self.running.values()), default=float("inf"))
                left = deadline - time.monotonic()
                if left == float("inf"):
                    self.changed.wait(self.loader.decode_timeout)
                elif left > 0:
                    self.changed.wait(left)
                else:
                    self.give_up()
            if self.error:
                raise self.error

    def give_up(self) -> None:
        """Leave the threads that are past their deadline to themselves."""
        for thread, task in list(self.running.items()):
            if task.deadline <= time.monotonic():
                task.abandoned = True
                del self.running[thread]
                self.threads.remove(thread)
                # The lost thread may write into this memory at any time.
                task.batch.video, task.batch.audio = task.batch.video.copy(), task.batch.audio.clone()
                reason = f"{task.clip.video}: took longer than {self.loader.decode_timeout:g} s to decode"
                self.replace(task.clip, reason)
                self.tasks.put(Task(task.batch, task.slot, task.attempt + 1))
                self.start_thread()

    def replace(self, clip: Clip, reason: str) -> None:
        """Count a clip that has to be replaced; past max_bad, stop the epoch. Called with the lock held."""
        self.loader.reject(clip, reason)
        self.replaced.append(reason)
        allowed = self.loader.max_bad * self.loader.nFiles / self.loader.share[1]
        if len(self.replaced) <= allowed:
            return
        if allowed == 0:
            self.error = MediaError(reason)
        else:
            where = f"; all are in {self.loader.bad_log}" if self.loader.bad_log else ""
            self.error = MediaError(
                f"{len(self.replaced)} clips of this epoch of {self.loader.nFiles // self.loader.share[1]} "
                f"cannot be read, more than --max_bad {self.loader.max_bad:g} allows{where}. The last of them:\n  "
                + "\n  ".join(self.replaced[-3:])
            )

    def decode(self) -> None:
        while (task := self.tasks.get()) is not None and not self.error:
            try:
                done = self.fill(task)
            except BaseException as error:
                with self.changed:
                    self.error = self.error or error
                    self.changed.notify()
                return
            if not done:
                return

    def fill(self, task: Task) -> bool:
        """Decode a task's clip, or the first of its replacements that can be read. False: given up meanwhile."""
        loader, batch, slot = self.loader, task.batch, task.slot
        position = batch.number * loader.batch_size + loader.share[0] * loader.share_size + slot
        while not self.error:
            if task.attempt == 0:
                clip = self.clips[position]
            else:
                clip = loader.draw_again(self.epoch, position, task.attempt)
            with self.changed:
                task.clip, task.deadline = clip, time.monotonic() + loader.decode_timeout
                self.running[threading.current_thread()] = task
                video, audio = batch.video, batch.audio
            reason = loader.bad.get(clip)
            if reason is None:
                try:
                    start = loader.draw_start(clip, self.epoch, position)
                    loader.read_clip(clip, start, video[slot], audio[slot].numpy())
                except MediaError as error:
                    reason = str(error)
                except MemoryError:
                    raise
                except Exception as error:
                    reason = f"{clip.video}: {type(error).__name__}: {error}"
            with self.changed:
                if task.abandoned:
                    return False
                del self.running[threading.current_thread()]
                if reason is None:
                    if batch.video is not video:  # another clip of the batch was given up meanwhile
                        batch.video[slot], batch.audio[slot] = video[slot], audio[slot]
                    batch.clips[slot] = clip
                    if batch.ready:
                        self.changed.notify()
                    return True
                self.replace(clip, reason)
                task.attempt += 1
                if self.error:
                    self.changed.notify()
        return True

    def close(self) -> None:
        """End the threads; each finishes the clip it is at, for decode_timeout at most."""
        with self.changed:
            self.error = self.error or GeneratorExit()
        for _ in self.threads:
            self.tasks.put(None)
        for thread in self.threads:
            thread.join(self.loader.decode_timeout)
