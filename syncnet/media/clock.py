"""A common clock for the streams of a file when time stamps restart or are off by a constant."""

import bisect
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet

from syncnet.media.open_media import container_kind, open_media, picture_stream, sound_streams, tick

MAX_RETURN = 1.0  # seconds; a larger step back in the time stamps starts another recording
MAX_JUMP = 3600.0  # seconds; so does a larger step forward
REORDERED = 10.0  # seconds by which packets without a decoding time may be out of display order
SAME_RESTART = 10.0  # seconds; restarts of two streams this close together are one restart
INDEXED = ("mp4", "avi")  # containers with an index of all packets, where time stamps cannot restart


class Clock:
    """A common clock for the streams of a file when time stamps restart.

    In concatenated files and interrupted recordings, time stamps jump back, or forward by hours. Everything after a
    jump is shifted to follow what came before. The shift is the same for all streams, so streams stay in sync.
    """

    def __init__(self, delays: dict[int, int] | None = None) -> None:
        """delays: stream index -> ticks by which FFmpeg stamps the packets of that stream too early."""
        self.delays = delays or {}
        self._moved = [0.0]  # seconds by which each recording is shifted
        self._at: dict[int, tuple[int, float]] = {}  # stream -> current recording and last time stamp
        self._end = 0.0  # latest end of any stream so far, on this clock
        self._begins: list[float] = []  # starts of the second and later recordings, on this clock

    @property
    def restarts(self) -> int:
        """The number of restarts so far."""
        return len(self._moved) - 1

    def recording_at(self, time: float) -> int:
        """Return the index of the recording at a time in seconds on this clock."""
        return bisect.bisect(self._begins, time)

    def set(self, packet: Packet, restarts: bool = True) -> None:
        """Convert the time stamps of the next packet to this clock. restarts: whether time stamps may restart."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            return
        unit, index = float(tick(packet)), packet.stream_index
        shown = stamp * unit
        recording, before = self._at.get(index, (0, None))
        # Decoding times increase whatever the display order, but they lag behind when FFmpeg has made them up. It has
        # none for the first packets of a stream with B-frames.
        time = shown
        if packet.dts is not None:
            time = packet.dts * unit
        elif before is not None and abs(shown - before) <= REORDERED:
            time = before
        time = shown if shown > time + MAX_JUMP else time
        if restarts and (before is None or not before - MAX_RETURN <= time <= before + MAX_JUMP):
            recording = self._recording(time, recording, before)
        self._at[index] = recording, time
        self._end = max(self._end, shown + self._moved[recording] + (packet.duration or 0) * unit)
        move = round(self._moved[recording] / unit) + self.delays.get(index, 0)
        if move:
            packet.pts = None if packet.pts is None else packet.pts + move
            packet.dts = None if packet.dts is None else packet.dts + move

    def _recording(self, time: float, current: int, before: float | None) -> int:
        """Return the recording of a time stamp that does not follow `before`, the last one of its stream."""

        def distance(number: int) -> float:
            return abs(time + self._moved[number] - self._end)

        if before is None:
            return min(range(len(self._moved)), key=distance) if self.restarts else 0
        later = range(current + 1, len(self._moved))  # another stream has already restarted
        earlier = range(current)  # a few time stamps were wrong
        for numbers, most in ((later, SAME_RESTART), (earlier, MAX_RETURN)):
            nearest = min(numbers, key=distance, default=current)
            if nearest != current and distance(nearest) <= most:
                return nearest
        self._moved.append(self._end - time)
        self._begins.append(self._end)
        return self.restarts


def packets(container: InputContainer, clock: Clock) -> Iterator[Any]:
    """Yield the packets of the video and audio streams in file order, with time stamps on `clock`.

    All audio streams that belong to the picture are included, because they all set the clock. The last packet of each
    stream is empty and flushes the decoder. Raises FFmpegError.
    """
    picture = picture_stream(container)
    restarts = container_kind(container) not in INDEXED
    for packet in container.demux([*([picture] if picture else []), *sound_streams(container)]):
        if restarts or clock.delays:
            clock.set(packet, restarts)
        yield packet


def restarts(path: str) -> bool:
    """Return whether the time stamps of a file restart. Reads all packets without decoding. Raises MediaError."""
    with open_media(path) as container:
        clock = Clock()
        if container_kind(container) in INDEXED:
            return False
        try:
            return any(clock.restarts for _ in packets(container, clock))
        except av.error.FFmpegError:
            return False


def picture_delay(container: InputContainer, path: str) -> dict[int, int]:
    """Return the ticks by which FFmpeg stamps the pictures of an mp4 too early, by stream index.

    A trim without re-encoding may begin between two pictures. Players show the earlier one from time 0; FFmpeg drops
    it and stamps the next one 0, although it appears up to one frame later. path: the file, which is opened again.
    """
    if picture_stream(container) is None or container_kind(container) != "mp4":
        return {}
    stamps: list[int] = []
    options: dict[str, str] = {}
    while len(stamps) < 2:
        with open_media(path, **options) as again:
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
