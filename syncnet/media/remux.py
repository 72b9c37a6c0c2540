"""Replace the audio of a video. Its video stream is copied without re-encoding."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from syncnet.media.clips import FPS, SAMPLE_RATE, MediaError
from syncnet.media.open_media import open_media, picture_stream, tick
from syncnet.media.sound_choice import channels_of, choose_sound
from syncnet.support.files import replace_file

FORMATS = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".qt": "mov", ".mkv": "matroska", ".webm": "webm"},
    **{".avi": "avi", ".ts": "mpegts", ".mts": "mpegts", ".m2ts": "mpegts", ".mpg": "mpeg", ".mpeg": "mpeg"},
    **{".flv": "flv", ".wmv": "asf", ".asf": "asf", ".ogv": "ogg", ".3gp": "3gp", ".nut": "nut"},
}
# Codec -> encoder, if their names differ.
ENCODERS = {"mp3": "libmp3lame", "opus": "libopus", "vorbis": "libvorbis"}
MAX_DEVIATION = 0.05  # seconds; larger deviations of audio time stamps are gaps or overlaps
AHEAD = 0.5  # seconds by which audio is written ahead of the pictures


class Copy(NamedTuple):
    """An open video, and an output with a copy of its video stream."""

    source: av.container.InputContainer
    pictures: av.VideoStream
    target: av.container.OutputContainer
    copied: av.VideoStream


@contextlib.contextmanager
def copying(video: str, output: str, format: str) -> Iterator[Copy]:
    """Open a video and an output. Raises MediaError, without leaving an output, if the container cannot hold them."""
    with open_media(video) as source, replace_file(output, "wb") as file:
        pictures = picture_stream(source)
        if pictures is None:
            raise MediaError(f"{video}: no pictures in it")
        try:
            with av.open(file, "w", format=format) as target:
                yield Copy(source, pictures, target, target.add_stream_from_template(pictures))
        except (av.error.FFmpegError, ValueError) as error:
            raise MediaError(
                f"{output}: {format} cannot hold the streams of {video} ({error}); try a name that ends with .mkv"
            ) from None


def join(video: str, samples: np.ndarray, output: str) -> None:
    """Write a NUT file with the pictures of a video and the given audio, which starts at the first picture.

    samples: (n,) int16 at 16 kHz. Raises MediaError, OSError.
    """
    with copying(video, output, "nut") as (source, pictures, target, copied):
        sound = target.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        assert isinstance(sound, av.AudioStream)
        begin = round((pictures.start_time or 0) * tick(pictures) * SAMPLE_RATE)
        done = 0
        for packet in source.demux(pictures):
            stamp = packet.dts if packet.pts is None else packet.pts
            time = begin / SAMPLE_RATE if stamp is None else float(stamp * tick(pictures))
            while done < len(samples) and begin + done < (time + AHEAD) * SAMPLE_RATE:
                part = samples[None, done : done + SAMPLE_RATE // FPS]
                target.mux(sound.encode(sound_frame(part, "s16", "mono", SAMPLE_RATE, begin + done)))
                done += part.shape[1]
            if packet.size:
                packet.stream = copied
                target.mux(packet)
        target.mux(sound.encode(None))


def move_sound(video: str, output: str, frames: int) -> None:
    """Copy a video to `output` with its audio shifted by `frames` / 25 s: later if positive, earlier if negative.

    The audio keeps its length: it is cut at one end and padded with silence at the other. It is re-encoded with the
    same codec (with PCM in AVI); the pictures are copied, and other streams are dropped. Raises MediaError, OSError.
    """
    format = format_of(output)
    with copying(video, output, format) as (source, pictures, target, copied):
        choice = choose_sound(source, video)
        if choice is None:
            raise MediaError(f"{video}: no sound in it")
        sound = choice.stream(source)
        context = sound.codec_context
        rate, layout = context.sample_rate, context.layout.name
        # AVI cannot store an encoder delay.
        name = "pcm_s16le" if format == "avi" else context.codec.canonical_name
        encoder = target.add_stream(ENCODERS.get(name, name), rate=rate, layout=layout)
        assert isinstance(encoder, av.AudioStream)
        if sound.bit_rate:
            encoder.bit_rate = sound.bit_rate
        moved = MovedSound(round(Fraction(frames * rate, FPS)), rate)
        for packet in source.demux(pictures, sound):
            if packet.stream is sound:
                for frame in packet.decode():
                    assert isinstance(frame, av.AudioFrame)
                    for piece, place in moved.add(frame):
                        target.mux(encoder.encode(sound_frame(piece, moved.format, layout, rate, place)))
            elif packet.size:
                packet.stream = copied
                target.mux(packet)
        for piece, place in moved.end():
            target.mux(encoder.encode(sound_frame(piece, moved.format, layout, rate, place)))
        target.mux(encoder.encode(None))


def format_of(output: str) -> str:
    """Return FFmpeg's name of the container format for an output file. Raises MediaError."""
    format = FORMATS.get(os.path.splitext(output)[1].lower())
    if format is None:
        raise MediaError(
            f"{output}: not the name of a video; expected one that ends with {', '.join(FORMATS)}"
        )
    return format


def sound_frame(samples: np.ndarray, format: str, layout: str, rate: int, place: int) -> av.AudioFrame:
    """Make an audio frame. samples: (channels, n), planar or mono. place: index of the first sample in the stream."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=format, layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), place
    return frame


class MovedSound:
    """Shifts audio by `by` samples (earlier if negative), frame by frame, without changing where it ends.

    format: planar sample format of the output, set by the first frame.
    """

    def __init__(self, by: int, rate: int) -> None:
        self.by, self.rate = by, rate
        self.format = ""
        self._first = 0  # position of the first sample in the stream
        self._taken = self._given = 0  # samples in, samples out
        self._held = np.empty((0, 0))

    def add(self, frame: av.AudioFrame) -> Iterator[tuple[np.ndarray, int]]:
        """Add a frame, and yield the output so far: (channels, n) samples and the position of the first."""
        samples = channels_of(frame)
        if not self.format:
            self.format = frame.format.planar.name
            self._first = round((frame.time or 0) * self.rate)
            self._held = self._silence(samples, max(0, self.by))
        if frame.time is not None:
            gap = round(frame.time * self.rate) - self._first - self._taken
            if gap > MAX_DEVIATION * self.rate:
                samples = np.concatenate((self._silence(samples, gap), samples), 1)
            elif gap < -MAX_DEVIATION * self.rate:
                samples = samples[:, -gap:]
        skipped = max(0, -self.by - self._taken)
        self._taken += samples.shape[1]
        self._held = np.concatenate((self._held, samples[:, skipped:]), 1)
        yield from self._give(self._held.shape[1] - max(0, self.by))

    def end(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yield the rest of the output. If the audio was moved earlier, it is silence."""
        missing = self._taken - self._given
        self._held = self._silence(self._held, missing) if self.by < 0 else self._held
        yield from self._give(missing)

    def _give(self, count: int) -> Iterator[tuple[np.ndarray, int]]:
        if count > 0:
            yield self._held[:, :count], self._first + self._given
            self._held = self._held[:, count:]
            self._given += count

    def _silence(self, like: np.ndarray, count: int) -> np.ndarray:
        middle = 128 if like.dtype == np.uint8 else 0
        return np.full((len(like), count), middle, like.dtype)
