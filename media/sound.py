"""The sound of any sound or video file, decoded in step with its pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from media.clips import SAMPLE_RATE, SAMPLES_PER_FRAME, MediaError
from media.content import WAV, content, get_again
from media.mp3 import mp3_frames
from media.openSound import open_sound
from media.streams import MAX_JUMP, MAX_PADDING, MAX_RETURN, can_be_decoded, played, tick
from media.wav import undecoded_wav

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

Pieces = list[tuple[float, np.ndarray]]  # (start in seconds, 16 kHz mono int16)
# Containers whose tracks say how long they are, and those whose time does not begin at 0.
DECLARING = ("mp4", "mov", "wav", "w64", "aiff", "au", "caf", "flac", "ogg")
CLOCKS = ("mpegts", "mpeg")
MP3 = "mp3"
MAX_DRIFT = 0.02  # seconds; timestamps may be this coarse, a larger step is a gap in the sound
MAX_FILL = 0.25  # seconds; sound that ends earlier than the pictures by more than this is not made longer
UNKNOWN_CODEC = (
    "its sound is of a kind that cannot be decoded here; write it anew with a program that plays it"
)
SAMPLE_FLOATS = ("flt", "dbl")  # of files that hold plain floats
LOUDEST = 32.0  # of full scale; louder is not loud, but another scale
MOST_CHANNELS = 64  # of FFmpeg's resampler
OPENING = SAMPLE_RATE // 4  # samples


class NoSoundError(MediaError):
    """A file without a sound track."""


def extent(container: InputContainer) -> tuple[float, int | None]:
    """Where the wav lies on the file's clock: (time of its first sample in seconds, samples).

    The wav begins with the first picture, or at time 0 where there is no video (with the sound, in files whose
    clock has no 0), and ends where the sound track says it ends. samples is None where the track does not say, or
    only guesses.
    """
    sound = played(container.streams.audio)
    pictures = _pictures(container)
    if container.format.name == MP3:
        # It starts late by the encoder's delay, which the decoder leaves out.
        return (sound.start_time or 0) * float(tick(sound)), None
    first = pictures or (sound if container.format.name in CLOCKS else None)
    origin = (first.start_time or 0) * float(tick(first)) if first else 0.0
    end = declared_end(container, sound)
    return origin, None if end is None else max(0, round((end - origin) * SAMPLE_RATE))


def declared_end(container: InputContainer, sound: AudioStream) -> float | None:
    """When a sound track says that it is over, in seconds on the file's clock; None where FFmpeg only guesses.

    What a decoder gives beyond is padding.
    """
    if sound.duration is None or container.format.name.split(",")[0] not in DECLARING:
        return None
    return ((sound.start_time or 0) + sound.duration) * float(tick(sound))


def look(path: str) -> tuple[str, np.ndarray | None]:
    """The content of a file, and its samples where it needs no decoder, else None. Raises MediaError."""
    try:
        kind = content(path)
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened: {error.strerror}") from None
    return kind, undecoded_wav(path) if kind == WAV else None


def decode_audio(path: str) -> np.ndarray:
    """The sound of any sound or video file as a player plays it, in step with its pictures: (samples,) int16, 16 kHz.

    Sample i is heard i / 16000 s after the first picture appears. The encoder's priming, edit lists, a
    late or early start and gaps are accounted for by the frames' time stamps; the tail is cut, or filled
    with silence for at most MAX_PADDING, to the declared duration. A wav of that format is mapped, not
    decoded. Raises NoSoundError, MediaError.
    """
    kind, plain = look(path)
    if plain is not None:
        return plain
    with open_sound(path, kind) as container:
        return _decode(container, path)[0]


def decode_clip(path: str) -> np.ndarray:
    """decode_audio, made to end with the pictures where it would be taken for another clip's sound.

    Sound that ends more than a video frame later than the pictures is cut; sound that ends up to MAX_FILL
    earlier is filled with silence. Sound that ends earlier still is left as it is.
    """
    kind, plain = look(path)
    if plain is not None:
        return plain
    with open_sound(path, kind) as container:
        sound, span = _decode(container, path)
    length = _clip_length(len(sound), span)
    return sound[:length] if length <= len(sound) else np.pad(sound, (0, length - len(sound)))


def clip_opening(path: str) -> tuple[int | None, np.ndarray]:
    """What can be said of decode_clip(path) without decoding it all: (samples, its first OPENING at most).

    samples is None where only decoding tells. Raises as decode_clip.
    """
    kind, plain = look(path)
    if plain is not None:
        return len(plain), plain[:OPENING]
    with open_sound(path, kind) as container:
        origin, samples = _extent(container, path)
        tracks = _Tracks(container)
        # A little more, because a resampler sees ahead.
        pieces = decode_pieces(tracks.frames(until=origin + OPENING / SAMPLE_RATE + MAX_PADDING), path)
        span = tracks.span()
        samples = tracks.without_lead(samples)
    end = _end(pieces, origin)
    opening = _lay_out(pieces, origin, min(OPENING, end if samples is None else samples))
    return None if samples is None else _clip_length(samples, span), opening


def _pictures(container: InputContainer) -> VideoStream | None:
    """The stream that a player shows; not the cover of an album, which is one picture beside the sound."""
    from av.stream import Disposition

    shown = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(shown, None)


def _extent(container: InputContainer, path: str) -> tuple[float, int | None]:
    """extent() of a file that may have no sound."""
    if not container.streams.audio:
        raise NoSoundError(f"{path}: no sound track")
    if not can_be_decoded(played(container.streams.audio)):
        raise MediaError(f"{path}: {UNKNOWN_CODEC}")
    return extent(container)


def _decode(container: InputContainer, path: str) -> tuple[np.ndarray, int | None]:
    """The sound as the track declares it, and the length of the pictures; both in samples."""
    origin, samples = _extent(container, path)
    tracks = _Tracks(container)
    pieces = decode_pieces(tracks.frames(), path)
    end = _end(pieces, origin)
    samples = tracks.without_lead(samples)
    if samples is None:
        samples = end
    if end <= 0 or samples == 0:
        raise MediaError(f"{path}: its sound track holds no sound, or is over before the first picture")
    if end < samples - MAX_PADDING * SAMPLE_RATE:
        raise MediaError(
            f"{path}: sound ends after {end / SAMPLE_RATE:.2f} s of the {samples / SAMPLE_RATE:.2f} s "
            f"it declares; {get_again(path)}"
        )
    return _lay_out(pieces, origin, samples), tracks.span()


def _end(pieces: Pieces, origin: float) -> int:
    """The sample after the last that was decoded."""
    return max((round((start - origin) * SAMPLE_RATE) + len(piece) for start, piece in pieces), default=0)


def _lay_out(pieces: Pieces, origin: float, samples: int) -> np.ndarray:
    """Pieces of sound at their places, silence between them: (samples,) int16."""
    if len(pieces) == 1 and pieces[0][0] == origin and len(pieces[0][1]) >= samples:
        return pieces[0][1][:samples]  # nearly always
    wav = np.zeros(samples, np.int16)
    for start, piece in pieces:
        first = round((start - origin) * SAMPLE_RATE)
        piece = piece[max(0, -first) : max(0, samples - first)]
        first = max(0, first)
        wav[first : first + len(piece)] = piece
    return wav


def _clip_length(samples: int, span: int | None) -> int:
    """The length that decode_clip gives sound of this length, with pictures of this length, in samples."""
    if span is not None and (
        samples > span + SAMPLES_PER_FRAME
        or span - MAX_FILL * SAMPLE_RATE <= samples < span - SAMPLES_PER_FRAME
    ):
        return span
    return samples


def decode_pieces(frames: Iterable[av.AudioFrame], path: str) -> Pieces:
    """Runs of sound without a gap: [(start in seconds on the file's clock, (samples,) 16 kHz mono int16), ...].

    frames: as they come out of the decoder. Raises MediaError, with `path`, when that fails.
    """
    import av

    runs: list[_Run] = []
    due, anew, kind = 0.0, 0.0, None  # anew: seconds by which time stamps that began anew are late
    try:
        for frame in frames:
            time_stamp = due if frame.time is None else frame.time + anew
            if runs and time_stamp < due - MAX_RETURN:  # another recording begins, behind this one
                anew += due - time_stamp
                time_stamp = due
            frame_kind = (frame.sample_rate, frame.layout.name, frame.format.name)
            if runs and time_stamp > due + MAX_JUMP:
                raise MediaError(
                    f"{path}: broken {due:.2f} s into the sound (its time stamps go on at {time_stamp:.2f} s); "
                    f"{get_again(path)}"
                )
            if frame_kind != kind or abs(time_stamp - due) > MAX_DRIFT:
                runs.append(_Run(time_stamp, plain=frame_kind == (SAMPLE_RATE, "mono", "fltp")))
                due, kind = time_stamp, frame_kind
            if frame.format.name in SAMPLE_FLOATS:
                _check_scale(frame, due, path)
            if (channels := len(frame.layout.channels)) > MOST_CHANNELS:
                raise MediaError(
                    f"{path}: {channels} channels, of which {MOST_CHANNELS} at most are mixed; write fewer"
                )
            runs[-1].add(frame)
            due += frame.samples / frame.sample_rate
    except av.error.FFmpegError as error:
        reason = f"broken {due:.2f} s into the sound ({error.strerror}); {get_again(path)}"
        raise MediaError(f"{path}: {reason}") from None
    return [(run.start, run.samples()) for run in runs]


def _check_scale(frame: av.AudioFrame, time: float, path: str) -> None:
    """Raise MediaError for samples that are no sound at the scale of floats, on which 1 is the loudest."""
    values = frame.to_ndarray()
    if (np.abs(values) <= LOUDEST).all():
        return
    most = np.abs(values).max()
    found = f"{path}: float samples up to {most:g} at {time:.2f} s, where 1 is full scale"
    if np.isfinite(most):
        raise MediaError(
            f"{found}; int16 numbers as floats have to be divided by 32768 when the file is written"
        )
    raise MediaError(f"{found}: no numbers, which the program that wrote the file should not have written")


class _Tracks:
    """The sound and the pictures of a file, read in one pass."""

    def __init__(self, container: InputContainer):
        self.container = container
        self.pictures = _pictures(container)
        self.sound = played(container.streams.audio)
        self.begin: float | None = None  # of the first packet of sound, in seconds
        self.end = 0.0  # of the last
        self.shown: list[float] = []  # when each picture appears, and when it is gone, in seconds

    def frames(self, until: float = math.inf) -> Iterator[av.AudioFrame]:
        """The frames of the sound that begin before `until` seconds, while the pictures pass by."""
        if self.container.format.name == MP3:
            yield from takewhile(lambda frame: _begins(frame, until), mp3_frames(self.container, self.sound))
            return
        over = False
        for packet in self.container.demux([self.sound, *([self.pictures] if self.pictures else [])]):
            if packet.stream is self.pictures:
                self.shown += _shown(packet)
                continue
            if packet.pts is not None:
                time = float(packet.pts * tick(packet))
                self.begin = time if self.begin is None else self.begin
                self.end = max(self.end, time + float((packet.duration or 0) * tick(packet)))
            if not over:
                for frame in self.sound.decode(packet):
                    over = over or not _begins(frame, until)
                    if not over:
                        yield frame
            elif not self.pictures:
                return

    def without_lead(self, samples: int | None) -> int | None:
        """The length that extent() found, less what an mp4's edit list puts or hides at the beginning of the sound.

        The length of a fragmented file counts what is hidden there; that of a trimmed one, the pause before late
        sound. For when the frames have been read.
        """
        if (
            samples is None
            or self.begin is None
            or self.container.format.name.split(",")[0] not in ("mov", "mp4")
        ):
            return samples
        start, length = (
            float((n or 0) * tick(self.sound)) for n in (self.sound.start_time, self.sound.duration)
        )
        lead = 0.0
        if not self.sound.frames:
            lead = max(0.0, start - self.begin)
        elif abs(self.end - length) < start / 2:  # nearer to this end than to start + length
            lead = start
        return max(0, samples - round(lead * SAMPLE_RATE))

    def span(self) -> int | None:
        """How long the pictures are, in samples, once all has been read. None: no pictures, or a single one."""
        return round((max(self.shown) - min(self.shown)) * SAMPLE_RATE) if len(self.shown) > 2 else None


def _begins(frame: av.AudioFrame, until: float) -> bool:
    return frame.time is None or frame.time < until


def _shown(packet: Packet) -> list[float]:
    """When a packet's picture appears and when it is gone, in seconds; nothing for one that is not shown."""
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is None or packet.is_discard:
        return []
    begin = float(stamp * tick(packet))
    rate = packet.stream.average_rate
    lasts = float(packet.duration * tick(packet)) if packet.duration else float(1 / rate) if rate else 0.0
    return [begin, begin + lasts]


class _Run:
    """Decoded frames of one kind without a gap, on their way to 16 kHz mono int16.

    start: seconds. plain: they are 16 kHz mono float already, as VoxCeleb2's are; then they are rounded
    here, as FFmpeg rounds them, in half the time that its filter graph takes. Where FFmpeg has no mixture for so many
    channels, such as the 9 of an array of microphones, it is their mean.
    """

    def __init__(self, start: float, plain: bool) -> None:
        import av

        self.start = start
        self.parts: list[bytes] = []  # float32 or, out of FFmpeg's mixture, int16
        self.floats = plain
        self.resampler = None if plain else av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def add(self, frame: av.AudioFrame) -> None:
        import av

        if self.resampler is None:
            # Copied, because a decoder that gets its frames back does not allocate new ones.
            self.parts.append(bytes(frame.planes[0])[: 4 * frame.samples])
            return
        frame.pts = None  # the resampler counts samples; steps within MAX_DRIFT are no gaps
        try:
            self._resample(frame)
        except av.error.ArgumentError:
            if self.floats or self.parts:
                raise
            self.floats, self.resampler = True, av.AudioResampler(format="flt", rate=SAMPLE_RATE)
            self._resample(frame)

    def samples(self) -> np.ndarray:
        if self.resampler is not None:
            self._resample(None)  # brings out what the resampler still holds
        if not self.floats:
            return np.frombuffer(b"".join(self.parts), np.int16)
        sound = np.frombuffer(bytearray().join(self.parts), np.float32)
        sound *= 32768
        return np.clip(np.rint(sound, out=sound), -32768, 32767, out=sound).astype(np.int16)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        assert self.resampler is not None
        for part in self.resampler.resample(frame):
            if self.floats:
                channels = part.to_ndarray().reshape(part.samples, -1)
                self.parts.append(channels.mean(1).tobytes())
            else:
                self.parts.append(bytes(part.planes[0])[: 2 * part.samples])
