"""The pictures of a clip, read in order with OpenCV straight into the memory of their batch.

OpenCV says that all is well when it is not: a picture that it cannot convert (an interlaced one, since 4.13)
is left as whatever the memory held, and one that cannot be decoded is passed over, so that all later ones
come a frame early. Both leave traces that cost nothing to look for; where there is one, the file is decoded
again with PyAV, which tells the truth, and the clip is refused unless it is the same.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from syncnet.media.clips import FPS, FRAME_SIZE, MediaError
from syncnet.media.open_video import DRIFT, ROUNDING, cv2, open_video  # cv2 as set up there

if TYPE_CHECKING:
    from syncnet.media.decode_check import TruePictures

ROWS = slice(8, None, 56)  # of a picture, to compare two quickly


def repeats(pictures: np.ndarray, before: np.ndarray | None) -> bool:
    """Is one of (T, height, width, 3) uint8 the same as the one before it, to the bit?

    before: the picture before the first one. What OpenCV cannot convert comes out as the picture before it.
    """
    if before is not None and (before[ROWS] == pictures[0, ROWS]).all() and (before == pictures[0]).all():
        return True
    rows = pictures[:, ROWS]
    same = (rows[1:] == rows[:-1]).all((1, 2, 3)).nonzero()[0]
    return any((pictures[k] == pictures[k + 1]).all() for k in same)


def read_frames(path: str, first: int, out: np.ndarray, allow_resize: bool = False) -> None:
    """Decode len(out) consecutive frames of `path`, from frame number `first` (0-based), into `out`.

    out: (T, FRAME_SIZE, FRAME_SIZE, 3) uint8, C-contiguous, filled in OpenCV's BGR order.
    allow_resize: scale frames of another size instead of refusing them.
    Raises MediaError when the video does not open, ends early, has frames of another size, or pictures that
    are not those of the file at 25 frames a second.
    """
    with FrameReader(path, allow_resize) as reader:
        reader.read(first, out)


def mirror(frames: np.ndarray) -> None:
    """Mirror (T, H, W, 3) uint8 frames, left to right, in place."""
    for frame in frames:
        cv2.flip(frame, 1, dst=frame)


class FrameReader:
    """Reads a video once, from its beginning to its end. Raises MediaError, as read_frames."""

    def __init__(self, path: str, allow_resize: bool = False) -> None:
        self.path = path
        self.allow_resize = allow_resize
        self.position = 0  # number of the frame that comes next
        self._video = open_video(path)
        self._last: np.ndarray | None = None  # the picture before the next one
        self._off_time = False  # was a picture shown at another time than its number says?
        self._truth: TruePictures | None = None

    def __enter__(self) -> "FrameReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._video.release()
        if self._truth:
            self._truth.close()

    def read(self, first: int, out: np.ndarray) -> None:
        """Decode frames `first` ... first + len(out) - 1 into `out`; `first` is at least `position`."""
        if first < self.position:
            raise ValueError(f"frame {first} was asked for after frame {self.position - 1}")
        # Grabbing decodes in order, so it is exact whatever the key frames; it only skips the
        # conversion to BGR. VoxCeleb2 has a key frame every 250 frames: seeking would not be faster.
        while self.position < first - 1:
            if not self._video.grab():
                raise self._ended(f"frame {first} was asked for")
            self.position += 1
        expected = f"{first + len(out)} were expected; make the list again with makeFileList.py"
        if self.position < first:
            self._last = np.empty((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
            self._read(self._last, expected)
        for slot in out:
            self._read(slot, expected)
        if not len(out):
            return
        if self._off_time:
            self._prove(first, out)
        elif self._last is None:  # what the first picture of all came out as, nothing tells
            self._prove(first, out if repeats(out, None) else out[:1])
        elif repeats(out, self._last):
            self._prove(first - 1, [self._last, *out])
        self._last = out[-1].copy()

    def _prove(self, first: int, pictures: Iterable[np.ndarray]) -> None:
        """Raise MediaError unless these are the frames from `first` on, shown at 25 a second."""
        from syncnet.media.decode_check import (
            TruePictures,  # PyAV takes a while to import, and is rarely needed
        )

        if self._truth is None:
            turned = self._video.get(cv2.CAP_PROP_ORIENTATION_META) != 0
            self._truth = TruePictures(self.path, turned)
        self._truth.compare(first, pictures)

    def _read(self, slot: np.ndarray, expected: str) -> None:
        """Decode the next frame into `slot`."""
        ok, frame = self._video.read(slot)
        if not ok:
            raise self._ended(expected)
        if frame.shape != slot.shape:
            if not self.allow_resize:
                raise MediaError(
                    f"{self.path}: frames are {frame.shape[1]}x{frame.shape[0]}, "
                    f"expected a {FRAME_SIZE}x{FRAME_SIZE} face track; makeFaceTracks.py makes tracks of any video "
                    "(--allow_resize scales one that is cropped to a face)"
                )
            cv2.resize(frame, (FRAME_SIZE, FRAME_SIZE), dst=slot, interpolation=cv2.INTER_AREA)
        elif frame is not slot:
            slot[:] = frame
        time = self._video.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if abs(time - self.position / FPS) > ROUNDING + DRIFT * time:
            self._off_time = True
        self.position += 1

    def _ended(self, expected: str) -> MediaError:
        """Why no picture came, as an error to raise."""
        from syncnet.media.video_facts import probe

        try:
            probe(self.path).check(allow_resize=True)
        except MediaError as error:
            return error
        return MediaError(f"{self.path}: ends after {self.position} frames, {expected}")
