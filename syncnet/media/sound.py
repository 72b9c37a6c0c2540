"""The sound of any sound or video file, decoded in step with its pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from syncnet.media.clips import SAMPLE_RATE, SAMPLES_PER_FRAME, MediaError
from syncnet.media.file_type import WAV, content, get_again
from syncnet.media.mp3 import mp3_frames
from syncnet.media.open_sound import DEMUXERS, open_sound
from syncnet.media.sound_choice import SoundChoice, channels_of, choose_sound
from syncnet.media.sound_placement import Run, place_frames
from syncnet.media.streams import (
    MAX_PADDING,
    Clock,
    can_be_decoded,
    packets,
    picture_delay,
    picture_stream,
    tick,
)
from syncnet.media.wav import undecoded_wav

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

Pieces = list[tuple[float, np.ndarray]]  # (start in seconds, 16 kHz mono int16)
# Containers whose tracks say how long they are, and those whose time does not begin at 0.
DECLARING = ("mp4", "mov", "wav", "w64", "aiff", "au", "caf", "flac", "ogg")
CLOCKS = ("mpegts", "mpeg")
MP3 = "mp3"
MAX_FILL = 0.25  # seconds; sound that ends earlier than the pictures by more than this is not made longer
UNKNOWN_CODEC = (
    "its sound is of a kind that cannot be decoded here; write it anew with a program that plays it"
)
SAMPLE_FLOATS = ("flt", "dbl")  # of files that hold plain floats
LOUDEST = 32.0  # of full scale; louder is not loud, but another scale
MOST_CHANNELS = 64  # of FFmpeg's resampler
OPENING = SAMPLE_RATE // 4  # samples
JITTER = 5.0  # seconds over which time stamps that jitter average out


class NoSoundError(MediaError):
    """A file without a sound track."""


def extent(tracks: _Tracks) -> tuple[float, int | None]:
    """Where the wav lies on the file's clock: (time of its first sample in seconds, samples).

    The wav begins with the first picture, or at time 0 where there is no video (with the sound, in files whose
    clock has no 0), and ends where the sound track says it ends. samples is None where the track does not say, or
    only guesses.
    """
    container, first = tracks.container, tracks.pictures or tracks.sound
    origin = 0.0
    if tracks.pictures or container.format.name in (*CLOCKS, MP3):
        origin = ((first.start_time or 0) + tracks.delays.get(first.index, 0)) * float(tick(first))
    end = None if container.format.name == MP3 else declared_end(container, tracks.sound)
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
    return _decode(path, kind)[0]


def decode_clip(path: str) -> np.ndarray:
    """decode_audio, made to end with the pictures where it would be taken for another clip's sound.

    Sound that ends more than a video frame later than the pictures is cut; sound that ends up to MAX_FILL
    earlier is filled with silence. Sound that ends earlier still is left as it is.
    """
    kind, plain = look(path)
    if plain is not None:
        return plain
    sound, span = _decode(path, kind)
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
        tracks = _Tracks(container, path, kind)
        # A little more, because a resampler sees ahead, and time stamps may jitter.
        more = MAX_PADDING if tracks.is_exact else JITTER
        pieces = tracks.pieces(until=tracks.origin + OPENING / SAMPLE_RATE + more)
        samples, span = tracks.samples(), tracks.span()
    origin = tracks.origin
    end = _end(pieces, origin)
    opening = _lay_out(pieces, origin, min(OPENING, end if samples is None else samples))
    return None if samples is None else _clip_length(samples, span), opening


def _decode(path: str, kind: str) -> tuple[np.ndarray, int | None]:
    """The sound as the track declares it, and the length of the pictures; both in samples."""
    with open_sound(path, kind) as container:
        tracks = _Tracks(container, path, kind)
        pieces = tracks.pieces()
        samples, span = tracks.samples(), tracks.span()
    origin = tracks.origin
    end = _end(pieces, origin)
    if samples is None:
        samples = end
    if end <= 0 or samples == 0:
        raise MediaError(f"{path}: its sound track holds no sound, or is over before the first picture")
    if end < samples - MAX_PADDING * SAMPLE_RATE:
        raise MediaError(
            f"{path}: sound ends after {end / SAMPLE_RATE:.2f} s of the {samples / SAMPLE_RATE:.2f} s "
            f"it declares; {get_again(path)}"
        )
    return _lay_out(pieces, origin, samples), span


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


def decode_pieces(frames: Iterable[av.AudioFrame], path: str, channel: int | None = None) -> Pieces:
    """Runs of sound without a gap: [(start in seconds on the file's clock, (samples,) 16 kHz mono int16), ...].

    frames: as they come out of the decoder. channel: the only one that is taken; None for a mixture of all. Raises
    MediaError, with `path`, when decoding fails.
    """
    import av

    stamps: list[float] = []
    lengths: list[float] = []  # both in seconds
    parts: list[tuple[int, _Resampled]] = []  # behind the number of their first frame
    due, kind = 0.0, None
    try:
        for frame in frames:
            frame_kind = (frame.sample_rate, frame.layout.name, frame.format.name)
            if frame_kind != kind:
                plain = frame_kind == (SAMPLE_RATE, "mono", "fltp")
                parts.append((len(stamps), _Resampled(plain, channel)))
                kind = frame_kind
            stamps.append(math.nan if frame.time is None else frame.time)
            lengths.append(frame.samples / frame.sample_rate)
            if frame.format.name in SAMPLE_FLOATS:
                _check_scale(frame, due, path)
            if (channels := len(frame.layout.channels)) > MOST_CHANNELS:
                raise MediaError(
                    f"{path}: {channels} channels, of which {MOST_CHANNELS} at most are mixed; write fewer"
                )
            parts[-1][1].add(frame)
            due += lengths[-1]
    except av.error.FFmpegError as error:
        reason = f"broken {due:.2f} s into the sound ({error.strerror}); {get_again(path)}"
        raise MediaError(f"{path}: {reason}") from None
    if not stamps:
        return []
    runs = place_frames(np.array(stamps), np.array(lengths))
    counted = np.cumsum([0.0, *lengths])
    pieces: Pieces = []
    ends = [*(first for first, _ in parts[1:]), len(stamps)]
    for (first, part), last in zip(parts, ends, strict=True):
        samples = part.samples()
        for run in runs:
            begin, end = max(first, run.first), min(last, run.last)
            if begin < end:
                at = [round((counted[frame] - counted[first]) * SAMPLE_RATE) for frame in (begin, end)]
                piece = samples[at[0] :] if end == last else samples[at[0] : at[1]]
                pieces.append(_placed(piece, float(counted[begin]), run))
    return pieces


def _placed(samples: np.ndarray, counted: float, run: Run) -> tuple[float, np.ndarray]:
    """The time at which samples of a run begin, and the samples without drift. counted: seconds, of the first one."""
    if len(run.late) == 1:
        return counted + float(run.late[0]), samples
    ends = np.array([counted, counted + len(samples) / SAMPLE_RATE])
    late = np.interp(ends, run.counted, run.late)
    inside = (run.counted > ends[0]) & (run.counted < ends[1])
    knots = np.r_[ends[0], run.counted[inside], ends[1]]
    times = knots + np.r_[late[0], run.late[inside], late[1]]
    heard = np.empty(round((times[-1] - times[0]) * SAMPLE_RATE), np.int16)
    for first in range(0, len(heard), SAMPLE_RATE):  # in pieces, because each takes memory
        wanted = times[0] + np.arange(first, min(first + SAMPLE_RATE, len(heard))) / SAMPLE_RATE
        source = (np.interp(wanted, times, knots) - counted) * SAMPLE_RATE
        low = max(0, int(source[0]))
        part = samples[low : int(source[-1]) + 2]
        heard[first : first + len(wanted)] = np.rint(np.interp(source - low, np.arange(len(part)), part))
    return float(times[0]), heard


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
    """The sound and the pictures of a file, read in one pass.

    origin: of extent(). is_exact: time stamps do not jitter in such files.
    Raises NoSoundError, MediaError.
    """

    def __init__(self, container: InputContainer, path: str, kind: str) -> None:
        self.container = container
        self.path = path
        self.pictures = picture_stream(container)
        choice = choose_sound(container, partial(open_sound, path, kind))
        if choice is None:
            raise NoSoundError(f"{path}: no sound track")
        self.choice: SoundChoice = choice
        self.sound: AudioStream = choice.stream(container)
        if not can_be_decoded(self.sound):
            raise MediaError(f"{path}: {UNKNOWN_CODEC}")
        self.is_exact = container.format.name.split(",")[0] in DECLARING
        self.delays = picture_delay(container, path, ",".join(DEMUXERS)) if self.pictures else {}
        self.clock = Clock(self.delays)
        self.origin = extent(self)[0]
        self.begin: float | None = None  # of the first packet of sound, in seconds
        self.end = 0.0  # of the last
        self.shown: list[float] = []  # when each picture appears, and when it is gone, in seconds

    def pieces(self, until: float = math.inf) -> Pieces:
        """The sound, up to `until` seconds, while the pictures pass by."""
        return decode_pieces(self._frames(until), self.path, self.choice.channel)

    def _frames(self, until: float) -> Iterator[av.AudioFrame]:
        if self.container.format.name == MP3:
            yield from takewhile(lambda frame: _begins(frame, until), mp3_frames(self.container, self.sound))
            return
        over = False
        for packet in packets(self.container, self.clock):
            if packet.stream is self.pictures:
                self.shown += _shown(packet)
            if packet.stream is not self.sound:
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

    def samples(self) -> int | None:
        """extent()'s length, once all has been read, without what an mp4's edit list puts or hides at the beginning.

        The length of a fragmented file counts what is hidden there; that of a trimmed one, the pause before late
        sound.
        """
        samples = extent(self)[1]
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


class _Resampled:
    """Decoded frames of one kind, one behind the other, on their way to 16 kHz mono int16.

    plain: they are 16 kHz mono float already, as VoxCeleb2's are; then they are rounded here, as FFmpeg rounds them,
    in half the time that its filter graph takes. channel: the only one that is taken. Where FFmpeg has no mixture for
    so many channels, such as the 9 of an array of microphones, it is their mean.
    """

    def __init__(self, plain: bool, channel: int | None = None) -> None:
        import av

        self.parts: list[bytes] = []  # float32 or, out of FFmpeg's mixture, int16
        self.floats = plain
        self.channel = channel
        self.resampler = None if plain else av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def add(self, frame: av.AudioFrame) -> None:
        import av

        if self.resampler is None:
            # Copied, because a decoder that gets its frames back does not allocate new ones.
            self.parts.append(bytes(frame.planes[0])[: 4 * frame.samples])
            return
        if self.channel is not None and self.channel < len(frame.layout.channels):
            frame = _one_channel(frame, self.channel)
        frame.pts = None  # the resampler counts samples
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


def _one_channel(frame: av.AudioFrame, channel: int) -> av.AudioFrame:
    import av

    one = np.ascontiguousarray(channels_of(frame)[channel : channel + 1])
    alone = av.AudioFrame.from_ndarray(one, format=frame.format.name, layout="mono")
    alone.sample_rate = frame.sample_rate
    return alone
