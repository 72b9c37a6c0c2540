"""Decode the audio of any audio or video file, in sync with its pictures."""

import math
from collections.abc import Iterable, Iterator

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from syncnet.media.clips import SAMPLE_RATE, SAMPLES_PER_FRAME, MediaError
from syncnet.media.clock import Clock, packets, picture_delay
from syncnet.media.file_type import get_again
from syncnet.media.open_media import (
    UNKNOWN_CODEC,
    can_be_decoded,
    container_kind,
    open_media,
    picture_stream,
    tick,
)
from syncnet.media.sound_choice import channels_of, choose_sound
from syncnet.media.sound_placement import Run, place_frames
from syncnet.media.wav import map_wav

Pieces = list[tuple[float, np.ndarray]]  # (start in seconds, 16 kHz mono int16)
DECLARING = ("mp4", "wav", "w64", "aiff", "au", "caf", "flac", "ogg")  # containers with exact track lengths
CLOCKS = ("mpegts", "mpeg", "mp3")  # containers with time stamps that do not begin at 0
MAX_PADDING = 0.1  # seconds; audio that ends earlier than declared by more than this is truncated
MAX_FILL = 0.25  # seconds; audio that ends earlier than the pictures by more than this is not padded
SAMPLE_FLOATS = ("flt", "dbl")  # sample formats of files with float samples
LOUDEST = 32.0  # times full scale; larger float samples use another scale
OPENING = SAMPLE_RATE // 4  # samples
JITTER = 5.0  # seconds over which jittering time stamps average out


class NoSoundError(MediaError):
    """The file has no audio track."""


def declared_end(container: InputContainer, sound: AudioStream) -> float | None:
    """Return the end of an audio track in seconds on the file's clock, or None if FFmpeg only estimates it.

    Anything that the decoder returns after this is padding.
    """
    if sound.duration is None or container_kind(container) not in DECLARING:
        return None
    return ((sound.start_time or 0) + sound.duration) * float(tick(sound))


def decode_audio(path: str) -> np.ndarray:
    """Decode the audio of any audio or video file as a player plays it, in sync with its pictures.

    Returns (samples,) int16 at 16 kHz; sample i is heard i / 16000 s after the first picture appears. Encoder delay,
    edit lists, late or early starts and gaps are taken from the time stamps. The end is cut to the declared duration,
    or padded by at most MAX_PADDING. A 16 kHz mono int16 wav is memory-mapped. Raises NoSoundError, MediaError.
    """
    plain = map_wav(path)
    return _decode(path)[0] if plain is None else plain


def decode_clip(path: str) -> np.ndarray:
    """Like decode_audio, but the audio ends with the pictures.

    Audio that ends more than one video frame after the pictures is cut. Audio that ends at most MAX_FILL before them
    is padded with silence; if it ends even earlier, its length is kept.
    """
    plain = map_wav(path)
    if plain is not None:
        return plain
    sound, span = _decode(path)
    length = _clip_length(len(sound), span)
    return sound[:length] if length <= len(sound) else np.pad(sound, (0, length - len(sound)))


def clip_opening(path: str) -> tuple[int | None, np.ndarray]:
    """Return the length of decode_clip(path) and its first OPENING samples, without decoding the whole file.

    The length is None if it is known only after decoding. There are fewer samples if the clip is shorter. Raises the
    same errors as decode_clip.
    """
    plain = map_wav(path)
    if plain is not None:
        return len(plain), plain[:OPENING]
    with open_media(path) as container:
        tracks = _Tracks(container, path)
        # Decode a little more, because the resampler looks ahead and time stamps may jitter.
        more = MAX_PADDING if container_kind(container) in DECLARING else JITTER
        pieces = tracks.pieces(until=tracks.origin + OPENING / SAMPLE_RATE + more)
        samples, span = tracks.samples(), tracks.span()
    end = _end(pieces, tracks.origin)
    opening = _lay_out(pieces, tracks.origin, min(OPENING, end if samples is None else samples))
    return None if samples is None else _clip_length(samples, span), opening


