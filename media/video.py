"""Video frames of a clip.

Everything that opens a video goes through here, so that its error messages stand in one place.
"""

import os
from pathlib import Path

# FFmpeg reads local files only (a crafted file may name addresses), and what is wrong with a file is
# said by MediaError, with its name, instead of by the decoder on stderr. Read when cv2 is imported.
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from media.clips import FRAME_SIZE, MediaError  # noqa: E402


def open_video(path: str, decode: bool = True) -> cv2.VideoCapture:
    """Open a video with a single decoding thread (clips are decoded side by side instead).

    decode: False makes grab() step from packet to packet, which counts the frames without decoding.
    Raises MediaError. Release the result.
    """
    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such video")
    # The absolute path cannot be mistaken for one of FFmpeg's protocols, such as "concat:".
    settings = [cv2.CAP_PROP_N_THREADS, 1] + ([] if decode else [cv2.CAP_PROP_FORMAT, -1])
    video = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, settings)
    if not video.isOpened():
        size = Path(path).stat().st_size
        raise MediaError(f"{path}: cannot be opened as a video ({size} bytes); broken, or no video in it")
    return video


def read_frames(path: str, first: int, out: np.ndarray, allow_resize: bool = False) -> None:
    """Decode len(out) consecutive frames of `path`, from frame number `first` (0-based), into `out`.

    out: (T, FRAME_SIZE, FRAME_SIZE, 3) uint8, C-contiguous, filled in OpenCV's BGR order.
    allow_resize: scale frames of another size instead of refusing them.
    Raises MediaError when the video does not open, ends early or has frames of another size.
    """
    video = open_video(path)
    try:
        # Grabbing decodes in order, so it is exact whatever the key frames; it only skips the
        # conversion to BGR. VoxCeleb2 has a key frame every 250 frames: seeking would not be faster.
        for number in range(first):
            if not video.grab():
                raise MediaError(f"{path}: ends after {number} frames, frame {first} was asked for")
        for number, slot in enumerate(out, first):
            ok, frame = video.read(slot)
            if not ok:
                raise MediaError(
                    f"{path}: ends after {number} frames, {first + len(out)} were expected; "
                    "make the list again with makeFileList.py"
                )
            if frame.shape != slot.shape:
                if not allow_resize:
                    raise MediaError(
                        f"{path}: frames are {frame.shape[1]}x{frame.shape[0]}, "
                        f"expected a {FRAME_SIZE}x{FRAME_SIZE} face track (--allow_resize scales them)"
                    )
                cv2.resize(frame, (FRAME_SIZE, FRAME_SIZE), dst=slot, interpolation=cv2.INTER_AREA)
    finally:
        video.release()
