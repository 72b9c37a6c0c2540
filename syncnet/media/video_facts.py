"""Check whether a video can be used as a face track, with the same result and remedy in all commands.

probe() reads the packets with PyAV, or decodes every picture; VideoFacts.check() says why a file cannot be used.
"""

from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame

from syncnet.media.clips import FPS, FRAME_SIZE, MediaError
from syncnet.media.open_media import (
    HDR_TRANSFERS,
    ONE_THREAD,
    NotMediaError,
    open_media,
    picture_stream,
    tick,
)
from syncnet.media.open_video import first_picture
from syncnet.media.video_pass import FRAME, VideoPass, codec_name
from syncnet.support.tar_members import file_size, is_file

ROUNDING, MAX_ROUNDING = 0.005, 0.01  # seconds of error allowed in a time stamp
DRIFT = 0.0004  # fraction of the elapsed time: one frame in 100 s, as at 25.01 frames per second
OTHER_PICTURE = 24  # mean pixel difference; the same picture from two decoders differs by less

REWRITE = "ffmpeg -i in.mp4 -vf yadif=deint=interlaced,fps=25 -c:v libx264 -crf 18 -af apad -shortest out.mp4"
REWRITTEN = f"rewrite it: {REWRITE}, then run convertAudio.py again"
MAKE_TRACKS = "make face tracks of it: python makeFaceTracks.py --src my_videos --dst my_tracks"
OR_TRACKS = f"; or, if it is not cropped to a face, {MAKE_TRACKS}"
OR_REWRITE = f"{MAKE_TRACKS}; or, if it is cropped to a face, {REWRITTEN}"

EMPTY = "mp4 empty"
NOT_OPENED = "mp4 cannot be opened"
NO_VIDEO = "mp4 without video"
NO_DECODER = "cannot be decoded here"
INTERLACED = "interlaced"
CHANGES = "pictures of different kinds"
OTHER_STREAM = "several video streams"
HDR = "HDR pictures"
OTHER_RATE = "not 25 frames a second"
VARIABLE_RATE = "variable frame rate"
OTHER_SIZE = "not 224x224"
FRAMES_MISSING = "frames missing"
# Reason why a video cannot be used -> what to do about it.
REMEDIES = {
    EMPTY: "copy it again, or recreate it",
    NOT_OPENED: "cut off, damaged, or not a video: copy it again, or recreate it",
    NO_VIDEO: "the file has no video stream: recreate it, or remove it",
    NO_DECODER: f"this OpenCV cannot decode it; {REWRITTEN}{OR_TRACKS}",
    INTERLACED: f"each picture is two half pictures; {REWRITTEN}{OR_TRACKS}",
    CHANGES: f"OpenCV expects one size and format; {REWRITTEN}{OR_TRACKS}",
    OTHER_STREAM: "write a file with that stream only: ffmpeg with -map 0:v:N -map 0:a? -c copy, N being its number",
    HDR: f"OpenCV shows them too dark; {MAKE_TRACKS}, which converts them to SDR",
    OTHER_RATE: OR_REWRITE,
    VARIABLE_RATE: f"sound and picture drift apart; {OR_REWRITE}",
    OTHER_SIZE: f"{MAKE_TRACKS}; or, if it is cropped to a face, scale it with --allow_resize",
    FRAMES_MISSING: "cut off or damaged: copy it again, or recreate it",
}