def _decode(path: str) -> tuple[np.ndarray, int | None]:
    """Return the audio with the declared length of its track, and the duration of the pictures in samples."""
    with open_media(path) as container:
        tracks = _Tracks(container, path)
        pieces = tracks.pieces()
        samples, span = tracks.samples(), tracks.span()
    end = _end(pieces, tracks.origin)
    if samples is None:
        samples = end
    if end <= 0 or samples == 0:
        raise MediaError(f"{path}: its sound track is empty, or ends before the first picture")
    if end < samples - MAX_PADDING * SAMPLE_RATE:
        raise MediaError(
            f"{path}: sound ends after {end / SAMPLE_RATE:.2f} s of the {samples / SAMPLE_RATE:.2f} s "
            f"it declares; {get_again(path)}"
        )
    return _lay_out(pieces, tracks.origin, samples), span


def _end(pieces: Pieces, origin: float) -> int:
    """Return the index after the last decoded sample."""
    return max((round((start - origin) * SAMPLE_RATE) + len(piece) for start, piece in pieces), default=0)


def _lay_out(pieces: Pieces, origin: float, samples: int) -> np.ndarray:
    """Place pieces of audio at their start times, with silence between them: (samples,) int16."""
    if len(pieces) == 1 and pieces[0][0] == origin and len(pieces[0][1]) >= samples:
        return pieces[0][1][:samples]  # the usual case
    wav = np.zeros(samples, np.int16)
    for start, piece in pieces:
        first = round((start - origin) * SAMPLE_RATE)
        piece = piece[max(0, -first) : max(0, samples - first)]
        first = max(0, first)
        wav[first : first + len(piece)] = piece
    return wav


def _clip_length(samples: int, span: int | None) -> int:
    """Return the length of decode_clip's result. samples, span: lengths of the audio and pictures, in samples."""
    if span is not None and (
        samples > span + SAMPLES_PER_FRAME
        or span - MAX_FILL * SAMPLE_RATE <= samples < span - SAMPLES_PER_FRAME
    ):
        return span
    return samples


def decode_pieces(frames: Iterable[av.AudioFrame], path: str, channel: int | None = None) -> Pieces:
    """Convert decoded frames to gapless pieces: [(start in seconds on the file's clock, (samples,) int16), ...].

    The pieces are 16 kHz mono. frames: from the decoder. channel: the only channel to use; None: mix all. Raises
    MediaError, naming `path`, if decoding fails.
    """
    stamps: list[float] = []
    lengths: list[float] = []  # both in seconds
    parts: list[tuple[int, _Resampled]] = []  # (index of its first frame, part) per sample format
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
            parts[-1][1].add(frame)
            due += lengths[-1]
    except av.error.FFmpegError as error:
        reason = f"cannot be decoded {due:.2f} s into the sound ({error.strerror}); {get_again(path)}"
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
    """Return (time of the first sample, samples corrected for drift). counted: seconds counted before the first."""
    if len(run.late) == 1:
        return counted + float(run.late[0]), samples
    ends = np.array([counted, counted + len(samples) / SAMPLE_RATE])
    late = np.interp(ends, run.counted, run.late)
    inside = (run.counted > ends[0]) & (run.counted < ends[1])
    knots = np.r_[ends[0], run.counted[inside], ends[1]]
    times = knots + np.r_[late[0], run.late[inside], late[1]]
    heard = np.empty(round((times[-1] - times[0]) * SAMPLE_RATE), np.int16)
    for first in range(0, len(heard), SAMPLE_RATE):  # in blocks, to bound memory
        wanted = times[0] + np.arange(first, min(first + SAMPLE_RATE, len(heard))) / SAMPLE_RATE
        source = (np.interp(wanted, times, knots) - counted) * SAMPLE_RATE
        low = max(0, int(source[0]))
        part = samples[low : int(source[-1]) + 2]
        heard[first : first + len(wanted)] = np.rint(np.interp(source - low, np.arange(len(part)), part))
    return float(times[0]), heard


def _check_scale(frame: av.AudioFrame, time: float, path: str) -> None:
    """Raise MediaError for float samples if full scale is not 1: they would be clipped to noise."""
    values = frame.to_ndarray()
    if not (np.abs(values) <= LOUDEST).all():  # NaN included
        raise MediaError(
            f"{path}: float samples up to {np.abs(values).max():g} at {time:.2f} s, where 1 is full scale; "
            "int16 values stored as floats must be divided by 32768 when the file is written"
        )


