"""Decode the frames of a clip with OpenCV, in order, directly into the memory of a batch.

OpenCV may report success although it has failed. If it cannot convert a picture (an interlaced one, since 4.13), the
buffer keeps its old contents; if it cannot decode one, it drops it, and all later ones come one frame early. Both
leave traces that cost nothing to check. If there is one, PyAV decodes the file again, and the clip is refused unless
both decoders agree.
"""

from collections.abc import Iterable

import numpy as np

from syncnet.media.clips import FPS, FRAME_SIZE, MediaError
from syncnet.media.decode_check import DecodeCheck
from syncnet.media.open_video import cv2, open_video
from syncnet.media.video_facts import DRIFT, ROUNDING, probe

ROWS = slice(8, None, 56)  # rows used for a quick comparison of pictures


def repeats(pictures: np.ndarray, before: np.ndarray | None) -> bool:
    """Return whether any of (T, height, width, 3) uint8 pictures is identical to the previous one.

    before: the picture before the first one. A picture that OpenCV cannot convert repeats the previous one.
    """
    if before is not None and (before[ROWS] == pictures[0, ROWS]).all() and (before == pictures[0]).all():
        return True
    rows = pictures[:, ROWS]
    same = (rows[1:] == rows[:-1]).all((1, 2, 3)).nonzero()[0]
    return any((pictures[k] == pictures[k + 1]).all() for k in same)


def read_frames(path: str, first: int, out: np.ndarray, allow_resize: bool = False) -> None:
    """Decode len(out) consecutive frames of `path`, starting at frame `first` (0-based), into `out`.

    out: (T, FRAME_SIZE, FRAME_SIZE, 3) uint8, C-contiguous, filled in BGR order.
    allow_resize: scale frames of another size instead of refusing them.
    Raises MediaError if the video does not open, ends early, has another frame size, does not have 25 frames per
    second, or if OpenCV does not decode it correctly.
    """
    with FrameReader(path, allow_resize) as reader:
        reader.read(first, out)


def flip_frames(frames: np.ndarray) -> None:
    """Flip (T, H, W, 3) uint8 frames horizontally, in place."""
    for frame in frames:
        cv2.flip(frame, 1, dst=frame)


class FrameReader:
    """Reads a video once, from beginning to end. Raises MediaError as read_frames does.

    bilinear: scale frames of another size by bilinear interpolation instead of area averaging.
    """

    def __init__(self, path: str, allow_resize: bool = False, bilinear: bool = False) -> None:
        self.path = path
        self.allow_resize = allow_resize
        self._scaling = cv2.INTER_LINEAR if bilinear else cv2.INTER_AREA
        self.position = 0  # number of the next frame
        self._video = open_video(path)
        self._last: np.ndarray | None = None  # the picture before the next one
        self._off_time = False  # True if the time stamp of a picture did not match its frame number
        self._check: DecodeCheck | None = None

    def __enter__(self) -> "FrameReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._video.release()
        if self._check:
            self._check.close()

    def read(self, first: int, out: np.ndarray) -> None:
        """Decode frames `first` ... first + len(out) - 1 into `out`; `first` must be at least `position`."""
        if first < self.position:
            raise ValueError(f"frame {first} was requested after frame {self.position - 1}")
        # Grabbing decodes in order and skips only the conversion to BGR, so it is exact wherever the key frames
        # are. VoxCeleb2 has a key frame every 250 frames: seeking would not be faster.
        while self.position < first - 1:
            if not self._video.grab():
                raise self._ended(f"frame {first} was requested")
            self.position += 1
        expected = f"{first + len(out)} were expected; recreate the list with makeFileList.py"
        if self.position < first:
            self._last = np.empty((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
            self._read(self._last, expected)
        for slot in out:
            self._read(slot, expected)
        if not len(out):
            return
        if self._off_time:
            self._prove(first, out)
        elif self._last is None:  # the first picture of the file has no previous one
            self._prove(first, out if repeats(out, None) else out[:1])
        elif repeats(out, self._last):
            self._prove(first - 1, [self._last, *out])
        self._last = out[-1].copy()

    def _prove(self, first: int, pictures: Iterable[np.ndarray]) -> None:
        """Raise MediaError unless these are the frames starting at `first`, shown at 25 per second."""
        if self._check is None:
            self._check = DecodeCheck(self.path, self._video.get(cv2.CAP_PROP_ORIENTATION_META) != 0)
        self._check.compare(first, pictures)

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
            cv2.resize(frame, (FRAME_SIZE, FRAME_SIZE), dst=slot, interpolation=self._scaling)
        elif frame is not slot:
            slot[:] = frame
        time = self._video.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if abs(time - self.position / FPS) > ROUNDING + DRIFT * time:
            self._off_time = True
        self.position += 1

    def _ended(self, expected: str) -> MediaError:
        """Return the error to raise when there are no more frames."""
        try:
            probe(self.path).check(allow_resize=True)
        except MediaError as error:
            return error
        return MediaError(f"{self.path}: ends after {self.position} frames, {expected}")