class VideoError(MediaError):
    """The video cannot be used. reason: a key of REMEDIES. detail: the file and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail}. {REMEDIES[reason][0].upper()}{REMEDIES[reason][1:]}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, eq=False)
class VideoFacts:
    """The result of probe(). times: (frames,) presentation time of each picture in seconds after the first one.

    codec: FFmpeg's name. size: (width, height) as stored. start: time of the first picture on the file's clock.
    hdr: HLG or PQ, which OpenCV does not tone-map. missing: the part of the file that is missing, or "". step: the
    container's time stamp resolution in seconds.
    """

    path: str
    codec: str
    decodable: bool  # by OpenCV, which training uses
    interlaced: bool
    changes: bool  # size or pixel format changes within the file
    hdr: bool
    size: tuple[int, int]
    start: float
    times: np.ndarray
    missing: str
    step: float

    @property
    def frames(self) -> int:
        """The number of pictures that are shown, regardless of what the header declares."""
        return len(self.times)

    def check(self, allow_resize: bool = False) -> None:
        """Raise VideoError unless the video can be used for training: complete, 25 frames per second, 224x224."""
        if not self.decodable:
            raise VideoError(NO_DECODER, f"{self.path}: cannot decode {self.codec.upper()}")
        if self.missing:
            raise VideoError(FRAMES_MISSING, f"{self.path}: {self.missing}")
        if self.interlaced:
            raise VideoError(INTERLACED, f"{self.path}: its pictures are interlaced")
        if self.changes:
            raise VideoError(CHANGES, f"{self.path}: its pictures change their size or pixel format")
        if self.hdr:
            raise VideoError(HDR, f"{self.path}: its pictures are in HDR")
        self._check_times()
        check_size(self.path, self.size, allow_resize)

    def _check_times(self) -> None:
        """Raise VideoError unless frame i is shown at i / 25 s, within the precision of the container."""
        late = self.times - np.arange(self.frames) * FRAME
        off = np.abs(late) > allowed_lateness(self.times, self.step)
        if not off.any():
            return
        steps = np.diff(self.times)
        if np.ptp(steps) < FRAME / 4:
            rate = (self.frames - 1) / self.times[-1]
            raise VideoError(OTHER_RATE, f"{self.path}: {rate:.5g} frames per second, expected {FPS}")
        first = int(off.argmax())
        raise VideoError(
            VARIABLE_RATE,
            f"{self.path}: frame {first} is shown at {self.times[first]:.3f} s, not at {first * FRAME:.2f} s",
        )


def check_size(path: str, size: tuple[int, int], allow_resize: bool) -> None:
    """Raise VideoError if pictures of this (width, height) cannot be used for training."""
    if size != (FRAME_SIZE, FRAME_SIZE) and not allow_resize:
        raise VideoError(OTHER_SIZE, f"{path}: {size[0]}x{size[1]} pixels")


def allowed_lateness(time: np.ndarray | float, step: float = 0.0) -> np.ndarray | float:
    """Return the seconds by which a frame may deviate from its nominal `time` in a video of 25 frames per second.

    step: the container's time stamp resolution in seconds. The result is at most half a frame: beyond that, another
    picture would be closer.
    """
    return np.minimum(max(ROUNDING, min(step, MAX_ROUNDING)) + DRIFT * np.abs(time), FRAME / 2)


def open_container(path: str) -> InputContainer:
    """Open a video by its content. The caller closes it. Raises VideoError if it does not open or has no video."""
    if not is_file(path):
        raise MediaError(f"{path}: no such video")
    if file_size(path) == 0:
        raise VideoError(EMPTY, f"{path}: 0 bytes")
    try:
        container = open_media(path)
    except NotMediaError as error:
        raise VideoError(NOT_OPENED, error.found) from None
    picture = picture_stream(container)
    if picture is None:
        container.close()
        raise VideoError(NO_VIDEO, f"{path}: no video stream in it")
    number = container.streams.video.index(picture)
    if number > 0 and not container.streams.video[0].disposition & av.stream.Disposition.attached_pic:
        container.close()
        raise VideoError(
            OTHER_STREAM, f"{path}: players show video stream {number}, OpenCV stream 0, such as a thumbnail"
        )
    return container


def probe(path: str, decode: bool = False) -> VideoFacts:
    """Examine a video file: its packets and first picture, or with `decode`, every picture.

    Without `decode`, this is about 12 times faster, but misses damaged pictures, and interlaced ones if the first is
    progressive; the result for intact files is the same. Raises VideoError if the file cannot be opened.
    """
    with open_container(path) as container:
        stream = picture_stream(container)
        context = stream.codec_context if stream else None
        if stream is None or context is None:  # PyAV has more decoders than OpenCV
            raise VideoError(NO_DECODER, f"{path}: cannot decode its pictures")
        context.thread_count = 1  # clips are checked in parallel
        codec = codec_name(stream)
        kind = (container.format.name, codec, context.pix_fmt, context.profile, context.width, context.height)
        order = getattr(context, "field_order", 0)  # 0: unknown, 1: progressive, others: interlaced
        needs_picture = decode or order == 0 or kind not in _shown_by_opencv
        seen = VideoPass(container, stream, decode, needs_picture)
        if not decode and not seen.reordered and getattr(context, "has_b_frames", False):
            return probe(path, decode=True)  # the display order is known only after decoding
        decodable = True  # a file with no decodable picture is reported as damaged
        if seen.picture and kind not in _shown_by_opencv:
            decodable = opencv_shows(path, seen.picture)
            if decodable:
                _shown_by_opencv.add(kind)
        start, times = seen.times()
        return VideoFacts(
            path=path,
            codec=codec,
            decodable=decodable,
            interlaced=order > 1 or seen.interlaced,
            changes=seen.changes,
            hdr=context.color_trc in HDR_TRANSFERS,
            size=(context.width, context.height),
            start=start,
            times=times,
            missing=seen.missing(),
            step=float(tick(stream)),
        )


_shown_by_opencv: set[tuple] = set()  # kinds of videos that OpenCV has decoded correctly


def opencv_shows(path: str, picture: VideoFrame) -> bool:
    """Return whether OpenCV decodes the first picture of a video as PyAV did."""
    try:
        shown, turned = first_picture(path)
    except MediaError:  # only PyAV can open it
        return False
    if shown is None or turned or picture.interlaced_frame:
        return shown is not None
    return difference(as_bgr(picture, shown), shown) <= OTHER_PICTURE


def as_bgr(picture: VideoFrame, like: np.ndarray) -> np.ndarray:
    """Convert PyAV's picture to uint8 BGR, scaled to the size of `like`: (height, width, 3)."""
    return picture.to_ndarray(format="bgr24", width=like.shape[1], height=like.shape[0], **ONE_THREAD)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean absolute difference of two uint8 pictures, computed on every fourth row."""
    return float(np.abs(one[::4].astype(np.int16) - other[::4]).mean())