class _Tracks:
    """The audio and the picture times of a file, read in one pass. Raises NoSoundError, MediaError."""

    def __init__(self, container: InputContainer, path: str) -> None:
        self.container = container
        self.path = path
        self.pictures = picture_stream(container)
        choice = choose_sound(container, path)
        if choice is None:
            raise NoSoundError(f"{path}: no sound track")
        self.channel = choice.channel
        self.sound: AudioStream = choice.stream(container)
        if not can_be_decoded(self.sound):
            raise MediaError(f"{path}: {UNKNOWN_CODEC}")
        self.delays = picture_delay(container, path)
        self.clock = Clock(self.delays)
        self.origin = self._origin()
        self.begin: float | None = None  # start of the first audio packet, in seconds
        self.end = 0.0  # end of the last audio packet
        self.shown: list[float] = []  # times at which each picture appears and disappears, in seconds

    def _origin(self) -> float:
        """Return the time of the wav's first sample on the file's clock, in seconds.

        The wav begins with the first picture; without video, at time 0, or in containers of CLOCKS, with the audio.
        """
        if not self.pictures and container_kind(self.container) not in CLOCKS:
            return 0.0
        first = self.pictures or self.sound
        return ((first.start_time or 0) + self.delays.get(first.index, 0)) * float(tick(first))

    def pieces(self, until: float = math.inf) -> Pieces:
        """Decode the audio up to `until` seconds. All packets are read, to get the times of the pictures."""
        return decode_pieces(self._frames(until), self.path, self.channel)

    def _frames(self, until: float) -> Iterator[av.AudioFrame]:
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
                    over = over or (frame.time is not None and frame.time >= until)
                    if not over:
                        yield frame
            elif not self.pictures:
                return

    def samples(self) -> int | None:
        """The wav's samples up to the declared end of the audio; None if none is declared. Valid once all is read.

        Corrected for an mp4's edit list: the declared length of a fragmented file includes what the edit list hides;
        that of a trimmed file includes the pause before late audio.
        """
        end = declared_end(self.container, self.sound)
        if end is None:
            return None
        samples = max(0, round((end - self.origin) * SAMPLE_RATE))
        if self.begin is None or container_kind(self.container) != "mp4":
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
        """The duration of the pictures in samples, or None with fewer than two. Valid once the file has been read."""
        return round((max(self.shown) - min(self.shown)) * SAMPLE_RATE) if len(self.shown) > 2 else None


def _shown(packet: Packet) -> list[float]:
    """Return the times at which a packet's picture appears and disappears, in seconds; [] if it is not shown."""
    stamp = packet.dts if packet.pts is None else packet.pts
    if stamp is None or packet.is_discard:
        return []
    begin = float(stamp * tick(packet))
    rate = packet.stream.average_rate
    lasts = float(packet.duration * tick(packet)) if packet.duration else float(1 / rate) if rate else 0.0
    return [begin, begin + lasts]


class _Resampled:
    """Converts decoded frames of one format to 16 kHz mono int16.

    plain: whether they already are 16 kHz mono float, as VoxCeleb2's; rounding these here, the way FFmpeg does, takes
    half the time of its filter graph. channel: the only channel to use; None: mix all.
    """

    def __init__(self, plain: bool, channel: int | None = None) -> None:
        self.parts: list[bytes] = []  # float32 if plain, else int16
        self.channel = channel
        self.resampler = None if plain else av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def add(self, frame: av.AudioFrame) -> None:
        if self.resampler is None:
            # Copied, so that the decoder gets its frame back and need not allocate a new one.
            self.parts.append(bytes(frame.planes[0])[: 4 * frame.samples])
            return
        if self.channel is not None and self.channel < len(frame.layout.channels):
            frame = _one_channel(frame, self.channel)
        frame.pts = None  # the resampler counts samples
        self._resample(frame)

    def samples(self) -> np.ndarray:
        if self.resampler is not None:
            self._resample(None)  # flushes the resampler
            return np.frombuffer(b"".join(self.parts), np.int16)
        sound = np.frombuffer(bytearray().join(self.parts), np.float32)
        sound *= 32768
        return np.clip(np.rint(sound, out=sound), -32768, 32767, out=sound).astype(np.int16)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        assert self.resampler is not None
        self.parts += [bytes(part.planes[0])[: 2 * part.samples] for part in self.resampler.resample(frame)]


def _one_channel(frame: av.AudioFrame, channel: int) -> av.AudioFrame:
    one = np.ascontiguousarray(channels_of(frame)[channel : channel + 1])
    alone = av.AudioFrame.from_ndarray(one, format=frame.format.name, layout="mono")
    alone.sample_rate = frame.sample_rate
    return alone
