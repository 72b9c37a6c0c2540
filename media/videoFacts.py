"""What is true of a video file, whatever its name and its header say: the one judge of face tracks.

probe() looks at the packets, or decodes every picture, with PyAV; VideoFacts.check() says why a file cannot
be used, in the same words and with the same remedy for list making, training and inference.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from media.clips import FPS, FRAME_SIZE, MediaError
from media.content import MP4, content
from media.video import CONTAINERS, FRAME, allowed_lateness, first_picture

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

VP8_SHOWN = 0x10  # bit of a VP8 frame's first byte; others only serve to predict from
CUT_OFF = 0.1  # seconds missing at the end, where the header has the length of the longest track only
OTHER_PICTURE = 24  # mean difference of pixels; two conversions of one picture differ by less
STILL = 0.5  # mean difference of pixels; up to here a picture is the one before it

REWRITE = "ffmpeg -i in.mp4 -vf yadif=deint=interlaced,fps=25 -c:v libx264 -crf 18 -af apad -shortest out.mp4"
REWRITTEN = f"rewrite it: {REWRITE}, then run convertAudio.py again"
MAKE_TRACKS = "make face tracks of it: python makeFaceTracks.py --src my_videos --dst my_tracks"

EMPTY = "mp4 empty"
NOT_OPENED = "mp4 cannot be opened"
NO_VIDEO = "mp4 without video"
NO_DECODER = "cannot be decoded here"
INTERLACED = "interlaced"
CHANGES = "pictures of different kinds"
OTHER_RATE = "not 25 frames a second"
VARIABLE_RATE = "variable frame rate"
OTHER_SIZE = "not 224x224"
FRAMES_MISSING = "frames missing"
# Why a video cannot be used -> what to do about it.
REMEDIES = {
    EMPTY: "copy or make it again",
    NOT_OPENED: "cut off, damaged, or no video file: copy or make it again",
    NO_VIDEO: "the file has no video stream: make it again, or take it out",
    NO_DECODER: f"this OpenCV has no decoder for it; {REWRITTEN}",
    INTERLACED: f"a picture is two half pictures; {REWRITTEN}",
    CHANGES: f"OpenCV expects one size and format; {REWRITTEN}",
    OTHER_RATE: f"{MAKE_TRACKS}; or, where it is cropped to a face, {REWRITTEN}",
    VARIABLE_RATE: f"sound and picture drift apart; {MAKE_TRACKS}; or, where it is cropped to a face, {REWRITTEN}",
    OTHER_SIZE: f"{MAKE_TRACKS}; or, where it is cropped to a face, scale it with --allow_resize",
    FRAMES_MISSING: "cut off or damaged: copy or make it again",
}


class VideoError(MediaError):
    """A video that cannot be used. `reason`: a key of REMEDIES; `detail`: the file, and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail}. {REMEDIES[reason][0].upper()}{REMEDIES[reason][1:]}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class VideoFacts:
    """What probe() found. `times`: (frames,) seconds at which each picture is shown, from the first one on.

    codec: FFmpeg's name. size: (width, height) as stored. start: time of the first picture on the file's clock.
    missing: what of the file is not there, or "". step: seconds between two time stamps that the container
    can tell apart.
    """

    path: str
    codec: str
    decodable: bool  # by the OpenCV that training reads with
    interlaced: bool
    changes: bool  # of size or pixel format, on the way
    size: tuple[int, int]
    start: float
    times: np.ndarray
    missing: str
    step: float

    @property
    def frames(self) -> int:
        """Pictures that are shown: what is read, whatever number the header has."""
        return len(self.times)

    def check(self, allow_resize: bool = False) -> None:
        """Raise VideoError unless this is a face track to train on: whole, 25 frames a second, 224x224."""
        if not self.decodable:
            raise VideoError(NO_DECODER, f"{self.path}: cannot decode {self.codec.upper()}")
        if self.missing:
            raise VideoError(FRAMES_MISSING, f"{self.path}: {self.missing}")
        if self.interlaced:
            raise VideoError(INTERLACED, f"{self.path}: its pictures are interlaced")
        if self.changes:
            raise VideoError(CHANGES, f"{self.path}: its pictures change their size or pixel format")
        self._check_times()
        if self.size != (FRAME_SIZE, FRAME_SIZE) and not allow_resize:
            raise VideoError(OTHER_SIZE, f"{self.path}: {self.size[0]}x{self.size[1]} pixels")

    def _check_times(self) -> None:
        """Raise VideoError unless frame i is shown at i / 25 s, as exactly as the container can say it."""
        late = self.times - np.arange(self.frames) * FRAME
        off = np.abs(late) > allowed_lateness(self.times, self.step)
        if not off.any():
            return
        steps = np.diff(self.times)
        if np.ptp(steps) < FRAME / 4:
            rate = (self.frames - 1) / self.times[-1]
            raise VideoError(OTHER_RATE, f"{self.path}: {rate:.5g} frames a second, the network knows {FPS}")
        first = int(off.argmax())
        raise VideoError(
            VARIABLE_RATE,
            f"{self.path}: frame {first} is shown at {self.times[first]:.3f} s, not at {first * FRAME:.2f} s",
        )


