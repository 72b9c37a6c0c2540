"""List lines to batches: threads decode face frames and voice samples straight into their batch.

Frames stay uint8 from the decoder to the device. What a batch holds depends on the seed, the epoch
and the batch's number alone: neither on the number of threads nor on their timing.
"""

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from clipFiles import FRAME_SIZE, SAMPLES_PER_FRAME, Clip, MediaError, open_wav, read_frames, read_list

HOP_LENGTH = 160  # samples between audio feature frames
WINDOW_TAIL = 240  # samples that complete the last 400-sample window: T frames need T*640 + 240
MARGIN = 4  # a clip is used when frames - |offset| >= maxFrames + MARGIN


def loadWAV(
    filename: str, max_frames: int, start_frame: int = 0, evalmode: bool = False, num_eval: int = 10
) -> Tensor:
    """Read a crop of max_frames*160 + 240 samples, raw int16 values as float32.

    max_frames, start_frame: in feature frames of 160 samples, four to a video frame.
    evalmode: num_eval crops spread evenly from the first possible start to the last one instead.
    Returns (1, samples), or (num_eval, samples) in evalmode.
    Raises MediaError when the file is not a 16 kHz mono int16 wav, or not longer than one crop.
    """
    length = max_frames * HOP_LENGTH + WINDOW_TAIL
    samples = open_wav(filename)
    check_length(filename, len(samples), length)
    if evalmode:
        starts = np.linspace(0, len(samples) - length, num_eval).astype(int)
    else:
        starts = [start_frame * HOP_LENGTH]
        if starts[0] < 0 or starts[0] + length > len(samples):
            raise MediaError(
                f"{filename}: has {len(samples)} samples, {starts[0]} to {starts[0] + length} were asked for"
            )
    crops = np.stack([samples[start : start + length] for start in starts])
    return torch.from_numpy(crops.astype(np.float32))


def check_length(filename: str, samples: int, crop: int) -> None:
    """Raise MediaError when a file of `samples` samples is not longer than a crop, as the 2020 baseline."""
    if samples <= crop:
        raise MediaError(
            f"{filename}: Audio clip is too short: {samples} samples, needs more than {crop} "
            "(use a smaller --maxFrames, or leave the file out)"
        )


