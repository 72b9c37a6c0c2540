"""Check the pictures that OpenCV decodes against PyAV's."""

import contextlib
from collections.abc import Iterable, Iterator

import av
import numpy as np
from av.video.frame import VideoFrame

from syncnet.media.open_media import container_kind, picture_stream, tick
from syncnet.media.timeline import DECODING_TIMES
from syncnet.media.video_facts import (
    FRAMES_MISSING,
    INTERLACED,
    NO_DECODER,
    OTHER_PICTURE,
    VideoError,
    allowed_lateness,
    as_bgr,
    difference,
    open_container,
    probe,
)
from syncnet.media.video_pass import FRAME

STILL = 0.5  # mean pixel difference up to which a picture counts as a repeat of the one before


class DecodeCheck:
    """Compares OpenCV's pictures of a video with PyAV's, in order.

    turned: whether OpenCV rotates the pictures, which PyAV does not. Raises VideoError if the file cannot be used for
    training for any reason except its frame size.
    """

    def __init__(self, path: str, turned: bool) -> None:
        self.turned = turned
        self.facts = probe(path)
        self.facts.check(allow_resize=True)
        self._container = open_container(path)
        stream = picture_stream(self._container)
        assert stream is not None  # probe() raises if there is none
        self._stream = stream
        self._stream.codec_context.thread_count = 1
        self._pictures = self._decode()
        self._position = 0
        self._truth = np.empty(0)  # PyAV's version of the picture compared last

    def close(self) -> None:
        self._container.close()

    def compare(self, first: int, pictures: Iterable[np.ndarray]) -> None:
        """Raise VideoError unless `pictures`, (height, width, 3) uint8 BGR, are the frames starting at `first`."""
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
        if picture.pts is not None and container_kind(self._container) not in DECODING_TIMES:
            time = float(picture.pts * tick(self._stream)) - self.facts.start
            if abs(time - number * FRAME) > allowed_lateness(time, self.facts.step):
                raise VideoError(FRAMES_MISSING, f"{path}: frame {number} or one before it cannot be decoded")
        self._truth = as_bgr(picture, found)
        stale = (
            before is not None and (before == found).all() and difference(self._truth, truth_before) > STILL
        )
        if stale or (not self.turned and difference(self._truth, found) > OTHER_PICTURE):
            raise VideoError(NO_DECODER, f"{path}: OpenCV decodes frame {number} to another picture")

    def _next(self) -> VideoFrame:
        picture = next(self._pictures, None)
        if picture is None:
            raise VideoError(
                FRAMES_MISSING, f"{self.facts.path}: only {self._position} frames can be decoded"
            )
        self._position += 1
        return picture

    def _decode(self) -> Iterator[VideoFrame]:
        for packet in self._container.demux(self._stream):
            with contextlib.suppress(av.error.FFmpegError):
                yield from packet.decode()
