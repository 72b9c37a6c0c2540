"""The pictures of any video file on a clock of 25 a second, by their time stamps.

Slot k of the clock is a moment in the middle of the time from k / 25 to (k + 1) / 25 s after the first picture; it
shows the picture of the source that is up at that moment. So nothing is ever counted in frames of the source, whose
rate may be any or none, and a picture is at most half a slot early or late.
"""

import gc
import os
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import av
import numpy as np

from media.clips import FPS, MediaError
from media.streams import DECODING_TIMES, MAX_JUMP, MAX_RETURN, open_local, played, tick

# Kinds of files, by content. Playlists and lists of files, which could name other files, are not among them.
CONTAINERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,flv,live_flv,asf,mxf,ogg,nut,rm,dv,gxf,wtv,"
    "h264,hevc,ivf,obu,m4v,mpegvideo,mp3,wav,w64,flac,aac,aiff,ac3,amr,au,caf"
)
MIDDLE = 0.49  # of a slot; just before its middle, where at 50 pictures a second two of them meet
MAX_HOLD = 0.5  # seconds that a picture stays up; where the next comes later, there is no picture between
# Seconds before the wanted time: some files lead to a later picture than asked for.
SEEK_MARGINS = (0.0, 2.0, 12.0)
MAX_LEAD = 40.0  # seconds before a slot; a file whose jumps lead further back is slow to read in parts
SEARCH_SIZE = "50000000"  # bytes and microseconds that FFmpeg may read to find all streams of an MPEG file
ORDERED = 25  # pictures whose time stamps rise: they are those of showing
FROM_FIRST = ("mpegts", "mpeg")  # whose length is counted from their first time stamp, and not from 0
Timed = tuple[float, av.VideoFrame]  # a frame behind its time in seconds
ATTACHED_PICTURE = av.stream.Disposition.attached_pic


class NoVideoError(MediaError):
    """A file that is neither video nor sound."""


def open_media(path: str) -> av.container.InputContainer:
    """Open any media file by its content. Raises MediaError, NoVideoError for no such file; close the result."""
    try:
        return open_local(path, CONTAINERS, analyzeduration=SEARCH_SIZE)
    except (av.error.FFmpegError, OSError) as error:
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise NoVideoError(f"{path}: empty (0 bytes)") from None
        reason = error.strerror or type(error).__name__
        if isinstance(error, PermissionError):
            raise MediaError(f"{path}: cannot be read ({reason})") from None
        raise NoVideoError(f"{path}: not a video, or broken at its beginning ({reason})") from None


