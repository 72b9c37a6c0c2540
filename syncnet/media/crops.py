"""Crops of a sound, as long as a number of video frames: their length, and where an evaluation takes them."""

import numpy as np
import torch
from torch import Tensor

from syncnet.media.clips import SAMPLES_PER_FRAME, MediaError
from syncnet.media.wav import check_heard

HOP_LENGTH = 160  # samples from one audio feature frame to the next: 10 ms, four to a video frame
WINDOW_LENGTH = 400  # samples that a feature frame is made of: 25 ms
WINDOW_TAIL = WINDOW_LENGTH - HOP_LENGTH  # samples that complete the last window


def crop_samples(frames: int) -> int:
    """The samples of a crop of `frames` video frames, T*640 + 240."""
    return frames * SAMPLES_PER_FRAME + WINDOW_TAIL


def crop_starts(total: int, length: int, num_eval: int) -> list[int]:
    """num_eval starts of crops of `length`, spread evenly from the first to the last that `total` allows."""
    return np.linspace(0, total - length, num_eval).astype(int).tolist()


def spread_crops(filename: str, samples: np.ndarray, length: int, num_eval: int) -> Tensor:
    """The crops of an evaluation, at crop_starts: (num_eval, length) float32 of (samples,) int16.

    Raises MediaError, naming the file, when it is not longer than one crop, or silent.
    """
    check_length(filename, len(samples), length)
    check_heard(filename, samples)
    starts = crop_starts(len(samples), length, num_eval)
    return torch.from_numpy(
        np.stack([samples[start : start + length] for start in starts]).astype(np.float32)
    )


def check_length(filename: str, samples: int, crop: int) -> None:
    """Raise MediaError when a file of `samples` samples is not longer than a crop, as the 2020 baseline."""
    if samples <= crop:
        raise MediaError(
            f"{filename}: Audio clip is too short: {samples} samples, needs more than {crop} "
            "(use a smaller --maxFrames, or leave the file out)"
        )
