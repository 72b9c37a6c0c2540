"""Wavs as training reads them: 16 kHz, mono, int16."""

import contextlib
import errno
import os
import re
import shlex
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import BinaryIO

import numpy as np

from syncnet.media.clips import SAMPLE_RATE, MediaError
from syncnet.media.file_type import EMPTY, HEAD, TEXT, UNKNOWN, content_of_head, get_again
from syncnet.media.tar_members import is_file, open_file
from syncnet.support.files import partial_path

INT16 = "int16"
BIG_ENDIAN = "big-endian "
EXPECTED = f"expected {SAMPLE_RATE} Hz, 1 channel, {INT16}"
WAV_HEAD = re.compile(rb"(RIFF|RIFX|RF64|BW64)....WAVE", re.DOTALL)
PIPE_SIZE = 0x7FFFF000  # bytes; what programs that cannot know the length declare is 0, or this and more
MAX_CHUNKS = 1000  # ahead of the samples; a file of zeros has as many as one likes
EXTENSIBLE = 0xFFFE  # the coding stands further on
PCM, FLOAT = 1, 3
OTHER_CODINGS = {2: "MS ADPCM", 6: "A-law", 7: "mu-law", 17: "IMA ADPCM", 85: "MP3"}


class WavFormatError(MediaError):
    """Sound that can be converted, but not a 16 kHz mono int16 wav. found: what it is instead."""

    def __init__(self, path: str, found: str, folder: str | None = None):
        line = conversion_line(folder or os.path.dirname(path) or ".")
        use = (
            f"and give {converted_folder(folder)} instead of {folder}"
            if folder
            else "and read it from there (--wav_dir of makeFileList.py, --test_path of --eval)"
        )
        further = "" if folder else " (or the same with a folder further up)"
        super().__init__(f"{path}: {found}; {EXPECTED}. Convert it: {line}{further}, {use}")
        self.path = path
        self.found = found

    def for_all_in(self, folder: str) -> "WavFormatError":
        """The same error, with the line that converts a whole folder."""
        return WavFormatError(self.path, self.found, folder)


class SilentError(MediaError):
    """Digital silence: there is no voice in it."""


@dataclass(frozen=True)
class WavLayout:
    """The head of a wav. coding: of the samples. start, size: of the samples, in bytes."""

    rate: int
    channels: int
    coding: str
    start: int
    size: int

    @property
    def plain(self) -> bool:
        """Are the samples what training reads?"""
        return (self.rate, self.channels, self.coding) == (SAMPLE_RATE, 1, INT16)


def wav_layout(file: BinaryIO, path: str) -> WavLayout:
    """Read the head of a wav of any coding: RIFF, RIFX, RF64, and those that were written into a pipe.

    The head of a pipe does not know the length; then the samples go on to the end of the file. Raises
    WavFormatError for another kind of sound, MediaError for what is no sound, or broken.
    """
    whole = os.fstat(file.fileno()).st_size
    top = file.read(12)
    if not WAV_HEAD.match(top):
        raise _no_wav(file, path)
    order = ">" if top.startswith(b"RIFX") else "<"
    form, long_size = None, 0
    start = 12
    for number in count():
        file.seek(start)
        chunk = file.read(8)
        if len(chunk) < 8 or number > MAX_CHUNKS:
            raise MediaError(f"{path}: broken wav: its {whole} bytes have no chunk 'data'; {get_again(path)}")
        name, size = chunk[:4], struct.unpack(f"{order}I", chunk[4:])[0]
        start += 8
        if name == b"fmt ":
            form = _read_form(file.read(min(size, 40)), order, path)
        elif name == b"ds64":
            long_size = struct.unpack("<Q", file.read(16)[8:].ljust(8, b"\0"))[0]
        elif name == b"data":
            break
        start += size + size % 2
    if form is None:
        raise MediaError(f"{path}: broken wav: no chunk 'fmt ' before its samples; {get_again(path)}")
    if top.startswith((b"RF64", b"BW64")) and size == 0xFFFFFFFF:
        size = min(long_size, 2**63 - 1)
        piped = size in (0, 2**63 - 1)
    else:
        piped = size == 0 or size >= PIPE_SIZE
    rest = whole - start
    if size > rest and not piped:
        raise MediaError(
            f"{path}: cut off: {rest} of the {size} bytes of sound that its head declares; {get_again(path)}"
        )
    return WavLayout(*form, start, rest if piped and (size > rest or size == 0) else size)


def _read_form(form: bytes, order: str, path: str) -> tuple[int, int, str]:
    """(rate, channels, coding) of a chunk 'fmt '."""
    if len(form) < 16:
        raise MediaError(f"{path}: broken wav: its chunk 'fmt ' has {len(form)} bytes; {get_again(path)}")
    tag, channels, rate, _, _, bits = struct.unpack(f"{order}HHIIHH", form[:16])
    if tag == EXTENSIBLE and len(form) >= 26:
        (tag,) = struct.unpack(f"{order}H", form[24:26])
    if tag == PCM:
        coding = "uint8" if bits == 8 else f"int{bits}"
    elif tag == FLOAT:
        coding = f"float{bits}"
    else:
        coding = OTHER_CODINGS.get(tag, f"coding {tag:#06x}")
    return rate, channels, (BIG_ENDIAN if order == ">" else "") + coding


