"""Wavs as training reads them: 16 kHz, mono, int16."""

import contextlib
import errno
import os
import struct
import warnings
import wave

import numpy as np
from scipy.io import wavfile

from media.clips import SAMPLE_RATE, MediaError
from support.files import aside


class WavFormatError(MediaError):
    """A sound wav file, but not 16 kHz mono int16."""


def open_wav(path: str) -> np.ndarray:
    """The samples of a 16 kHz mono int16 wav, mapped, not read: (samples,) int16.

    Raises MediaError for a file that is missing, broken or of another format.
    """
    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such wav file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks other than audio are fine
            rate, samples = wavfile.read(path, mmap=True)
    except Exception as error:  # scipy raises many kinds on a damaged header
        raise MediaError(f"{path}: not a readable wav file ({error})") from None
    if rate != SAMPLE_RATE or samples.ndim != 1 or samples.dtype != np.int16:
        channels = samples.shape[1] if samples.ndim == 2 else 1
        raise WavFormatError(
            f"{path}: {rate} Hz, {channels} channel(s), {samples.dtype}; "
            f"expected {SAMPLE_RATE} Hz, 1 channel, int16. Convert it with convertAudio.py."
        )
    return samples


def read_wav(path: str, first: int, out: np.ndarray) -> None:
    """Read the samples of a 16 kHz mono int16 wav from number `first` (0-based) on into `out`: (samples,).

    Raises MediaError when the wav is missing, broken, of another format or ends early.
    """
    try:
        # A plain wav is read with a seek: a file that is mapped and let go stops all threads for a moment.
        with wave.open(path) as wav:
            if (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (SAMPLE_RATE, 1, 2):
                wav.setpos(first)
                samples = wav.readframes(len(out))
                if len(samples) == 2 * len(out):
                    out[:] = np.frombuffer(samples, np.int16)
                    return
    except (wave.Error, EOFError, OSError):
        pass
    samples = open_wav(path)  # which reads the rarer kinds and says what is wrong
    if first < 0 or first + len(out) > len(samples):
        raise MediaError(
            f"{path}: has {len(samples)} samples, {first} to {first + len(out)} were asked for; "
            "if a list names it, make the list again with makeFileList.py"
        )
    out[:] = samples[first : first + len(out)]


def write_wav(path: str, sound: np.ndarray) -> None:
    """Write (samples,) int16 at 16 kHz aside, then rename: `path` is whole or not there. Raises OSError.

    Unlike replace_file, this does not wait for the disk, which would take longer than the conversion:
    if the machine loses power, a wav that did not reach the disk is too short, and is made again.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    part = aside(path)
    try:
        with open(part, "wb", buffering=0) as file:
            form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
            head = struct.pack("<4sI4s", b"RIFF", 36 + sound.nbytes, b"WAVE") + form
            file.write(head + struct.pack("<4sI", b"data", sound.nbytes))
            if file.write(sound.astype("<i2", copy=False)) != sound.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        raise
