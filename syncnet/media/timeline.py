"""Resample the pictures of any video file to 25 per second by their time stamps.

Slot k gets the picture that is shown in the middle of the interval from k / 25 to (k + 1) / 25 s after the first
picture. The source may have any frame rate, and no picture is more than half a slot early or late.
"""

import bisect
import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

from syncnet.media.clips import FPS, MediaError
from syncnet.media.clock import Clock, packets, picture_delay
from syncnet.media.hdr import sdr_picture
from syncnet.media.open_media import (
    HDR_TRANSFERS,
    ONE_THREAD,
    container_kind,
    cropping,
    open_media,
    picture_stream,
    tick,
)

DECODING_TIMES = ("avi",)  # containers that store decoding times (dts) but no presentation times
MIDDLE = 0.49  # fraction of a slot; just before its middle, where two pictures meet at 50 per second
MAX_HOLD = 0.5  # seconds that a picture is shown; if the next comes later, the slots between have no picture
# Seconds to seek before the requested time: in some files, a seek lands on a later picture.
SEEK_MARGINS = (0.0, 2.0, 12.0)
MAX_LEAD = 40.0  # seconds before a slot; a file with seeks that land further back is slow to read in parts
ORDERED = 25  # pictures with increasing time stamps after which these count as presentation times
FROM_FIRST = ("mpegts", "mpeg")  # containers with a duration that counts from the first time stamp
Timed = tuple[float, av.VideoFrame]  # time in seconds, frame