def open_container(path: str) -> InputContainer:
    """Open a film by its content. Raises VideoError where it cannot be opened or has no video; close it."""
    import av  # here and below: training on intact files does without it

    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such video")
    size = os.path.getsize(path)
    if size == 0:
        raise VideoError(EMPTY, f"{path}: 0 bytes")
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        # Asking every demuxer takes a while, so that VoxCeleb2's kind goes straight to its own. The options are
        # the container's alone: PyAV before 16 crashes if streams that turn up later are to have them as well.
        kind = "mp4" if content(path) == MP4 else None
        container = av.open(
            os.path.abspath(path), format=kind, container_options=options, metadata_errors="replace"
        )
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise VideoError(
            NOT_OPENED, f"{path}: cannot be opened as a video ({reason}; {size} bytes)"
        ) from None
    if not container.streams.video:
        container.close()
        raise VideoError(NO_VIDEO, f"{path}: no video stream in it")
    return container


def probe(path: str, decode: bool = False) -> VideoFacts:
    """The facts of a video file, from its packets and its first picture, or from decoding every picture.

    Without `decode`, about 12 times faster, damaged pictures are not noticed, nor those that are interlaced
    after a first one that is not; for intact files the facts are the same. Raises VideoError for a file that
    cannot be opened at all.
    """
    with open_container(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:  # PyAV has more decoders than OpenCV
            raise VideoError(NO_DECODER, f"{path}: cannot decode its pictures")
        context.thread_count = 1  # clips are looked at side by side instead
        codec = codec_name(stream)
        kind = (container.format.name, codec, context.pix_fmt, context.profile, context.width, context.height)
        order = getattr(context, "field_order", 0)  # 0: not known, 1: progressive, others: interlaced
        look = Look(decode, needs_picture=decode or order == 0 or kind not in _shown_by_opencv)
        look.at(container, stream)
        if not decode and not look.reordered and getattr(context, "has_b_frames", 0):
            return probe(path, decode=True)  # only the pictures tell in which order they are shown
        decodable = True  # where nothing can be decoded, the file is to blame
        if look.picture and kind not in _shown_by_opencv:
            decodable = opencv_shows(path, look.picture)
            if decodable:
                _shown_by_opencv.add(kind)
        start, times = look.times(stream)
        return VideoFacts(
            path=path,
            codec=codec,
            decodable=decodable,
            interlaced=order > 1 or look.interlaced,
            changes=look.changes,
            size=(context.width, context.height),
            start=start,
            times=times,
            missing=look.missing(container, stream),
            step=float(stream.time_base),
        )


_shown_by_opencv: set[tuple] = set()  # kinds of videos of which another file's picture came out right


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's name of the codec; PyAV has that of the decoder."""
    decoder = stream.codec_context.name
    return "av1" if decoder == "libdav1d" else decoder


def opencv_shows(path: str, picture: VideoFrame) -> bool:
    """Does OpenCV decode the first picture of a video, and to what PyAV decoded it to?"""
    try:
        shown, turned = first_picture(path)
    except MediaError:  # PyAV opened it
        return False
    if shown is None or turned or picture.interlaced_frame:
        return shown is not None
    return difference(as_bgr(picture, shown), shown) <= OTHER_PICTURE


def as_bgr(picture: VideoFrame, like: np.ndarray) -> np.ndarray:
    """What PyAV decoded as uint8 BGR, scaled to the size of another picture: (height, width, 3)."""
    return picture.to_ndarray(format="bgr24", width=like.shape[1], height=like.shape[0])


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two uint8 pictures, from a quarter of their rows."""
    return float(np.abs(one[::4].astype(np.int16) - other[::4]).mean())


def shape_of(picture: VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name


class Look:
    """One pass over a video: the packets, and the pictures that were decoded on the way."""

    def __init__(self, decode: bool, needs_picture: bool) -> None:
        self.decode = decode
        self.needs_picture = needs_picture
        self.picture: VideoFrame | None = None  # the first one
        self.interlaced = False
        self.changes = False  # of size or pixel format
        self.reordered = False  # do packets say that they are shown in another order than decoded?
        self._packets = 0
        self._shown: list[int | None] = []  # time stamps of the packets that an edit list does not hide
        self._decoded: list[int | None] = []  # time stamps of pictures
        self._refused = 0  # packets by the decoder
        self._end = 0.0  # seconds
        self._broken = ""

    def at(self, container: InputContainer, stream: VideoStream) -> None:
        """Look at every packet. Where only the file as a whole has a length, the sound counts for it too."""
        import av

        streams = [stream] if stream.duration else [stream, *container.streams.audio]
        ends = {one.index: 0 for one in streams}
        vp8 = codec_name(stream) == "vp8"
        try:
            for packet in container.demux(streams):
                shown = (
                    packet.size
                    and not packet.is_discard
                    and not (vp8 and memoryview(packet)[0] & VP8_SHOWN == 0)
                )
                stamp = packet.dts if packet.pts is None else packet.pts
                if shown and stamp is not None:
                    ends[packet.stream_index] = max(ends[packet.stream_index], stamp + (packet.duration or 0))
                if packet.stream_index != stream.index:
                    continue
                if packet.is_corrupt:
                    self._broken = f"frame {len(self._shown)} is cut off"
                if shown:
                    self._shown.append(stamp)
                self._packets += packet.size > 0
                self.reordered = self.reordered or packet.pts != packet.dts
                if self.decode or (self.needs_picture and self.picture is None):
                    self._decode(packet)
        except av.error.FFmpegError as error:
            self._broken = f"broken after {len(self._shown)} frames ({error.strerror})"
        self._end = max(float(ends[one.index] * one.time_base) for one in streams)

    def _decode(self, packet: Packet) -> None:
        import av

        try:
            pictures = packet.decode()
        except av.error.FFmpegError:  # a picture too few is noticed afterwards
            self._refused += 1
        else:
            for picture in pictures:
                self.picture = self.picture or picture
                self.interlaced = self.interlaced or picture.interlaced_frame
                self._decoded.append(picture.pts)
                if shape_of(picture) != shape_of(self.picture):
                    self.changes = True
                if picture.is_corrupt:
                    self._broken = f"frame {len(self._decoded) - 1} is damaged"

    def times(self, stream: VideoStream) -> tuple[float, np.ndarray]:
        """When the first picture is shown, and all of them after it: seconds, (frames,) float64 seconds."""
        # Pictures come in the order in which they are shown, packets in that in which they are decoded.
        in_order = self.decode and None not in self._decoded
        stamps = self._decoded if in_order else self._shown
        if None in stamps:  # a container without time stamps
            return 0.0, np.arange(len(stamps)) / float(stream.average_rate or FPS)
        if not stamps:
            return 0.0, np.empty(0)
        times = np.array(stamps if in_order else sorted(stamps), np.float64) * float(stream.time_base)
        return float(times[0]), times - times[0]

    def _all_decoded(self, stream: VideoStream) -> bool:
        """Has every frame that is shown become a picture? Some codecs have packets that show nothing."""
        if len(self._decoded) == len(self._shown):
            return True
        if self._refused or not self._decoded or None in self._decoded or None in self._shown:
            return False
        ends = (min(self._decoded), max(self._decoded)) == (min(self._shown), max(self._shown))
        steps = np.diff(np.sort(self._decoded)) * float(stream.time_base)
        return ends and bool((steps < 1.5 * FRAME).all())

    def missing(self, container: InputContainer, stream: VideoStream) -> str:
        """What of the file is not there, or ""."""
        found = len(self._shown)
        if self._broken or not found:
            return self._broken or "no frames in it"
        if self.decode and not self._all_decoded(stream):
            return f"{len(self._decoded)} frames can be decoded, {found} are in it"
        if stream.frames and self._packets >= stream.frames:
            return ""
        kind = container.format.name
        if kind.startswith("mov"):  # says when a track ends, edit lists considered
            if stream.duration:
                start = (
                    stream.start_time if stream.frames and stream.start_time else 0
                )  # a fragmented file's differ
                end = float((start + stream.duration) * stream.time_base)
                if end - self._end > FRAME / 2:
                    return f"{found} frames found, it ends {end - self._end:.2f} s before its declared end"
        elif kind == "avi":  # counts frames, and one or two that stand for "as before"
            if stream.average_rate == FPS and stream.frames - self._packets > 2:
                return f"{self._packets} frames found, {stream.frames} declared"
        elif not stream.duration and container.duration:
            end = container.duration / 1e6
            if end - self._end > CUT_OFF:
                return f"{found} frames found, it ends {end - self._end:.2f} s before its declared end"
        return ""


class TruePictures:
    """PyAV's pictures of a video, once through: what OpenCV's are held against.

    turned: OpenCV turns the pictures upright, PyAV does not.
    Raises VideoError when the file as a whole is not fit for training, whatever the size of its pictures.
    """

    def __init__(self, path: str, turned: bool) -> None:
        self.turned = turned
        self.facts = probe(path)
        self.facts.check(allow_resize=True)
        self._container = open_container(path)
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1
        self._pictures = self._decode()
        self._position = 0
        self._truth = np.empty(0)  # the picture before that position, where it was looked at

    def close(self) -> None:
        self._container.close()

    def compare(self, first: int, pictures: Sequence[np.ndarray]) -> None:
        """Raise VideoError unless `pictures`, (height, width, 3) uint8 BGR each, are the frames from `first` on."""
        before = None
        for number, found in enumerate(pictures, first):
            if number >= self._position:
                self._check(number, found, before)
            before = found

    def _check(self, number: int, found: np.ndarray, before: np.ndarray | None) -> None:
        while self._position < number:
            self._next()
        picture, truth_before = self._next(), self._truth
        path = self.facts.path
        if picture.interlaced_frame:
            raise VideoError(INTERLACED, f"{path}: frame {number} is interlaced")
        if picture.pts is not None:
            time = float(picture.pts * self._stream.time_base) - self.facts.start
            if abs(time - number * FRAME) > allowed_lateness(time, self.facts.step):
                raise VideoError(FRAMES_MISSING, f"{path}: frame {number} or one before it cannot be decoded")
        self._truth = as_bgr(picture, found)
        stale = (
            before is not None and (before == found).all() and difference(self._truth, truth_before) > STILL
        )
        if stale or (not self.turned and difference(self._truth, found) > OTHER_PICTURE):
            raise VideoError(NO_DECODER, f"{path}: OpenCV does not show frame {number} as it is")

    def _next(self) -> VideoFrame:
        picture = next(self._pictures, None)
        if picture is None:
            raise VideoError(
                FRAMES_MISSING, f"{self.facts.path}: only {self._position} frames can be decoded"
            )
        self._position += 1
        return picture

    def _decode(self) -> Iterator[VideoFrame]:
        import av

        for packet in self._container.demux(self._stream):
            with contextlib.suppress(av.error.FFmpegError):
                yield from packet.decode()
