"""What PyAV leaves open: how a file is opened safely, which of its streams count, and on which clock."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from syncnet.media.file_type import MP4
from syncnet.media.tar_members import name_for_ffmpeg

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.frame import Frame
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

DECODING_TIMES = ("avi",)  # containers that do not say when a packet is shown, only when it is decoded
MAX_RETURN = 1.0  # seconds; where times go back by more, another recording begins
MAX_JUMP = 3600.0  # seconds; where times go forward by more, too
SAME_RESTART = 10.0  # seconds; streams whose times restart this close to each other do so together
MAX_PADDING = 0.1  # seconds; a track of sound that ends earlier than declared by more than this is broken
MICROSECOND = Fraction(1, 1_000_000)  # FFmpeg's own time base
INDEXED = ("mov", "mp4", "avi")
STILLS = ("mjpeg", "png", "apng", "bmp", "gif", "tiff", "webp", "jpegls")  # codecs of thumbnails
PQ, HLG = HDR_TRANSFERS = (16, 18)  # FFmpeg's numbers of HDR's transfer functions, those of ITU-T H.273
PROGRAMMES = "mpegts"  # the container that may hold several programs of picture and sound


def open_local(path: str, demuxers: str, kind: str | None = None, **options: str) -> InputContainer:
    """Open a media file by its content, whatever its name, and no other file or address that it may name.

    demuxers: FFmpeg's names of those that may be used, with commas between them; each reads the one file that it is
    given. kind: the content, where it is known. options: further ones of the demuxer. Raises FFmpegError, OSError.
    Close the result.
    """
    import av  # whoever reads wavs alone does without it

    # A title that is not UTF-8 must not keep a file from opening. PyAV 19 does this by itself.
    before_19 = int(av.__version__.split(".")[0]) < 19
    decoding: dict[str, Any] = {"metadata_errors": "surrogateescape"} if before_19 else {}
    # Options of the container alone: PyAV before 16 crashes if streams that turn up later are to have them too.
    with name_for_ffmpeg(path) as name:
        return av.open(
            name,
            format="mp4" if kind == MP4 else None,  # VoxCeleb2's; asking every demuxer takes a while
            container_options={"protocol_whitelist": "file", "format_whitelist": demuxers, **options},
            **decoding,
        )


def tick(timed: Stream | Packet | Frame) -> Fraction:
    """Seconds that one step of the time stamps of a stream, packet or frame takes."""
    return timed.time_base or MICROSECOND


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The video stream that counts, or None: no cover and no thumbnail, the default one, then the largest.

    A stream of single images is taken only where there is no other, as in Motion JPEG, and one without a decoder only
    where no other has one.
    """
    from av.stream import Disposition

    others = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & others]

    def rank(stream: VideoStream) -> tuple:
        context = stream.codec_context
        known = context is not None
        return (
            known,
            known and context.name not in STILLS,
            bool(stream.disposition & Disposition.default),
            context.width * context.height if known else 0,
        )

    return max(streams, key=rank, default=None)  # the first of equals


def sound_streams(container: InputContainer) -> list[AudioStream]:
    """The sound streams that belong to the picture, the one that a player plays first.

    Those of the picture's program; default ones before the others, and those without a decoder only where no other
    has one.
    """
    from av.stream import Disposition

    picture = picture_stream(container)
    streams = list(container.streams.audio)
    if picture is not None and len(streams) > 1 and container.format.name == PROGRAMMES:
        programs = [program for program in program_streams(container) if picture.index in program]
        related = [s for s in streams if any(s.index in program for program in programs)]
        streams = related or ([] if programs else streams)
    streams = [s for s in streams if can_be_decoded(s)] or streams
    return sorted(streams, key=lambda stream: not stream.disposition & Disposition.default)


def can_be_decoded(track: Stream) -> bool:
    return track.codec_context is not None


def description(container: InputContainer) -> str:
    """FFmpeg's own description of a file: programs, and side data of streams, of which PyAV does not tell."""
    from av import logging

    level = logging.get_level()
    logging.set_level(logging.INFO)
    try:
        described: Any = container  # not in PyAV's type hints
        return described.dumps_format()
    finally:
        logging.set_level(level)


def program_streams(container: InputContainer) -> list[set[int]]:
    """The indices of the streams of each program."""
    programs: list[set[int]] = []
    for line in description(container).splitlines():
        if re.match(r"  Program \d", line):
            programs.append(set())
        elif line.startswith("  No Program"):
            break
        elif programs and (stream := re.match(r"  Stream #\d+:(\d+)", line)):
            programs[-1].add(int(stream[1]))
    return programs


def cropping(container: InputContainer, stream: VideoStream) -> tuple[int, int, int, int]:
    """Columns at the left and right and rows at the top and bottom of a stream's pictures that are not shown.

    The clean aperture of mp4 and mov, the cropping of Matroska.
    """
    index = None
    for line in description(container).splitlines():
        if found := re.match(r"  Stream #\d+:(\d+)", line):
            index = int(found[1])
        elif index == stream.index and (
            found := re.match(r"\s+Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", line, re.IGNORECASE)
        ):
            left, right, top, bottom = map(int, found.groups())
            return left, right, top, bottom
    return 0, 0, 0, 0