class VideoReader:
    """Reads the pictures of a file as a player shows them; a context manager.

    first_time: time of the first picture, in seconds on the file's clock; slot 0 begins then. clock: the clock of
    the time stamps, as far as the file has been read. Raises MediaError if there are no pictures.
    """

    def __init__(self, path: str, first_time: float | None = None) -> None:
        self.path = path
        self._turn: tuple[int, int, int, int] | None = None
        self._delays: dict[int, int] = {}
        self._open()
        self._delays = picture_delay(self.container, path)
        self.clock = Clock(self._delays)
        self._crop = cropping(self.container, self.stream)
        aspect, coded = self.stream.sample_aspect_ratio, self.stream.codec_context.sample_aspect_ratio
        self._aspects = [(-float("inf"), float(aspect or 1))]  # (start in seconds, pixel aspect ratio)
        self._aspect_of_container = bool(aspect) and aspect != coded
        self._lag = self._decoding_lag()
        if first_time is None:
            first = next(self._frames(), None)
            if first is None:
                self.container.close()
                raise MediaError(f"{path}: none of its pictures can be decoded")
            first_time = first[0]
            self._rewind()
        self.first_time = first_time

    def _open(self) -> None:
        self.container = open_media(self.path)
        stream = picture_stream(self.container)
        if stream is None:
            self.container.close()
            raise MediaError(f"{self.path}: no pictures in it")
        self.stream = stream
        self.clock = Clock(self._delays)
        self.stream.thread_count = 1  # parallelism is over files and parts of files

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def declared_slots(self) -> tuple[int | None, bool]:
        """Return the declared length in slots, or None, and whether it is that of the video stream."""
        end = None
        of_pictures = True
        tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", self.stream.metadata.get("DURATION", "").strip())
        if self.stream.frames > self.container.size:  # a placeholder in an AVI that was written to a pipe
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
        """Return whether seeking to each slot lands on a picture at most MAX_LEAD before it, and none after it."""
        for slot in slots:
            time = self._time(slot)
            frames = self._seek(time)
            if frames is None or next(frames)[0] < time - MAX_LEAD:
                return False
        return True

    def packets(self) -> Iterator[av.Packet]:
        """Yield the packets of the video stream from the current position, as far as the file is intact."""
        return (p for p in whole_packets(self.container, self.clock) if p.stream is self.stream)

    def slots(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (slot, frame) in order, for the slots first ... last - 1 that have a picture. last: None for all.

        A frame that is shown in several slots is yielded once per slot, as the same object.
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
            end = shown_time + min(hold, MAX_HOLD)  # the last picture is shown as long as the one before it
            while self._time(due) < end and (last is None or due < last):
                yield due, shown
                due += 1

    def bgr(self, frame: av.VideoFrame, scale: float = 1.0) -> np.ndarray:
        """Convert a frame to what is displayed, upright with square pixels: (height, width, 3) uint8 in BGR order.

        scale: scale factor of the displayed size.
        """
        aspect = self._pixel_aspect(frame.time)
        wide, high = max(1.0, aspect) * scale, max(1.0, 1 / aspect) * scale
        size = max(1, round(frame.width * wide)), max(1, round(frame.height * high))
        context = self.stream.codec_context
        if context.color_trc in HDR_TRANSFERS:
            picture = sdr_picture(frame, size, context.color_trc, context.color_primaries)
        elif size == (frame.width, frame.height):
            picture = frame.to_ndarray(format="bgr24", **ONE_THREAD)
        else:
            picture = frame.reformat(*size, format="bgr24", interpolation="AREA", **ONE_THREAD).to_ndarray()
        left, right, top, bottom = self._crop
        if any(self._crop):
            rows = slice(round(top * high), max(1, size[1] - round(bottom * high)))
            picture = picture[rows, round(left * wide) : max(1, size[0] - round(right * wide))]
        if self._turn is None:
            self._turn = display_matrix(frame)
        return turn_upright(picture, self._turn)

    def _pixel_aspect(self, time: float | None) -> float:
        """Return the pixel aspect ratio (width / height) at a time in seconds."""
        place = 0 if time is None else bisect.bisect(self._aspects, (time + 1e-6, float("inf")))
        return self._aspects[max(0, place - 1)][1]

    def _follow_aspect(self, packet: av.Packet) -> None:
        """Record a change of the pixel aspect ratio. packet: the packet just decoded.

        If the container and the video stream disagree, the container takes precedence.
        """
        coded = self.stream.codec_context.sample_aspect_ratio
        if packet.pts is None or not packet.is_keyframe or not coded or self._aspect_of_container:
            return
        time = float(packet.pts * tick(packet))
        if abs(self._pixel_aspect(time) - coded) > 1e-6:
            bisect.insort(self._aspects, (time, float(coded)))

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
        """Return frames starting at or before `time` seconds, or None if the file cannot seek there."""
        for margin in SEEK_MARGINS:
            self.clock = Clock(self._delays)
            try:
                self.container.seek(int((time - margin) / tick(self.stream)), stream=self.stream)
            except av.error.FFmpegError:
                return None
            frames = self._frames()
            first = next(frames, None)
            if first is not None and first[0] <= time:
                return itertools.chain([first], frames)
        return None

    def _frames(self) -> Iterator[Timed]:
        """Yield (time in seconds, frame), with increasing times. Damaged packets are skipped."""
        before, step = None, 1 / float(self.stream.average_rate or FPS)
        deinterlacer = _Deinterlacer(self.stream)
        for frame in deinterlacer.run(self._stamped()):
            if frame.pts is None and before is None:  # its time relative to the audio is unknown
                continue
            due = 0.0 if before is None else before + step
            time = due if frame.pts is None else float(frame.pts * tick(frame))
            if before is None or time > before:
                step = step if before is None else time - before
                before = time
                yield time, frame

    def _stamped(self) -> Iterator[av.VideoFrame]:
        """Yield decoded frames with their presentation times as pts."""
        for frame in decoded(self.container, self.clock, self.stream, self._follow_aspect):
            if self._lag is not None:  # FFmpeg only guesses presentation times
                frame.pts = None if frame.dts is None else frame.dts - self._lag
            yield frame

    def _decoding_lag(self) -> int | None:
        """Return the decoder delay in ticks for a file that has only decoding times, otherwise None.

        These times, in order, belong to the pictures in display order, and the first time to the first picture:
        programs that write such files start video and audio together.
        """
        always = container_kind(self.container) in DECODING_TIMES
        if not always and not getattr(self.stream.codec_context, "has_b_frames", False):
            return None
        lag = self._lag_of_packets(always)
        self._rewind()
        return lag

    def _lag_of_packets(self, always: bool) -> int | None:
        """Compute _decoding_lag from the beginning of the file. always: the container has only decoding times."""
        times: list[int] = []  # dts of packets
        stamps: list[int] = []  # pts of pictures
        lag = 0
        try:
            for packet in self.container.demux(self.stream):
                if not always and packet.size and packet.pts != packet.dts:
                    return None
                pictures: list[Any] = packet.decode()
                times += [packet.dts] if packet.size and packet.dts is not None else []
                if pictures and not stamps:
                    steps = np.diff(times).tolist()
                    # The first picture may be shown longer than the others.
                    lag = len(steps) * min(steps, default=0)
                    if always:
                        return lag
                stamps += [picture.pts for picture in pictures if picture.pts is not None]
                if stamps != sorted(stamps):
                    return lag
                if len(stamps) >= ORDERED:
                    return None
        except av.error.FFmpegError:  # damaged at its beginning
            pass
        return lag if always else None


def whole_packets(container: av.container.InputContainer, clock: Clock) -> Iterator[Any]:
    """Yield the video and audio packets of a file on a clock, as far as the file is intact."""
    with contextlib.suppress(av.error.FFmpegError):
        yield from packets(container, clock)


def decoded(
    container: av.container.InputContainer,
    clock: Clock,
    stream: av.stream.Stream,
    after: Callable[[av.Packet], None] | None = None,
) -> Iterator[Any]:
    """Yield the frames of a stream on a clock, as far as the file is intact. Damaged packets are skipped.

    after: called with each packet after it has been decoded.
    """
    for packet in whole_packets(container, clock):
        if packet.stream is not stream:
            continue
        try:
            frames: list[Any] = packet.decode()
        except av.error.FFmpegError:
            continue
        if after:
            after(packet)
        yield from (frame for frame in frames if not frame.is_corrupt)


class _Deinterlacer:
    """Deinterlaces with FFmpeg's yadif, starting at the first interlaced frame; one frame out per frame in."""

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
    """Return (a, b, c, d), each -1, 0 or 1: pixel (x, y) of the frame is displayed at (a x + c y, b x + d y)."""
    # Not frame.side_data: before PyAV 19 it creates a reference cycle, which keeps the frame until it is collected.
    container: Any = SideDataContainer  # its type hints lack the argument
    data = container(frame).get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    numbers = np.frombuffer(bytes(data), np.int32).astype(np.float64).reshape(3, 3)[:2, :2]
    a, b, c, d = (numbers / max(1.0, np.abs(numbers).max())).round().astype(int).ravel().tolist()
    return (a, b, c, d) if abs(a * d - b * c) == 1 else (1, 0, 0, 1)


def turn_upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Rotate and mirror a picture, (height, width, 3), as display_matrix() says; the result is C-contiguous."""
    a, b, c, d = matrix
    if a == 0:  # x and y are swapped
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1])
