"""From list lines to batches: threads decode face frames and voice samples straight into their batch.

Frames stay uint8 from the decoder to the device. A batch depends only on the seed, the epoch and its number, not on
the number of threads or their timing.
"""

import inspect
import math
import time
import weakref
from collections import deque
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from syncnet.loading.augment import Augmentation
from syncnet.loading.bad_clips import BadClips
from syncnet.loading.decoding import Batch, DecodingPool
from syncnet.loading.sizes import TooFewClips, sizes_remedy
from syncnet.media.clips import (
    FRAME_SIZE,
    MARGIN,
    SAMPLES_PER_FRAME,
    Clip,
    MediaError,
    check_paths,
    read_list,
)
from syncnet.media.crops import HOP_LENGTH, WINDOW_TAIL, check_length, crop_samples, spread_crops
from syncnet.media.video import read_frames
from syncnet.media.wav import open_wav, read_wav
from syncnet.support.errors import UserError
from syncnet.support.names import refuse_unknown

RECENT_BATCHES = 64  # batches whose clips are remembered for messages
AUGMENTATION = 1  # id of the random stream of a clip's augmentation


def loadWAV(
    filename: str, max_frames: int, start_frame: int = 0, evalmode: bool = False, num_eval: int = 10
) -> Tensor:
    """Read a crop of max_frames*160 + 240 samples, raw int16 values as float32.

    max_frames, start_frame: in feature frames of 160 samples, four per video frame.
    evalmode: return num_eval crops instead, with starts spread evenly from the first possible one to the last.
    Returns (1, samples), or (num_eval, samples) in evalmode.
    Raises MediaError if the file is not a 16 kHz mono int16 wav, or not longer than one crop.
    """
    length = max_frames * HOP_LENGTH + WINDOW_TAIL
    samples = open_wav(filename)
    if evalmode:
        return spread_crops(filename, samples, length, num_eval)
    check_length(filename, len(samples), length)
    crop = torch.empty(1, length, dtype=torch.float32, device="cpu")
    read_wav(filename, start_frame * HOP_LENGTH, crop[0].numpy())
    return crop