def is_indexed(container: InputContainer) -> bool:
    """Does a file give every packet its time in an index, so that time stamps cannot restart?"""
    return container.format.name.split(",")[0] in INDEXED


class Clock:
    """One clock for the streams of a file, whose time stamps may restart.

    Files that were joined as they are, and recordings that were interrupted, have time stamps that go back, or
    forward by hours. What follows is moved behind what came before, all streams by the same time, so that picture and
    sound stay together and nothing is lost.
    """

    def __init__(self, delays: dict[int, int] | None = None) -> None:
        """delays: ticks by which FFmpeg stamps the packets of streams, by index, too early."""
        self.delays = delays or {}
        self._moved = [0.0]  # seconds by which each recording is moved
        self._at: dict[int, tuple[int, float]] = {}  # stream -> its recording, and its last time stamp there
        self._end = 0.0  # of all streams until now, on this clock
        self._begins: list[float] = []  # of the second recording and those after it, on this clock

    @property
    def restarts(self) -> int:
        """How often the time stamps have restarted until now."""
        return len(self._moved) - 1

    def recording_at(self, time: float) -> int:
        """The number of the recording, from 0, that is shown at a time in seconds on this clock."""
        return bisect.bisect(self._begins, time)

    def set(self, packet: Packet, restarts: bool = True) -> None:
        """Put the time stamps of a packet, the next one of the file, on this clock. restarts: may they restart?"""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            return
        unit, index = float(tick(packet)), packet.stream_index
        shown = stamp * unit
        # Times of decoding rise, whatever the order of the pictures; but where FFmpeg has made them up, they lag.
        time = shown if packet.dts is None else packet.dts * unit
        time = shown if shown > time + MAX_JUMP else time
        recording, before = self._at.get(index, (0, None))
        if restarts and (before is None or not before - MAX_RETURN <= time <= before + MAX_JUMP):
            recording = self._recording(time, recording, before)
        self._at[index] = recording, time
        self._end = max(self._end, shown + self._moved[recording] + (packet.duration or 0) * unit)
        move = round(self._moved[recording] / unit) + self.delays.get(index, 0)
        if move:
            packet.pts = None if packet.pts is None else packet.pts + move
            packet.dts = None if packet.dts is None else packet.dts + move

    def _recording(self, time: float, current: int, before: float | None) -> int:
        """The recording of a time stamp that does not follow `before`, its stream's last one in the current one."""

        def distance(number: int) -> float:
            return abs(time + self._moved[number] - self._end)

        if before is None:
            return min(range(len(self._moved)), key=distance) if self.restarts else 0
        later = range(current + 1, len(self._moved))  # another stream has come to the restart already
        earlier = range(current)  # a few time stamps were wrong
        for numbers, most in ((later, SAME_RESTART), (earlier, MAX_RETURN)):
            nearest = min(numbers, key=distance, default=current)
            if nearest != current and distance(nearest) <= most:
                return nearest
        self._moved.append(self._end - time)
        self._begins.append(self._end)
        return self.restarts


def packets(container: InputContainer, clock: Clock) -> Iterator[Any]:
    """The packets of picture and sound in the file's order, on one clock. Raises FFmpegError.

    Of all streams that count, because the clock is set by all of them. The last packet of each is empty: it brings
    out what a decoder holds back.
    """
    picture = picture_stream(container)
    restarts = not is_indexed(container)
    for packet in container.demux([*([picture] if picture else []), *sound_streams(container)]):
        if restarts or clock.delays:
            clock.set(packet, restarts)
        yield packet


def picture_delay(container: InputContainer, path: str, demuxers: str) -> dict[int, int]:
    """The ticks by which FFmpeg stamps the pictures of an mp4 too early, by the index of their stream.

    container, path: the file, which is opened again with the demuxers.

    A trim without encoding may begin between two pictures. The one before stays up from time 0 on; FFmpeg leaves it
    out and stamps the next one 0, though that is up to a picture later.
    """
    import av

    picture = picture_stream(container)
    if picture is None or container.format.name.split(",")[0] not in ("mov", "mp4"):
        return {}
    stamps: list[int] = []
    options: dict[str, str] = {}
    while len(stamps) < 2:
        with open_local(path, demuxers, **options) as again:
            picture = picture_stream(again)
            if picture is None:
                return {}
            try:
                packet = next(again.demux(picture))
            except (StopIteration, av.error.FFmpegError):
                return {}
            if packet.pts is None or not (packet.is_discard or stamps):
                return {}
            stamps.append(packet.pts)
            index, options = picture.index, {"advanced_editlist": "0"}
            longest = 1 / tick(picture) / (picture.average_rate or 1)
    delay = stamps[1] - stamps[0]
    return {index: delay} if 0 < delay <= longest else {}
