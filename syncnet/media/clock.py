"""One clock for the streams of a file, whose time stamps may restart or be wrong by a constant."""

import bisect
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet

from syncnet.media.open_media import container_kind, open_media, picture_stream, sound_streams, tick

MAX_RETURN = 1.0  # seconds; time stamps that go back by more belong to another recording
MAX_JUMP = 3600.0  # seconds; so do time stamps that go forward by more
SAME_RESTART = 10.0  # seconds; streams whose time stamps restart this close together restart together
INDEXED = ("mp4", "avi")  # containers with an index of all packets: their time stamps cannot restart


class Clock:
    """One clock for the streams of a file, whose time stamps may restart.

    In concatenated files and interrupted recordings, time stamps go back, or forward by hours. What follows is moved
    behind what came before, all streams by the same time, so that picture and sound stay together.
    """

    def __init__(self, delays: dict[int, int] | None = None) -> None:
        """delays: ticks by which FFmpeg stamps the packets of a stream (its index) too early."""
        self.delays = delays or {}
        self._moved = [0.0]  # seconds by which each recording is moved
        self._at: dict[int, tuple[int, float]] = {}  # stream -> its recording, and its last time stamp there
        self._end = 0.0  # of all streams so far, on this clock
        self._begins: list[float] = []  # of the second and later recordings, on this clock

    @property
    def restarts(self) -> int:
        """How often the time stamps have restarted so far."""
        return len(self._moved) - 1

    def recording_at(self, time: float) -> int:
        """The number of the recording, from 0, that is shown at a time in seconds on this clock."""
        return bisect.bisect(self._begins, time)

    def set(self, packet: Packet, restarts: bool = True) -> None:
        """Put the time stamps of a packet, the file's next one, on this clock. restarts: may they restart?"""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            return
        unit, index = float(tick(packet)), packet.stream_index
        shown = stamp * unit
        # Decoding times rise, whatever the order of the pictures; but where FFmpeg made them up, they lag behind.
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
        later = range(current + 1, len(self._moved))  # another stream has reached the restart already
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

    They are those of all streams that count, because all of them set the clock. The last packet of each stream is
    empty: it flushes the decoder.
    """
    picture = picture_stream(container)
    restarts = container_kind(container) not in INDEXED
    for packet in container.demux([*([picture] if picture else []), *sound_streams(container)]):
        if restarts or clock.delays:
            clock.set(packet, restarts)
        yield packet


def restarts(path: str) -> bool:
    """Do the time stamps of a file restart? Reads all packets, decodes none. Raises MediaError."""
    with open_media(path) as container:
        clock = Clock()
        if container_kind(container) in INDEXED:
            return False
        try:
            return any(clock.restarts for _ in packets(container, clock))
        except av.error.FFmpegError:
            return False


def picture_delay(container: InputContainer, path: str) -> dict[int, int]:
    """The ticks by which FFmpeg stamps the pictures of an mp4 too early, by the index of their stream.

    A trim without re-encoding may begin between two pictures. The earlier one stays up from time 0 on; FFmpeg drops
    it and stamps the next one 0, although that appears up to a picture later. path: of the file, which is reopened.
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