class VideoReader:
    """The pictures of a file, as a player shows them. Use it in a with statement; reading begins where it was left.

    first_time: seconds on the file's own clock at which the first picture appears (slot 0 begins then).
    ends_at: seconds on that clock where the time stamps begin anew, once that was come to; reading ends there.
    Raises MediaError where there are no pictures.
    """

    def __init__(self, path: str, first_time: float | None = None) -> None:
        self.path = path
        self.ends_at: float | None = None
        # Asked for once: the frame that is asked goes only when garbage is collected, and with it all memory of its
        # decoder.
        self._turn: tuple[int, int, int, int] | None = None
        self._open()
        self._lag = self._decoding_lag()
        aspect = self.stream.sample_aspect_ratio
        self.pixel_aspect = float(aspect) if aspect else 1.0  # width by height
        if first_time is None:
            first = next(self._frames(), None)
            if first is None:
                self.container.close()
                raise MediaError(f"{path}: no picture in it can be decoded")
            first_time = first[0]
            self._rewind()
        self.first_time = first_time

    def _open(self) -> None:
        self.container = open_media(self.path)
        streams = [s for s in self.container.streams.video if not s.disposition & ATTACHED_PICTURE]
        if not streams:
            self.container.close()
            raise MediaError(f"{self.path}: no pictures in it")
        self.stream = played(streams)
        self.stream.thread_count = 1  # files, and parts of files, are read side by side instead

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()
        if self._turn is not None:
            gc.collect()

    def declared_slots(self) -> tuple[int | None, bool]:
        """The length that the file declares, in slots, or None; and whether that is the length of the pictures."""
        end = None
        of_pictures = True
        tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", self.stream.metadata.get("DURATION", "").strip())
        if self.stream.frames > self.container.size:  # a number that stands for "many", of an AVI from a pipe
            return None, False
        if self.stream.duration:
            end = ((self.stream.start_time or 0) + self.stream.duration) * float(tick(self.stream))
        elif tag:  # Matroska
            end = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
        elif self.container.duration:
            of_pictures = False
            end = self.container.duration / av.time_base
            if self.container.format.name in FROM_FIRST:
                end += (self.container.start_time or 0) / av.time_base
        return None if end is None else max(1, round((end - self.first_time) * FPS)), of_pictures

    def can_seek(self, slots: list[int]) -> bool:
        """Does seeking each slot lead to a picture that is not after it, nor more than MAX_LEAD before it?"""
        for slot in slots:
            time = self._time(slot)
            frames = self._seek(time)
            if frames is None or next(frames)[0] < time - MAX_LEAD:
                return False
        return True

    def slots(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (slot, frame) for the slots first ... last - 1 that have a picture, in order.

        A frame that is shown for several slots comes as often, as the same object. last: None for all.
        """
        frames = self._from_slot(first)
        due, shown, shown_time, hold = first, None, 0.0, 1 / FPS
        for time, frame in frames:
            if shown is not None:
                hold = time - shown_time
                end = time if hold <= MAX_HOLD else shown_time + 1 / FPS
                while self._time(due) < end:
                    if last is not None and due >= last:
                        return
                    yield due, shown
                    due += 1
            shown, shown_time = frame, time
            while self._time(due) < time:  # no picture there
                due += 1
        if shown is not None:
            end = shown_time + min(hold, MAX_HOLD)  # the last picture stays as long as the one before
            while self._time(due) < end and (last is None or due < last):
                yield due, shown
                due += 1

    def bgr(self, frame: av.VideoFrame, scale: float = 1.0) -> np.ndarray:
        """A frame as it is displayed, upright and with square pixels: (height, width, 3) uint8 in BGR order.

        scale: of the displayed size.
        """
        wide, high = max(1.0, self.pixel_aspect), max(1.0, 1 / self.pixel_aspect)
        size = max(1, round(frame.width * wide * scale)), max(1, round(frame.height * high * scale))
        if size == (frame.width, frame.height):
            picture = frame.to_ndarray(format="bgr24")
        else:
            picture = frame.reformat(*size, format="bgr24", interpolation="AREA").to_ndarray()
        if self._turn is None:
            self._turn = display_matrix(frame)
        return turn_upright(picture, self._turn)

    def _time(self, slot: int) -> float:
        return self.first_time + (slot + MIDDLE) / FPS

    def _rewind(self) -> None:
        self.container.close()
        self._open()

    def _from_slot(self, slot: int) -> Iterator[Timed]:
        if slot > 0:
            frames = self._seek(self._time(slot))
            if frames is not None:
                return frames
        self._rewind()
        return self._frames()

    def _seek(self, time: float) -> Iterator[Timed] | None:
        """Frames from at or before `time` seconds on, or None where the file does not lead there."""
        for margin in SEEK_MARGINS:
            try:
                self.container.seek(int((time - margin) / tick(self.stream)), stream=self.stream)
            except av.error.FFmpegError:
                return None
            frames = self._frames()
            first = next(frames, None)
            if first is not None and first[0] <= time:
                return _chain(first, frames)
        return None

    def _frames(self) -> Iterator[Timed]:
        """Decoded frames with their times in seconds, which only increase. Damaged packets are left out."""
        before, step = None, 1 / float(self.stream.average_rate or FPS)
        deinterlacer = _Deinterlacer(self.stream)
        for frame in deinterlacer.run(self._stamped()):
            if frame.pts is None and before is None:  # where it belongs beside the sound, nothing tells
                continue
            due = 0.0 if before is None else before + step
            time = due if frame.pts is None else float(frame.pts * tick(frame))
            if before is not None and (time < before - MAX_RETURN or time > before + MAX_JUMP):
                self.ends_at = before + step
                return
            if before is None or time > before:
                step = step if before is None else time - before
                before = time
                yield time, frame

    def _stamped(self) -> Iterator[av.VideoFrame]:
        """Decoded frames, stamped with the time at which they are shown."""
        for frame in decoded(self.container, self.stream):
            if self._lag is not None:  # FFmpeg guesses the time of showing
                frame.pts = None if frame.dts is None else frame.dts - self._lag
            yield frame

    def _decoding_lag(self) -> int | None:
        """Where a file has times of decoding only, the ticks by which pictures leave the decoder late, else None.

        Such times are those of the pictures in the order in which they are shown, the first picture's the first time:
        whoever writes such a file has picture and sound begin together.
        """
        always = self.container.format.name in DECODING_TIMES
        if not always and not getattr(self.stream.codec_context, "has_b_frames", False):
            return None
        lag = self._lag_of_packets(always)
        self._rewind()
        return lag

    def _lag_of_packets(self, always: bool) -> int | None:
        """_decoding_lag, from the file's beginning. always: its times are known to be those of decoding."""
        times: list[int] = []  # of decoding
        stamps: list[int] = []  # of pictures
        lag = 0
        try:
            for packet in self.container.demux(self.stream):
                if not always and packet.size and packet.pts != packet.dts:
                    return None
                pictures: list[Any] = packet.decode()
                times += [packet.dts] if packet.size and packet.dts is not None else []
                if pictures and not stamps:
                    steps = np.diff(times).tolist()
                    # The first picture may stay longer than the others.
                    lag = len(steps) * min(steps, default=0)
                    if always:
                        return lag
                stamps += [picture.pts for picture in pictures if picture.pts is not None]
                if stamps != sorted(stamps):
                    return lag
                if len(stamps) >= ORDERED:
                    return None
        except av.error.FFmpegError:  # damaged at once
            pass
        return lag if always else None


def _chain(first: tuple[float, av.VideoFrame], rest: Iterator[Timed]) -> Iterator[Timed]:
    yield first
    yield from rest


def decoded(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator[Any]:
    """The frames of a stream, as far as the file is whole; packets that cannot be decoded are left out."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):  # the end, or the file is broken from here on
            return
        try:
            frames: list[Any] = packet.decode()
            yield from (frame for frame in frames if not frame.is_corrupt)
        except av.error.FFmpegError:
            continue


class _Deinterlacer:
    """Passes frames on; from the first interlaced one on, through FFmpeg's yadif, one frame out for each in."""

    def __init__(self, stream: av.VideoStream) -> None:
        self.stream = stream
        self.graph: av.filter.Graph | None = None

    def run(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for frame in frames:
            kind = (frame.width, frame.height, frame.format.name)
            if self.graph is not None and kind != self.kind:
                yield from self._rest()
            if self.graph is None and frame.interlaced_frame:
                self._build(kind)
            if self.graph is None:
                yield frame
            else:
                self.graph.push(frame)
                yield from self._ready()
        yield from self._rest()

    def _build(self, kind: tuple[int, int, str]) -> None:
        self.kind = kind
        graph = av.filter.Graph()
        graph.link_nodes(
            graph.add_buffer(
                template=self.stream, width=kind[0], height=kind[1], format=av.VideoFormat(kind[2])
            ),
            graph.add("yadif", "mode=send_frame:deint=interlaced"),
            graph.add("buffersink"),
        ).configure()
        self.graph = graph

    def _ready(self) -> Iterator[av.VideoFrame]:
        while self.graph is not None:
            try:
                frame: Any = self.graph.pull()
                yield frame
            except (BlockingIOError, av.error.EOFError):
                return

    def _rest(self) -> Iterator[av.VideoFrame]:
        if self.graph is not None:
            self.graph.push(None)
            yield from self._ready()
            self.graph = None


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d), each -1, 0 or 1: a pixel (x, y) of the frame is displayed at (a x + c y, b x + d y)."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    numbers = np.frombuffer(bytes(data), np.int32).astype(np.float64).reshape(3, 3)[:2, :2]
    a, b, c, d = (numbers / max(1.0, np.abs(numbers).max())).round().astype(int).ravel().tolist()
    return (a, b, c, d) if abs(a * d - b * c) == 1 else (1, 0, 0, 1)


def turn_upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror a picture (height, width, 3) by display_matrix(); the result is C-contiguous."""
    a, b, c, d = matrix
    if a == 0:  # x and y change places
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1])
