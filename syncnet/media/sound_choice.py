"""Which sound of a file is used: the track that a player plays, unless it is silent; and all of its channels mixed,
unless they cancel each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from syncnet.media.open_media import MICROSECOND, can_be_decoded, open_media, sound_streams

SPOTS, SPOT = 10, 1.0  # places in the file that are listened to, and seconds at each
SILENT = (3 / 32768) ** 2  # mean square of samples at full scale 1; below is silence
CANCELS = 0.25  # of the energy that the mean of channels has if they are independent


@dataclass(frozen=True)
class SoundChoice:
    """index: of the stream in its file. channel: the only one to use, or None for a mix of all."""

    index: int
    channel: int | None = None

    def stream(self, container: InputContainer) -> AudioStream:
        """The stream, in a container that was opened again."""
        return next(stream for stream in container.streams.audio if stream.index == self.index)


def choose_sound(container: InputContainer, path: str) -> SoundChoice | None:
    """The sound that belongs to the picture and is not silent; None for a file without a sound track.

    path: of the file, which is opened again to listen at some places unless there is only one choice.
    """
    streams = sound_streams(container)
    if not streams:
        return None
    first = SoundChoice(streams[0].index)
    if not can_be_decoded(streams[0]) or (
        len(streams) == 1 and streams[0].codec_context.layout.nb_channels == 1
    ):
        return first
    for stream in streams:
        with open_media(path) as other:
            channels, mixture = _levels(other, SoundChoice(stream.index).stream(other))
        if channels.max() > SILENT:
            cancels = mixture < CANCELS * channels.mean() / len(channels)
            return SoundChoice(stream.index, int(channels.argmax()) if cancels else None)
    return first


def _levels(container: InputContainer, stream: AudioStream) -> tuple[np.ndarray, float]:
    """(channels,) mean squares of the samples, where 1 is full scale, and that of the channels' mean."""
    energies, mixed, samples = np.zeros(1), 0.0, 0
    for frame in _spots(container, stream):
        channels = _floats(frame)
        if samples and len(channels) != len(energies):
            continue
        energies = energies + (channels**2).sum(1)
        mixed += float((channels.mean(0) ** 2).sum())
        samples += channels.shape[1]
    return energies / max(samples, 1), mixed / max(samples, 1)


def _floats(frame: av.AudioFrame) -> np.ndarray:
    """The samples of a frame: (channels, samples) float64, where 1 is full scale."""
    values = channels_of(frame)
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    middle = 128 if values.dtype == np.uint8 else 0
    return (values.astype(np.float64) - middle) / (np.iinfo(values.dtype).max - middle)


def channels_of(frame: av.AudioFrame) -> np.ndarray:
    """The samples of a frame: (channels, samples), in the frame's own sample format."""
    values = frame.to_ndarray()
    return values if frame.format.is_planar else values.reshape(frame.samples, -1).T


def _spots(container: InputContainer, stream: AudioStream) -> Iterator[av.AudioFrame]:
    """Frames from places all over a file; the first ones of a short file, or one without a declared length."""
    length = float((container.duration or 0) * MICROSECOND)
    begin = float((container.start_time or 0) * MICROSECOND)
    spots = [None] if length <= SPOTS * SPOT else [begin + length * k / SPOTS for k in range(SPOTS)]
    for spot in spots:
        heard = 0.0
        try:
            if spot is not None:
                container.seek(int(spot / MICROSECOND))
            for frame in container.decode(stream):
                yield frame
                heard += frame.samples / frame.sample_rate
                if heard >= (SPOT if spot is not None else SPOTS * SPOT):
                    break
        except av.error.FFmpegError:
            continue