def get_frames(filename: str, max_frames: int = 100, start_frame: int = 0) -> Tensor:
    """Decode max_frames frames from number start_frame (0-based) on: (1, 3, max_frames, 224, 224) float32.

    BGR, 0..255, neither scaled nor centred. Raises MediaError.
    """
    frames = np.empty((1, max_frames, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    read_frames(filename, start_frame, frames[0])
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float()


class Batch:
    """Room for one batch and the clips that are being decoded into it."""

    def __init__(self, video: np.ndarray, audio: Tensor):
        self.video = video
        self.audio = audio
        self.missing = len(video)
        self.error: BaseException | None = None


class DatasetLoader:
    """Iterates the (video, audio) batches of an epoch.

    video: (B, 3, T, 224, 224) uint8, a view of (B, T, 224, 224, 3) memory, BGR; audio:
    (B, T*640 + 240) float32 on the int16 scale. Each iteration is the next epoch: a fresh shuffle of
    the list, cut to nPerEpoch clips, full batches only; set_epoch chooses one. In evalmode every
    iteration is the same.

    dataset_file_name: list made by makeFileList.py. nPerEpoch: clips an epoch. nBatchSize: clips a
    batch. maxFrames: T, video frames a clip. nDataLoaderThread: decoding threads. maxQueueSize:
    batches decoded ahead of the one in use, which bounds memory. pin_memory: page-locked batches, for
    copies to a GPU that overlap with computing. allow_resize: scale frames that are not 224x224.

    Raises MediaError for a broken list, or one with fewer usable clips than a batch; while iterating,
    for a clip that cannot be read, naming it. After an epoch, data_wait is the number of seconds for
    which the batches were waited for.
    """

    def __init__(
        self,
        dataset_file_name: str,
        nPerEpoch: int,
        nBatchSize: int,
        maxFrames: int,
        nDataLoaderThread: int,
        evalmode: bool = False,
        seed: int = 0,
        maxQueueSize: int = 2,
        pin_memory: bool = False,
        allow_resize: bool = False,
    ):
        for name, value in (
            ("nPerEpoch", nPerEpoch),
            ("nBatchSize", nBatchSize),
            ("maxFrames", maxFrames),
            ("nDataLoaderThread", nDataLoaderThread),
            ("maxQueueSize", maxQueueSize),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        self.batch_size = nBatchSize
        self.maxFrames = maxFrames
        self.nThreads = nDataLoaderThread
        self.evalmode = evalmode
        self.seed = seed
        self.maxQueueSize = maxQueueSize
        self.pin_memory = pin_memory
        self.allow_resize = allow_resize

        clips = read_list(dataset_file_name)
        self.clips = [c for c in clips if c.frames - abs(c.offset) >= maxFrames + MARGIN]
        self.nFiles = min(nPerEpoch, len(self.clips))
        if self.nFiles < nBatchSize:
            raise MediaError(
                f"{dataset_file_name}: {len(self.clips)} of {len(clips)} clips have the "
                f"{maxFrames + MARGIN} frames (+ |offset|) that maxFrames {maxFrames} needs, {self.nFiles} "
                f"of them used an epoch: less than one batch of {nBatchSize}. "
                "Use a smaller --nBatchSize or --maxFrames, or a longer list."
            )
        self.epoch = -1
        self.data_wait = 0.0
        self._free: list[np.ndarray] = []
        self._ahead: deque[Batch] = deque()

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.nFiles // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """The next iteration will be this epoch (0-based)."""
        self.epoch = epoch - 1

    def qsize(self) -> int:
        """Batches that are decoded and waiting."""
        return sum(batch.missing == 0 for batch in self._ahead)

    def draws(self, epoch: int) -> list[Clip]:
        """The clips of an epoch, in order."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.clips))
        return [self.clips[i] for i in order[: self.nFiles]]

    def draw_start(self, clip: Clip, epoch: int, position: int) -> int:
        """Start frame of the clip at a position of the epoch, uniform, as the 2020 baseline draws it."""
        first = 2 - min(clip.offset, 0)
        last = clip.frames - max(clip.offset, 0) - (self.maxFrames + 2)
        return int(np.random.default_rng((self.seed, epoch, position)).integers(first, last + 1))

    def read_clip(self, clip: Clip, start: int, video: np.ndarray, audio: np.ndarray) -> None:
        """Fill one clip's slot of a batch: the frames from start + offset - 1, the samples from start*640."""
        samples = open_wav(clip.audio)
        first = start * SAMPLES_PER_FRAME
        if first + len(audio) > len(samples):
            raise MediaError(
                f"{clip.audio}: has {len(samples)} samples, "
                f"{first + len(audio)} are needed for a clip of {clip.frames} frames; "
                "make the list again with makeFileList.py"
            )
        audio[:] = samples[first : first + len(audio)]
        read_frames(clip.video, start + clip.offset - 1, video, self.allow_resize)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch = 0 if self.evalmode else self.epoch + 1
        self.data_wait = 0.0
        epoch, clips = self.epoch, self.draws(self.epoch)
        tasks: queue.SimpleQueue = queue.SimpleQueue()
        finished = threading.Condition()
        ahead = self._ahead = deque()

        def decode() -> None:
            while (task := tasks.get()) is not None:
                batch, slot, position = task
                if batch.error is None:
                    try:
                        clip = clips[position]
                        start = self.draw_start(clip, epoch, position)
                        self.read_clip(clip, start, batch.video[slot], batch.audio[slot].numpy())
                    except BaseException as error:
                        batch.error = error
                with finished:
                    batch.missing -= 1
                    if batch.error or batch.missing == 0:
                        finished.notify()

        def send(number: int) -> None:
            batch = self._room()
            ahead.append(batch)
            for slot in range(self.batch_size):
                tasks.put((batch, slot, number * self.batch_size + slot))

        threads = [threading.Thread(target=decode, daemon=True) for _ in range(self.nThreads)]
        for thread in threads:
            thread.start()
        try:
            sent = min(self.maxQueueSize, len(self))
            for number in range(sent):
                send(number)
            for _ in range(len(self)):
                waiting = time.perf_counter()
                with finished:
                    # An error in any of the batches ahead is told now, not when its turn comes.
                    while ahead[0].missing and not any(batch.error for batch in ahead):
                        finished.wait()
                    for batch in ahead:
                        if batch.error:
                            raise batch.error
                self.data_wait += time.perf_counter() - waiting
                batch = ahead.popleft()
                if sent < len(self):
                    send(sent)
                    sent += 1
                yield self._hand_out(batch)
        finally:
            for batch in ahead:
                batch.error = batch.error or GeneratorExit()  # nothing more needs decoding
            for _ in threads:
                tasks.put(None)
            for thread in threads:
                thread.join()
            ahead.clear()

    def _room(self) -> Batch:
        """An empty batch: video memory that nobody uses any more, or new; the small audio is always new."""
        if self._free:
            video = self._free.pop()
        else:
            shape = (self.batch_size, self.maxFrames, FRAME_SIZE, FRAME_SIZE, 3)
            video = torch.empty(shape, dtype=torch.uint8, pin_memory=self.pin_memory).numpy()
        samples = self.maxFrames * SAMPLES_PER_FRAME + WINDOW_TAIL
        return Batch(video, torch.empty((self.batch_size, samples), pin_memory=self.pin_memory))

    def _hand_out(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch as tensors. Its video memory is used again only when the last view of it is gone."""
        view = batch.video.view()
        weakref.finalize(view, self._free.append, batch.video).atexit = False
        return torch.from_numpy(view).permute(0, 4, 1, 2, 3), batch.audio
