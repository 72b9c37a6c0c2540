"""Decode clips in threads, directly into the memory of a batch, even if some clips hang the decoder."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from syncnet.media.clips import Clip, MediaError
from syncnet.support.errors import is_out_of_memory

DrawClip = Callable[[int, int], Clip]
ReadClip = Callable[[Clip, int, int, np.ndarray, np.ndarray], None]
RejectClip = Callable[[Clip, int, str, bool], None]


class Batch:
    """The memory of one batch, and the clips decoded into it.

    number: index of the batch in its epoch. first: position in the epoch of the clip in slot 0.
    """

    def __init__(self, number: int, first: int, video: np.ndarray, audio: Tensor):
        self.number = number
        self.first = first
        self.video = video
        self.audio = audio
        self.clips: list[Clip | None] = [None] * len(video)  # set once decoded

    @property
    def ready(self) -> bool:
        return None not in self.clips


@dataclass(eq=False)
class Task:
    """One clip of a batch to decode. attempt: number of clips drawn before for this slot that could not be read."""

    batch: Batch
    slot: int
    attempt: int = 0
    clip: Clip | None = None
    deadline: float = float("inf")
    abandoned: bool = False  # took too long; its thread and its result are ignored


class DecodingPool:
    """The threads that decode the clips of one epoch. OpenCV releases the GIL while decoding.

    threads: number of threads. timeout: seconds allowed per clip. draw(position, attempt): returns the clip for a
    position in the epoch after `attempt` earlier ones could not be read. read(clip, position, attempt, video, audio):
    decodes a clip into these arrays, its slot of a batch. reject(clip, position, reason, hung): called for each clip
    that could not be read; an exception that it raises stops the epoch.

    A thread that hangs in a decoder is not joined. After the timeout, its clip is abandoned, the thread keeps the
    memory that it may still write to, and a new thread replaces it.
    """

    def __init__(self, threads: int, timeout: float, draw: DrawClip, read: ReadClip, reject: RejectClip):
        self.timeout = timeout
        self.draw = draw
        self.read = read
        self.reject = reject
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.changed = threading.Condition()  # guards everything below, and the batches
        self.running: dict[threading.Thread, Task] = {}
        self.error: BaseException | None = None
        self.threads: list[threading.Thread] = []
        for _ in range(threads):
            self.start_thread()

    def start_thread(self) -> None:
        self.threads.append(threading.Thread(target=self.decode, daemon=True))
        self.threads[-1].start()

    def send(self, batch: Batch) -> None:
        for slot in range(len(batch.clips)):
            self.tasks.put(Task(batch, slot))

    def wait_for(self, batch: Batch) -> None:
        """Wait until the batch is decoded. Raises the error that stops the epoch as soon as there is one."""
        with self.changed:
            while not self.error and not batch.ready:
                deadline = min((task.deadline for task in self.running.values()), default=float("inf"))
                left = deadline - time.monotonic()
                if left == float("inf"):
                    self.changed.wait(self.timeout)
                elif left > 0:
                    self.changed.wait(left)
                else:
                    self.give_up()
            if self.error:
                raise self.error

    def give_up(self) -> None:
        """Abandon the threads that are past their deadline."""
        for thread, task in list(self.running.items()):
            if task.clip is not None and task.deadline <= time.monotonic():
                task.abandoned = True
                del self.running[thread]
                self.threads.remove(thread)
                # The abandoned thread may write to the old memory at any time.
                task.batch.video, task.batch.audio = task.batch.video.copy(), task.batch.audio.clone()
                reason = f"{task.clip.video}: took longer than {self.timeout:g} s to decode"
                self.replace(task.clip, task.batch.first + task.slot, reason, hung=True)
                self.tasks.put(Task(task.batch, task.slot, task.attempt + 1))
                self.start_thread()

    def replace(self, clip: Clip, position: int, reason: str, hung: bool = False) -> None:
        """Reject a clip that must be replaced, which may stop the epoch. The caller holds the lock."""
        try:
            self.reject(clip, position, reason, hung)
        except Exception as error:
            self.error = self.error or error

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
        """Decode a task's clip, or the first readable replacement. Returns False if the task was abandoned."""
        batch, slot = task.batch, task.slot
        position = batch.first + slot
        while not self.error:
            clip = self.draw(position, task.attempt)
            with self.changed:
                task.clip, task.deadline = clip, time.monotonic() + self.timeout
                self.running[threading.current_thread()] = task
                video, audio = batch.video, batch.audio
            reason = None
            try:
                self.read(clip, position, task.attempt, video[slot], audio[slot].numpy())
            except MediaError as error:
                reason = str(error)
            except Exception as error:
                if is_out_of_memory(error):  # not the clip's fault
                    raise
                reason = f"{clip.video}: {type(error).__name__}: {error}"
            with self.changed:
                if task.abandoned or self.error:
                    return False
                del self.running[threading.current_thread()]
                if reason is None:
                    if batch.video is not video:  # another clip of the batch was abandoned meanwhile
                        batch.video[slot], batch.audio[slot] = video[slot], audio[slot]
                    batch.clips[slot] = clip
                    if batch.ready:
                        self.changed.notify()
                    return True
                self.replace(clip, position, reason)
                task.attempt += 1
                if self.error:
                    self.changed.notify()
        return True

    def close(self) -> None:
        """Stop the threads after their current clips. Waits at most `timeout` for all of them together."""
        with self.changed:
            self.error = self.error or GeneratorExit()
        for _ in self.threads:
            self.tasks.put(None)
        deadline = time.monotonic() + self.timeout
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
