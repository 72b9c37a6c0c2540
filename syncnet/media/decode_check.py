"""The pictures of a video as PyAV decodes them, which those of OpenCV are held against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from syncnet.media.open_video import FRAME, allowed_lateness
from syncnet.media.streams import DECODING_TIMES, picture_stream, tick
from syncnet.media.video_facts import (
    FRAMES_MISSING,
    INTERLACED,
    NO_DECODER,
    OTHER_PICTURE,
    VideoError,
    as_bgr,
    difference,
    open_container,
    probe,
)

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

STILL = 0.5  # mean difference of pixels; up to here a picture is the one before it


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
        stream = picture_stream(self._container)
        assert stream is not None  # probe() has looked
        self._stream = stream
        self._stream.codec_context.thread_count = 1
        self._pictures = self._decode()
        self._position = 0
        self._truth = np.empty(0)  # the picture before that position, where it was looked at

    def close(self) -> None:
        self._container.close()

    def compare(self, first: int, pictures: Iterable[np.ndarray]) -> None:
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
        if picture.pts is not None and self._container.format.name not in DECODING_TIMES:
            time = float(picture.pts * tick(self._stream)) - self.facts.start
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
