"""The sound of a media file, decoded in step with its pictures."""

import os
from collections.abc import Iterable

import av
import numpy as np

from media.clips import SAMPLE_RATE, MediaError

# Kinds that decode_audio reads beside mp4 and m4a, by file name; any other name is taken for an mp4.
FORMATS = {".wav": "wav", ".flac": "flac", ".mp3": "mp3", ".ogg": "ogg"}
MAX_DRIFT = 0.02  # seconds; timestamps may be this coarse, a larger step is a gap in the sound
MAX_PADDING = 0.1  # seconds; a track that ends earlier than declared by more than this is broken


def open_sound(path: str) -> av.container.InputContainer:
    """Open a media file with a sound track. Raises MediaError; close the result."""
    try:
        # Local files of this kind only: a crafted file may be a playlist of other files or addresses.
        kind = FORMATS.get(os.path.splitext(path)[1].lower(), "mp4")
        return av.open(os.path.abspath(path), format=kind, options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        size = os.path.getsize(path) if os.path.exists(path) else 0
        reason = error.strerror or type(error).__name__
        raise MediaError(f"{path}: cannot be opened ({reason}; {size} bytes); download it again") from None


def timeline(container: av.container.InputContainer) -> tuple[float, int | None]:
    """Where the wav lies on the file's clock: (time of its first sample in seconds, samples).

    The wav begins with the first picture, or at time 0 where there is no video, and ends where the sound
    track says it ends. samples is None where the track does not say.
    """
    sound = container.streams.audio[0]
    pictures = container.streams.video
    if container.format.name == "mp3":
        # It starts late by the encoder's delay, which the decoder leaves out; its length is often a guess.
        return (sound.start_time or 0) * float(sound.time_base), None
    origin = (pictures[0].start_time or 0) * float(pictures[0].time_base) if pictures else 0.0
    if sound.duration is None:
        return origin, None
    end = ((sound.start_time or 0) + sound.duration) * float(sound.time_base)
    return origin, max(0, round((end - origin) * SAMPLE_RATE))


def decode_audio(path: str) -> np.ndarray:
    """The first sound track of a media file, in step with its pictures: (samples,) int16, 16 kHz mono.

    Sample i is heard i / 16000 s after the first picture appears. The encoder's priming, edit lists, a
    late or early start and gaps are accounted for by the frames' time stamps; the tail is cut, or filled
    with silence for at most MAX_PADDING, to the declared duration. Raises MediaError.
    """
    with open_sound(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path}: no sound track")
        return decode_container(container, path)


def decode_container(container: av.container.InputContainer, path: str) -> np.ndarray:
    """decode_audio of a file that is open already."""
    origin, samples = timeline(container)
    pieces = decode_pieces(container.decode(audio=0), path)
    end = max((round((start - origin) * SAMPLE_RATE) + len(piece) for start, piece in pieces), default=0)
    if samples is None:
        samples = max(0, end)
    if samples == 0 or end < samples - MAX_PADDING * SAMPLE_RATE:
        raise MediaError(
            f"{path}: sound ends after {max(0, end) / SAMPLE_RATE:.2f} s of the {samples / SAMPLE_RATE:.2f} s "
            "it declares; download it again"
        )
    if len(pieces) == 1 and pieces[0][0] == origin and end >= samples:
        return pieces[0][1][:samples]  # nearly always
    wav = np.zeros(samples, np.int16)
    for start, piece in pieces:
        first = round((start - origin) * SAMPLE_RATE)
        piece = piece[max(0, -first) : max(0, samples - first)]
        first = max(0, first)
        wav[first : first + len(piece)] = piece
    return wav


def decode_pieces(frames: Iterable[av.AudioFrame], path: str) -> list[tuple[float, np.ndarray]]:
    """Runs of sound without a gap: [(start in seconds on the file's clock, (samples,) 16 kHz mono int16), ...].

    frames: as they come out of the decoder. Raises MediaError, with `path`, when that fails.
    """
    runs: list[_Run] = []
    due, kind = 0.0, None
    try:
        for frame in frames:
            time_stamp = due if frame.pts is None else frame.time
            frame_kind = (frame.sample_rate, frame.layout.name, frame.format.name)
            if frame_kind != kind or abs(time_stamp - due) > MAX_DRIFT:
                runs.append(_Run(time_stamp, plain=frame_kind == (SAMPLE_RATE, "mono", "fltp")))
                due, kind = time_stamp, frame_kind
            runs[-1].add(frame)
            due += frame.samples / frame.sample_rate
    except av.error.FFmpegError as error:
        raise MediaError(f"{path}: broken {due:.2f} s into the sound ({error.strerror})") from None
    return [(run.start, run.samples()) for run in runs]


class _Run:
    """Decoded frames of one kind without a gap, on their way to 16 kHz mono int16.

    start: seconds. plain: they are 16 kHz mono float already, as VoxCeleb2's are; then they are rounded
    here, as FFmpeg rounds them, in half the time that its filter graph takes.
    """

    def __init__(self, start: float, plain: bool) -> None:
        self.start = start
        self.parts: list[bytes] = []  # float32 or, out of the resampler, int16
        self.resampler = None if plain else av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def add(self, frame: av.AudioFrame) -> None:
        if self.resampler is None:
            # Copied, because a decoder that gets its frames back does not allocate new ones.
            self.parts.append(bytes(frame.planes[0])[: 4 * frame.samples])
        else:
            frame.pts = None  # the resampler counts samples; steps within MAX_DRIFT are no gaps
            self._resample(frame)

    def samples(self) -> np.ndarray:
        if self.resampler is None:
            sound = np.frombuffer(bytearray().join(self.parts), np.float32)
            sound *= 32768
            return np.clip(np.rint(sound, out=sound), -32768, 32767, out=sound).astype(np.int16)
        self._resample(None)  # brings out what the resampler still holds
        return np.frombuffer(b"".join(self.parts), np.int16)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        for part in self.resampler.resample(frame):
            self.parts.append(bytes(part.planes[0])[: 2 * part.samples])
