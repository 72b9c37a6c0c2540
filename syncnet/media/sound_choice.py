"""Choose the audio of a file: the track that a player plays unless it is silent, with its channels mixed unless they
cancel each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from syncnet.media.open_media import MICROSECOND, can_be_decoded, open_media, sound_streams

SPOTS, SPOT = 10, 1.0  # number of positions in the file that are decoded, and seconds at each
LEAD = 60.0  # seconds that are skipped at most where a seek lands before a position
SILENT = (3 / 32768) ** 2  # mean square of samples, with full scale 1, up to which audio counts as silence
CANCELS = 0.25  # channels cancel if their mean has less than this fraction of the energy of independent ones


@dataclass(frozen=True)
class SoundChoice:
    """index: the stream's index in the file. channel: the only channel to use; None: mix all."""

    index: int
    channel: int | None = None

    def stream(self, container: InputContainer) -> AudioStream:
        """Return the stream in another container opened from the same file."""
        return next(stream for stream in container.streams.audio if stream.index == self.index)


def choose_sound(container: InputContainer, path: str) -> SoundChoice | None:
    """Choose audio that belongs to the picture and is not silent; None for a file without an audio track.

    path: the file, which is opened again to decode samples of the audio if there is more than one choice.
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
    """Return the mean square of each channel, (channels,) with full scale 1, and that of the mean of all channels."""
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
    """Return the samples of a frame: (channels, samples) float64 with full scale 1."""
    values = channels_of(frame)
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    middle = 128 if values.dtype == np.uint8 else 0
    return (values.astype(np.float64) - middle) / (np.iinfo(values.dtype).max - middle)


def channels_of(frame: av.AudioFrame) -> np.ndarray:
    """Return the samples of a frame: (channels, samples), in the sample format of the frame."""
    values = frame.to_ndarray()
    return values if frame.format.is_planar else values.reshape(frame.samples, -1).T


def _spots(container: InputContainer, stream: AudioStream) -> Iterator[av.AudioFrame]:
    """Yield frames from positions spread over a file, or the first ones if it is short or declares no length."""
    length = float((container.duration or 0) * MICROSECOND)
    begin = float((container.start_time or 0) * MICROSECOND)
    spots = [None] if length <= SPOTS * SPOT else [begin + length * k / SPOTS for k in range(SPOTS)]
    for spot in spots:
        heard, skipped = 0.0, 0.0
        try:
            if spot is not None:
                container.seek(int(spot / MICROSECOND))
            for frame in container.decode(stream):
                seconds = frame.samples / frame.sample_rate
                early = spot is not None and frame.time is not None and frame.time + seconds <= spot
                if early and skipped < LEAD:
                    skipped += seconds
                    continue
                yield frame
                heard += seconds
                if heard >= (SPOT if spot is not None else SPOTS * SPOT):
                    break
        except av.error.FFmpegError:
            continue
