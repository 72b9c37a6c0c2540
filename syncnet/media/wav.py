"""Read and write 16 kHz mono int16 wavs, the format that training reads, without a decoder."""

import os
import shlex
import wave
from typing import BinaryIO

import numpy as np

from syncnet.media.clips import SAMPLE_RATE, MediaError
from syncnet.media.file_type import get_again
from syncnet.media.open_media import can_be_decoded, container_kind, open_media, sound_streams
from syncnet.support.files import replace_file
from syncnet.support.tar_members import is_file, member_of, open_file

EXPECTED = f"expected {SAMPLE_RATE} Hz, 1 channel, int16"
PIPE_SIZE = 0x7FFFF000  # bytes; programs that write to a pipe declare a size of 0, or at least this


class WavFormatError(MediaError):
    """The file is not a 16 kHz mono int16 wav but can be converted to one. found: its format."""

    def __init__(self, path: str, found: str, folder: str | None = None):
        member = member_of(path)
        line = conversion_line(folder or os.path.dirname(path) or ".")
        if folder:
            remedy = f"Convert it: {line}, and give {converted_folder(folder)} instead of {folder}"
        elif member:
            remedy = f"Unpack {member.tar}, convert its sound with convertAudio.py, and pack that"
        else:
            remedy = (
                f"Convert it: {line} (or the same with a folder further up), and read it from there (--wav_dir of "
                "makeFileList.py, --test_path of --eval)"
            )
        super().__init__(f"{path}: {found}; {EXPECTED}. {remedy}")
        self.path = path
        self.found = found

    def for_all_in(self, folder: str) -> "WavFormatError":
        """Return the same error with the command that converts a whole folder."""
        return WavFormatError(self.path, self.found, folder)


class SilentError(MediaError):
    """The audio is digital silence."""


def conversion_line(folder: str) -> str:
    """Return the command that converts all audio in a folder, into a new folder next to it."""
    made = converted_folder(folder)
    return f"python convertAudio.py --src {shlex.quote(folder)} --dst {shlex.quote(made)}"


def converted_folder(folder: str) -> str:
    """Return the folder that the command of conversion_line creates."""
    plain = os.path.normpath(folder)
    return "wav_16k" if plain.strip("./") == "" else plain + "_16k"


def map_wav(path: str) -> np.ndarray | None:
    """Memory-map the samples of a 16 kHz mono int16 wav: (samples,) int16; None for any other file.

    Raises MediaError if the wav is truncated.
    """
    if not is_file(path):
        return None
    try:
        with open_file(path) as file:
            start, samples = _find_samples(file, path) or (0, -1)
            if samples < 0:
                return None
            return np.memmap(file, "<i2", "r", start, (samples,)) if samples else np.empty(0, np.int16)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from None


def open_wav(path: str) -> np.ndarray:
    """Like map_wav, but raises MediaError if the wav is missing or broken, WavFormatError if it must be converted."""
    samples = map_wav(path)
    if samples is None:
        raise _other_format(path)
    return samples


def plain_length(path: str) -> int | None:
    """Return the number of samples in a 16 kHz mono int16 wav; None for other files. Raises MediaError, OSError."""
    with open_file(path) as file:
        found = _find_samples(file, path)
    return found[1] if found else None


def read_wav(path: str, first: int, out: np.ndarray) -> None:
    """Read samples of a 16 kHz mono int16 wav, starting at sample `first` (0-based), into `out`: (samples,).

    Seeks instead of mapping the file, because unmapping briefly stops all threads. Raises MediaError if the wav is
    missing, broken, in another format or too short.
    """
    try:
        with open_file(path) as file:
            found = _find_samples(file, path)
            if found is None:
                raise _other_format(path)
            start, samples = found
            if first < 0 or first + len(out) > samples:
                raise MediaError(
                    f"{path}: has {samples} samples, {first} to {first + len(out)} were requested; "
                    "if a list names it, recreate the list with makeFileList.py"
                )
            file.seek(start + 2 * first)
            out[:] = np.frombuffer(file.read(2 * len(out)), "<i2")
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from None


def _find_samples(file: BinaryIO, path: str) -> tuple[int, int] | None:
    """Return (first byte, number of samples) of a 16 kHz mono int16 wav; None for any other file.

    A wav written to a pipe does not declare its length: its samples extend to the end of the file.
    """
    try:
        head = wave.open(file, "rb")  # noqa: SIM115 (leaves the file open); reads up to the samples
    except (wave.Error, EOFError, RuntimeError):  # RuntimeError: a chunk extends beyond the file
        return None
    if (head.getframerate(), head.getnchannels(), head.getsampwidth()) != (SAMPLE_RATE, 1, 2):
        return None
    start, declared = file.tell(), head.getnframes()
    rest = (os.fstat(file.fileno()).st_size - start) // 2
    if declared == 0 or 2 * declared >= PIPE_SIZE:
        return start, rest
    if declared > rest:
        raise MediaError(f"{path}: cut off: {rest} of {declared} samples; {get_again(path)}")
    return start, declared


def _other_format(path: str) -> MediaError:
    """Return the exception for a file that is not a 16 kHz mono int16 wav."""
    if not is_file(path):
        return MediaError(f"{path}: no such wav file")
    with open_media(path) as container:
        streams = sound_streams(container)
        if not streams or not can_be_decoded(streams[0]):
            return MediaError(f"{path}: no sound in it that can be decoded")
        context = streams[0].codec_context
        found = f"{context.sample_rate} Hz, {context.layout.nb_channels} channel(s), {context.name}"
        if container_kind(container) != "wav":
            return WavFormatError(path, f"{found} in {container.format.long_name}")
        plain = (context.sample_rate, context.layout.nb_channels, context.name) == (
            SAMPLE_RATE,
            1,
            "pcm_s16le",
        )
        return WavFormatError(path, found + " with an extended header" * plain)


def check_heard(path: str, samples: np.ndarray) -> None:
    """Raise SilentError if all samples are the same.

    samples: (n,) of any number type. Reads only the first second of a memory-mapped wav, unless that is constant.
    """
    if len(samples) and (
        (samples[:SAMPLE_RATE] != samples[0]).any() or (samples[SAMPLE_RATE:] != samples[0]).any()
    ):
        return
    raise SilentError(f"{path}: silent, all {len(samples)} samples are the same; there is no voice in it")


def write_wav(path: str, sound: np.ndarray) -> None:
    """Write (samples,) int16 at 16 kHz atomically. Raises OSError.

    The file is not flushed to disk, because that would take longer than the conversion. A wav that is too short
    after a power failure is converted again.
    """
    with replace_file(path, "wb", flush=False) as file, wave.open(file, "wb") as wav:
        wav.setparams((1, 2, SAMPLE_RATE, len(sound), "NONE", "not compressed"))
        wav.writeframes(sound.astype("<i2", copy=False).tobytes())
