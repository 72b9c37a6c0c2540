"""A video as OpenCV opens it: which files it takes for one, which way up, and when a frame is late."""

import os

# Containers of films, by FFmpeg's names. A file's content decides which of them it is, not its name; lists of
# files and playlists, which lead to other files, are none of them.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"

# FFmpeg reads local files only: a crafted file may name addresses.
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
WHITELISTS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
# What is wrong with a file is said by MediaError, with its name, instead of by the decoder on stderr.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

if os.environ["OPENCV_LOG_LEVEL"] == "OFF":  # once more, where cv2 was imported before this
    (cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging).setLogLevel(0)

from syncnet.media.clips import FPS, MediaError  # noqa: E402
from syncnet.media.tar_members import file_size, is_file, name_for_ffmpeg  # noqa: E402

FRAME = 1 / FPS  # seconds
ROUNDING, MAX_ROUNDING = 0.005, 0.01  # seconds by which a time stamp may be off
DRIFT = 0.0004  # of the time that has passed: a frame within 100 s, as 25.01 frames a second


def open_video(path: str) -> cv2.VideoCapture:
    """Open a video with a single decoding thread (clips are decoded side by side instead), turned upright.

    Raises MediaError. Release the result.
    """
    if not is_file(path):
        raise MediaError(f"{path}: no such video")
    restrict_opencv()
    try:
        with name_for_ffmpeg(path) as name:
            video = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened as a video ({error.strerror})") from None
    if not video.isOpened():
        size = file_size(path)
        raise MediaError(f"{path}: cannot be opened as a video ({size} bytes); broken, or no video in it")
    video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # the default of most versions of OpenCV, not of all
    return video


def restrict_opencv() -> None:
    """Add the whitelists to what the user's environment variable tells OpenCV, which reads it for each video."""
    given = os.environ.get(OPTIONS, "")
    options = dict(option.split(";") for option in given.split("|") if option.count(";") == 1)
    options.pop("", None)
    wanted = "|".join(f"{key};{value}" for key, value in {**options, **WHITELISTS}.items())
    if wanted != given:
        os.environ[OPTIONS] = wanted


def first_picture(path: str) -> tuple[np.ndarray | None, bool]:
    """What OpenCV shows at the beginning: (height, width, 3) uint8 BGR, or None; and, was it turned upright?

    Raises MediaError where the video does not open.
    """
    video = open_video(path)
    try:
        found, picture = video.read()
        return (picture if found else None), video.get(cv2.CAP_PROP_ORIENTATION_META) != 0
    except cv2.error:
        return None, False
    finally:
        video.release()


def allowed_lateness(time: np.ndarray | float, step: float = 0.0) -> np.ndarray | float:
    """Seconds by which a frame may be off its place, `time`, in a video of 25 frames a second.

    step: seconds between two time stamps that the container can tell apart. Less than half a frame: beyond
    that, another picture would be nearer.
    """
    return np.minimum(max(ROUNDING, min(step, MAX_ROUNDING)) + DRIFT * np.abs(time), FRAME / 2)
