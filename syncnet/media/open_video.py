"""Open videos with OpenCV: local files only, rotated upright, without messages on stderr."""

import os

from syncnet.media.open_media import LOCAL_ONLY

OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# MediaError names the file and says what is wrong with it; decoder messages on stderr would not.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

if os.environ["OPENCV_LOG_LEVEL"] == "OFF":  # in case cv2 was imported earlier
    (cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging).setLogLevel(0)

from syncnet.media.clips import MediaError  # noqa: E402
from syncnet.support.tar_members import file_size, is_file, name_for_ffmpeg  # noqa: E402


def open_video(path: str) -> cv2.VideoCapture:
    """Open a video, rotated upright, with one decoding thread because clips are decoded in parallel.

    The caller releases the result. Raises MediaError.
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
        raise MediaError(f"{path}: cannot be opened as a video ({size} bytes); damaged, or not a video")
    video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # the default in most versions of OpenCV, but not in all
    return video


def restrict_opencv() -> None:
    """Add the whitelists to the OPTIONS environment variable, which OpenCV reads for each video."""
    given = os.environ.get(OPTIONS, "")
    options = dict(option.split(";") for option in given.split("|") if option.count(";") == 1)
    options.pop("", None)
    wanted = "|".join(f"{key};{value}" for key, value in {**options, **LOCAL_ONLY}.items())
    if wanted != given:
        os.environ[OPTIONS] = wanted


def first_picture(path: str) -> tuple[np.ndarray | None, bool]:
    """Return OpenCV's first picture, (height, width, 3) uint8 BGR or None, and whether it was rotated.

    Raises MediaError if the video does not open.
    """
    video = open_video(path)
    try:
        found, picture = video.read()
        return (picture if found else None), video.get(cv2.CAP_PROP_ORIENTATION_META) != 0
    except cv2.error:
        return None, False
    finally:
        video.release()
