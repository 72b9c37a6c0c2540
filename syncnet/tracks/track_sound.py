"""The sound of a part of any media file, on the clock of syncnet/media/timeline.py."""

import itertools
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np

from syncnet.media.clips import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, MediaError
from syncnet.media.clock import Clock
from syncnet.media.file_type import SOUND_FILES
from syncnet.media.open_media import open_media, tick
from syncnet.media.sound import JITTER, declared_end, decode_pieces
from syncnet.media.sound_choice import choose_sound
from syncnet.media.timeline import decoded

LEAD = 1.0  # seconds decoded before a part, until the decoder's output is exact
ROUNDING = 80  # samples that a resampler may drop at the end of the sound


@dataclass(frozen=True, eq=False)
class Sound:
    """The sound of slots first, first + 1 ...: samples, (slots * 640,) int16 at 16 kHz, mono.

    begin, end: the source has sound for the slots begin ... end - 1; gaps between them are silence.
    """

    first: int
    samples: np.ndarray
    begin: int
    end: int

    def part(self, first: int, last: int) -> np.ndarray:
        """The samples of slots first ... last - 1."""
        return self.samples[
            (first - self.first) * SAMPLES_PER_FRAME : (last - self.first) * SAMPLES_PER_FRAME
        ]

    def is_heard(self, first: int, last: int) -> bool:
        """Is there anything but silence in slots first ... last - 1?"""
        samples = self.part(first, last)
        return samples.min() < samples.max()


def no_sound(path: str) -> MediaError:
    """The error for a video without sound, with the command that joins it with a sound file beside it."""
    stem = os.path.splitext(path)[0]
    beside = next((stem + kind for kind in SOUND_FILES if os.path.isfile(stem + kind)), None)
    if beside is None:
        return MediaError(f"{path}: no sound in it")
    names = [shlex.quote(name) for name in (path, beside, f"{stem}_with_sound.mkv")]
    return MediaError(
        f"{path}: no sound in it; if {os.path.basename(beside)} is its sound, join them and run this command again: "
        f"ffmpeg -i {names[0]} -i {names[1]} -map 0:v:0 -map 1:a:0 -c copy {names[2]}"
    )


def read_sound(path: str, first_time: float, first: int, last: int, seek: bool = True) -> Sound:
    """The sound of slots first ... last - 1, chosen as in syncnet/media/sound_choice.py.

    first_time: of the VideoReader. seek: False for a file whose time stamps restart. Raises MediaError without a
    sound track.
    """
    begin = first_time + first / FPS
    wanted = (last - first) * SAMPLES_PER_FRAME
    with open_media(path) as container:
        choice = choose_sound(container, path)
        if choice is None:
            raise no_sound(path)
        stream = choice.stream(container)
        frames = _frames(container, stream, begin if seek and first > 0 else None)
        end = begin + (last - first) / FPS
        pieces = decode_pieces(_until(frames, end), path, choice.channel)
        stop = declared_end(container, stream)
        wanted_end = wanted if stop is None else round((stop - begin) * SAMPLE_RATE)
    samples = np.zeros(wanted, np.int16)
    covered_from, covered_to = wanted, 0
    for start, piece in pieces:
        place = round((start - begin) * SAMPLE_RATE)
        piece = piece[max(0, -place) : max(0, min(wanted, wanted_end) - place)]
        place = max(0, place)
        if len(piece):
            samples[place : place + len(piece)] = piece
            covered_from, covered_to = min(covered_from, place), max(covered_to, place + len(piece))
    first_covered = first + -(-(covered_from - ROUNDING) // SAMPLES_PER_FRAME)
    last_covered = first + (covered_to + ROUNDING) // SAMPLES_PER_FRAME
    return Sound(first, samples, max(first, first_covered), min(last, max(first, last_covered)))


def _until(frames: Iterator[av.AudioFrame], end: float) -> Iterator[av.AudioFrame]:
    """The frames up to `end` seconds, and a little more, because time stamps may jitter."""
    return itertools.takewhile(lambda frame: frame.time is None or frame.time < end + JITTER, frames)


def _frames(
    container: av.container.InputContainer, stream: av.AudioStream, begin: float | None
) -> Iterator[av.AudioFrame]:
    """Decoded frames, from before `begin` seconds on if the file can seek there, else from the beginning."""
    if begin is None:
        return decoded(container, Clock(), stream)
    start = (begin - LEAD) / tick(stream)
    try:
        container.seek(int(start), stream=stream)
        frames = decoded(container, Clock(), stream)
        first = next(frames, None)
        if first is not None and first.time is not None and first.time <= begin:
            return itertools.chain([first], frames)
    except av.error.FFmpegError:
        pass
    container.seek(0)
    return decoded(container, Clock(), stream)
