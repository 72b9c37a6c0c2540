"""Audio crops that match a number of video frames: their length, and their positions in an evaluation."""

import numpy as np
import torch
from torch import Tensor

from syncnet.media.clips import SAMPLES_PER_FRAME, MediaError
from syncnet.media.wav import check_heard

HOP_LENGTH = 160  # samples between audio feature frames: 10 ms, four per video frame
WINDOW_LENGTH = 400  # samples per feature frame: 25 ms
WINDOW_TAIL = WINDOW_LENGTH - HOP_LENGTH  # extra samples that complete the last window


def crop_samples(frames: int) -> int:
    """Return the number of audio samples for T = `frames` video frames, T*640 + 240."""
    return frames * SAMPLES_PER_FRAME + WINDOW_TAIL


def crop_starts(total: int, length: int, num_eval: int) -> list[int]:
    """Return the starts of num_eval crops of `length` samples, evenly spaced over `total` samples."""
    return np.linspace(0, total - length, num_eval).astype(int).tolist()


def spread_crops(filename: str, samples: np.ndarray, length: int, num_eval: int) -> Tensor:
    """Cut evenly spaced crops (see crop_starts): (num_eval, length) float32 from (samples,) int16.

    Raises MediaError, naming the file, if it is silent or not longer than one crop.
    """
    check_length(filename, len(samples), length)
    check_heard(filename, samples)
    starts = crop_starts(len(samples), length, num_eval)
    return torch.from_numpy(
        np.stack([samples[start : start + length] for start in starts]).astype(np.float32)
    )


def check_length(filename: str, samples: int, crop: int) -> None:
    """Raise MediaError if a file is not longer than a crop (both in samples), as the 2020 baseline."""
    if samples <= crop:
        raise MediaError(
            f"{filename}: Audio clip is too short: {samples} samples, needs more than {crop} "
            "(use a smaller --maxFrames, or skip the file)"
        )