def get_frames(filename: str, max_frames: int = 100, start_frame: int = 0) -> Tensor:
    """Decode max_frames frames, starting at start_frame (0-based): (1, 3, max_frames, 224, 224) float32.

    BGR, 0..255, neither scaled nor centered. Raises MediaError.
    """
    frames = np.empty((1, max_frames, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    read_frames(filename, start_frame, frames[0])
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float()


class DatasetLoader:
    """Iterates over the (video, audio) batches of an epoch.

    video: (B, 3, T, 224, 224) uint8, a view of (B, T, 224, 224, 3) memory, BGR; audio:
    (B, T*640 + 240) float32 on the int16 scale. Each iteration is the next epoch: a fresh shuffle of the list,
    truncated to nPerEpoch clips, full batches only; set_epoch selects one. In evalmode all iterations are the same.

    dataset_file_name: list made by makeFileList.py. nPerEpoch: clips per epoch. nBatchSize: clips per batch.
    maxFrames: T, video frames per clip. nDataLoaderThread: decoding threads. maxQueueSize: batches decoded ahead of
    the current one; more if that would leave threads idle. Memory: T * 147 kB per clip of these and the current
    batch, 215 MiB per batch of 30 clips of 50 frames. pin_memory: page-locked batches, for copies to a GPU that
    overlap with computation. allow_resize: scale frames that are not 224x224.

    A clip that cannot be read, or takes more than decode_timeout seconds, is replaced by another draw and logged once
    in the file bad_log; the epoch stops if more than max_bad (a fraction) of its clips had to be replaced; if max_bad
    is 0, at the first.

    A clip that takes too long is tried at its other positions in that epoch, and skipped in later epochs. Batches
    then depend on `hung`, the (video, epoch, position) of each such clip, not on timing. Save and restore
    `hung` to resume; it must be the same in all processes when an epoch begins.

    share: (number, count), with several processes: the part of every batch that this one reads. Batches then have
    nBatchSize / count clips, and all parts together are the batch of a single process.

    augment_noise, augment_rir: folders of noises and room impulse responses. augment_prob: fraction of the clips that
    get one. flip: flip half of the clips, drawn at random, horizontally. See syncnet/loading/augment.py. The
    augmentation of a clip is a function of seed, epoch and position; there is none in evalmode.

    The other flags of the 2020 program are accepted and ignored, so that `DatasetLoader(train_list, nPerEpoch=...,
    **vars(args))` works; any other argument raises TypeError.

    Raises MediaError for a broken list, or one with fewer usable clips than a batch, UserError for a folder without
    sound; while iterating, MediaError if too many clips cannot be read, naming them. The memory of a batch is reused
    once the caller drops it. data_wait: seconds spent waiting for batches in the last epoch.
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
        maxQueueSize: int = 1,
        pin_memory: bool = False,
        allow_resize: bool = False,
        max_bad: float = 0.0,
        bad_log: str | None = None,
        decode_timeout: float = 60.0,
        share: tuple[int, int] = (0, 1),
        augment_noise: str = "",
        augment_rir: str = "",
        augment_prob: float = 0.6,
        flip: bool = False,
        **flags_of_2020: object,
    ):
        refuse_unknown("DatasetLoader", flags_of_2020, inspect.signature(DatasetLoader.__init__).parameters)
        for name, value in (
            ("nPerEpoch", nPerEpoch),
            ("nBatchSize", nBatchSize),
            ("maxFrames", maxFrames),
            ("nDataLoaderThread", nDataLoaderThread),
            ("maxQueueSize", maxQueueSize),
        ):
            if value < 1:
                raise UserError(f"{name} must be at least 1, found {value}")
        if nBatchSize % share[1]:
            raise UserError(f"a batch of {nBatchSize} cannot be divided evenly among {share[1]} processes")
        self.batch_size = nBatchSize
        self.share_size = nBatchSize // share[1]
        self.share = share
        self.maxFrames = maxFrames
        self.nThreads = nDataLoaderThread
        self.evalmode = evalmode
        self.seed = seed
        self.maxQueueSize = max(maxQueueSize, math.ceil(nDataLoaderThread / self.share_size))
        self.pin_memory = pin_memory
        self.allow_resize = allow_resize

        self.dataset_file_name = dataset_file_name
        clips = read_list(dataset_file_name)
        self.clips = [clip for clip in clips if clip.longest_crop >= maxFrames]
        self.nFiles = min(nPerEpoch, len(self.clips))
        if nPerEpoch < nBatchSize <= len(self.clips):
            flag = "nTestPerEpoch" if evalmode else "nTrainPerEpoch"
            raise MediaError(
                f"{dataset_file_name}: {nPerEpoch} clips per epoch (nPerEpoch, --{flag}) are less than one batch of "
                f"{nBatchSize} (--nBatchSize); use {nBatchSize} or more, or a smaller batch"
            )
        if self.nFiles < nBatchSize:
            raise TooFewClips(
                f"{dataset_file_name}: {len(self.clips)} of {len(clips)} clips have the "
                f"{maxFrames + MARGIN} frames (+ |offset|) that maxFrames {maxFrames} needs: less than one batch of "
                f"{nBatchSize}.",
                sizes_remedy([clips], maxFrames, nBatchSize, share[1]),
            )
        self.augmentation = None
        if not evalmode and (augment_noise or augment_rir or flip):
            self.augmentation = Augmentation(augment_noise, augment_rir, augment_prob, flip)
        self.decode_timeout = decode_timeout
        self._bad_clips = BadClips(bad_log, self.nFiles, max_bad)
        self.bad = self._bad_clips.reasons
        self.hung: list[tuple[str, int, int]] = []
        self.epoch = -1
        self.first_batch = 0
        self.data_wait = 0.0
        self.handed_out: deque[tuple[int, list[Clip]]] = deque(maxlen=RECENT_BATCHES)
        self._free: list[np.ndarray] = []
        self._ahead: deque[Batch] = deque()

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.nFiles // self.batch_size

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Make the next iteration this epoch (0-based), starting at first_batch."""
        self.epoch = epoch - 1
        self.first_batch = first_batch

    def qsize(self) -> int:
        """The number of decoded batches that are waiting."""
        return sum(batch.ready for batch in self._ahead)

    def clips_of(self, number: int) -> list[Clip]:
        """The clips of a recent batch of this epoch, by its 0-based number; [] for older ones."""
        return next((clips for handed_out, clips in self.handed_out if handed_out == number), [])

    def draws(self, epoch: int) -> list[Clip]:
        """The clips of an epoch, in order."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.clips))
        return [self.clips[i] for i in order[: self.nFiles]]

    def draw_start(self, clip: Clip, epoch: int, position: int) -> int:
        """Start frame of the clip at a position of the epoch: uniform, as in the 2020 baseline."""
        first = 2 - min(clip.offset, 0)
        last = clip.frames - max(clip.offset, 0) - (self.maxFrames + 2)
        return int(np.random.default_rng((self.seed, epoch, position)).integers(first, last + 1))

    def read_clip(self, clip: Clip, start: int, video: np.ndarray, audio: np.ndarray) -> None:
        """Fill one clip's slot of a batch, starting at frame start + offset - 1 and sample start * 640."""
        read_wav(clip.audio, start * SAMPLES_PER_FRAME, audio)
        read_frames(clip.video, start + clip.offset - 1, video, self.allow_resize)

    def draw_again(self, epoch: int, position: int, attempt: int) -> Clip:
        """The clip that replaces one that could not be read; a function of its arguments and the seed."""
        draw = np.random.default_rng((self.seed, epoch, position, attempt))
        return self.clips[draw.integers(len(self.clips))]

    def check_paths(self) -> None:
        """Raise MediaError if the list's paths do not exist relative to the current folder."""
        check_paths(self.dataset_file_name, [clip.audio for clip in self.clips], "wav file")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.check_paths()
        self.epoch += 1
        drawn = 0 if self.evalmode else self.epoch
        self.data_wait = 0.0
        self.handed_out.clear()
        first_batch, self.first_batch = self.first_batch, 0
        ahead = self._ahead = deque()
        self._bad_clips.begin_epoch()
        pool = DecodingPool(
            self.nThreads,
            self.decode_timeout,
            partial(self._draw, self.draws(drawn), drawn),
            partial(self._read, drawn),
            self._reject,
        )
        try:
            sent = first_batch
            for number in range(first_batch, len(self)):
                while sent <= min(number + self.maxQueueSize, len(self) - 1):
                    ahead.append(self._room(sent))
                    pool.send(ahead[-1])
                    sent += 1
                waiting = time.perf_counter()
                pool.wait_for(ahead[0])
                self.data_wait += time.perf_counter() - waiting
                yield self._hand_out(ahead.popleft())
        finally:
            pool.close()
            ahead.clear()

    def _draw(self, order: list[Clip], epoch: int, position: int, attempt: int) -> Clip:
        return order[position] if attempt == 0 else self.draw_again(epoch, position, attempt)

    def _read(
        self, epoch: int, clip: Clip, position: int, attempt: int, video: np.ndarray, audio: np.ndarray
    ) -> None:
        for slow, since, place in self.hung:
            if slow == clip.video and (since < self.epoch or (since, place) == (self.epoch, position)):
                raise MediaError(f"{slow}: took longer than {self.decode_timeout:g} s to decode before")
        self.read_clip(clip, self.draw_start(clip, epoch, position), video, audio)
        if self.augmentation:
            # The stream id comes last: SeedSequence ignores trailing zeros.
            draws = np.random.default_rng((self.seed, epoch, position, attempt, AUGMENTATION))
            self.augmentation.change(draws, video, audio)

    def _reject(self, clip: Clip, position: int, reason: str, hung: bool) -> None:
        if hung:
            self.hung.append((clip.video, self.epoch, position))
        self._bad_clips.reject(clip, reason)

    def _room(self, number: int) -> Batch:
        """An empty batch. Its video memory may be reused; the small audio tensor is always new."""
        if self._free:
            video = self._free.pop()
        else:
            shape = (self.share_size, self.maxFrames, FRAME_SIZE, FRAME_SIZE, 3)
            video = torch.empty(shape, dtype=torch.uint8, device="cpu", pin_memory=self.pin_memory).numpy()
        samples = (self.share_size, crop_samples(self.maxFrames))
        audio = torch.empty(samples, dtype=torch.float32, device="cpu", pin_memory=self.pin_memory)
        return Batch(number, number * self.batch_size + self.share[0] * self.share_size, video, audio)

    def _hand_out(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch as tensors. Its video memory is reused once the last view of it is gone."""
        self.handed_out.append((batch.number, [clip for clip in batch.clips if clip]))
        view = batch.video.view()
        weakref.finalize(view, self._free.append, batch.video).atexit = False
        return torch.from_numpy(view).permute(0, 4, 1, 2, 3), batch.audio