def _no_wav(file: BinaryIO, path: str) -> MediaError:
    """Why a file that does not begin as a wav cannot be read, as an exception to raise."""
    file.seek(0)
    kind = content_of_head(file.read(HEAD))
    if kind == EMPTY:
        return MediaError(f"{path}: empty, 0 bytes; {get_again(path)}")
    if kind == TEXT:
        return MediaError(f"{path}: a text file, no wav")
    if kind == UNKNOWN:
        return MediaError(f"{path}: not a wav file, nor another kind of sound that is known")
    return WavFormatError(path, f"{kind} inside, whatever its name")


def conversion_line(folder: str) -> str:
    """The command that converts all sound of a folder, into a new folder beside it."""
    made = converted_folder(folder)
    return f"python convertAudio.py --src {shlex.quote(folder)} --dst {shlex.quote(made)}"


def converted_folder(folder: str) -> str:
    """The folder that conversion_line makes."""
    plain = os.path.normpath(folder)
    return "wav_16k" if plain.strip("./") == "" else plain + "_16k"


def open_wav(path: str) -> np.ndarray:
    """The samples of a 16 kHz mono int16 wav, mapped, not read: (samples,) int16.

    Raises MediaError for a file that is missing or broken, and WavFormatError for one that has to be
    converted.
    """
    with _open(path) as file:
        return _mapped(file, _plain_layout(file, path))


def plain_length(path: str) -> int | None:
    """The samples of a 16 kHz mono int16 wav, counted; None for a file of any other kind.

    Raises MediaError for a wav that is broken, or a file that is not there.
    """
    with _open(path) as file:
        if not WAV_HEAD.match(file.read(12)):
            return None
        file.seek(0)
        layout = wav_layout(file, path)
        return layout.size // 2 if layout.plain else None


def undecoded_wav(path: str) -> np.ndarray | None:
    """The samples of a wav that needs no decoder, because it is 16 kHz mono int16: (samples,) int16, or None.

    Raises MediaError, also for big-endian wavs (RIFX) of other formats, which FFmpeg takes for noise.
    """
    with _open(path) as file:
        layout = wav_layout(file, path)
        if layout.plain:
            return _mapped(file, layout)
        if (layout.rate, layout.channels, layout.coding) == (SAMPLE_RATE, 1, BIG_ENDIAN + INT16):
            file.seek(layout.start)
            return np.frombuffer(file.read(layout.size // 2 * 2), ">i2").astype(np.int16)
        if layout.coding.startswith(BIG_ENDIAN):
            raise MediaError(
                f"{path}: a RIFX wav, {layout.rate} Hz, {layout.channels} channel(s), {layout.coding}; of this kind, "
                f"only {SAMPLE_RATE} Hz, 1 channel, {INT16} can be read: write it as a RIFF wav"
            )
        return None


def _mapped(file: BinaryIO, layout: WavLayout) -> np.ndarray:
    samples = layout.size // 2
    return np.memmap(file, "<i2", "r", layout.start, (samples,)) if samples else np.empty(0, np.int16)


def read_wav(path: str, first: int, out: np.ndarray) -> None:
    """Read the samples of a 16 kHz mono int16 wav from number `first` (0-based) on into `out`: (samples,).

    With a seek: a file that is mapped and let go stops all threads for a moment. Raises MediaError when the
    wav is missing, broken, of another format or ends early.
    """
    with _open(path) as file:
        layout = _plain_layout(file, path)
        samples = layout.size // 2
        if first < 0 or first + len(out) > samples:
            raise MediaError(
                f"{path}: has {samples} samples, {first} to {first + len(out)} were asked for; "
                "if a list names it, make the list again with makeFileList.py"
            )
        file.seek(layout.start + 2 * first)
        out[:] = np.frombuffer(file.read(2 * len(out)), "<i2")


@contextlib.contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    """A file to read; errors of the file system become MediaErrors."""
    if not is_file(path):
        raise MediaError(f"{path}: no such wav file")
    try:
        with open_file(path) as file:
            yield file
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from None


def _plain_layout(file: BinaryIO, path: str) -> WavLayout:
    layout = wav_layout(file, path)
    if not layout.plain:
        raise WavFormatError(path, f"{layout.rate} Hz, {layout.channels} channel(s), {layout.coding}")
    return layout


def check_heard(path: str, samples: np.ndarray) -> None:
    """Raise SilentError for sound without any change in it: zeros, or another constant.

    samples: (n,) of any number type. Nothing but the first samples is read of a file that is heard at once.
    """
    if len(samples) and (
        (samples[:SAMPLE_RATE] != samples[0]).any() or (samples[SAMPLE_RATE:] != samples[0]).any()
    ):
        return
    raise SilentError(f"{path}: silent, all {len(samples)} samples are the same; there is no voice in it")


def write_wav(path: str, sound: np.ndarray) -> None:
    """Write (samples,) int16 at 16 kHz aside, then rename: `path` is whole or not there. Raises OSError.

    Unlike replace_file, this does not wait for the disk, which would take longer than the conversion:
    if the machine loses power, a wav that did not reach the disk is too short, and is made again.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    part = partial_path(path)
    try:
        with open(part, "wb", buffering=0) as file:
            form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
            head = struct.pack("<4sI4s", b"RIFF", 36 + sound.nbytes, b"WAVE") + form
            file.write(head + struct.pack("<4sI", b"data", sound.nbytes))
            if file.write(sound.astype("<i2", copy=False).data) != sound.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        raise
