"""Videos of any kind with a flash and a click, for the tests of makeFaceTracks.py.

make_video("a.mkv", np.arange(60) / 30, flash=1.0, sound_from=0.3, format="matroska")
face(100)                                     # -> a picture of a real face, to draw into it
flash_time(pictures), click_time(samples)     # -> seconds, on the track's own clock of 25 a second and 16 kHz
"""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from matplotlib.cbook import get_sample_data

CLOCK = 90000  # of the time stamps that are written
COARSE = ("mpeg2video", "mpeg4", "wmv2")  # codecs that take times as numbers of their frames only
FLASH_LENGTH = 0.2  # seconds
DARK, BRIGHT = 60, 230


def make_video(
    path: Any,
    times: Sequence[float],
    *,
    size: tuple[int, int] = (320, 240),
    flash: float | None = 1.0,
    sound_from: float | None = 0.0,
    sound_to: float | None = None,
    start: float = 0.0,
    format: str = "mp4",
    codec: str = "libx264",
    sound_codec: str = "aac",
    rate: int = 44100,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    rotation: int | None = None,
    loudness: int = 100,
    draw: Callable[[np.ndarray, int], None] | None = None,
) -> None:
    """Write pictures that appear at `times` seconds, all dark but the flash, and a click at `flash` in the sound.

    path: or a file. The first picture at or after `flash` and those of FLASH_LENGTH from there are bright; the click
    sounds when it appears, in a noise of this loudness. flash: None for neither. sound_from, sound_to: seconds; None:
    no sound, and to the last picture. start: added to all times. draw: changes picture number i, (height, width, 3)
    BGR, in place.
    """
    if isinstance(path, str):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    times = np.asarray(times, np.float64)
    onset = np.inf if flash is None else times[times >= flash - 1e-6][0]
    with av.open(path, "w", format=format, options=container_options or {}) as container:
        spacing = float(np.median(np.diff(times)))
        video = container.add_stream(codec, rate=Fraction(1 / spacing).limit_denominator(1001))
        video.width, video.height = size
        video.pix_fmt = pixels
        video.options = {"threads": "1", **(options or {})}
        if codec not in COARSE:
            video.codec_context.time_base = Fraction(1, CLOCK)
        if aspect:
            video.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            video.set_display_rotation(rotation)
        sound = None
        if sound_from is not None:
            sound = container.add_stream(sound_codec, rate=rate, layout="mono")
            sound.bit_rate = 96000
        for number, time in enumerate(times):
            bright = onset <= time < onset + FLASH_LENGTH
            picture = np.full((size[1], size[0], 3), BRIGHT if bright else DARK, np.uint8)
            if draw:
                draw(picture, number)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = round((start + time) * CLOCK), Fraction(1, CLOCK)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            end = times[-1] + spacing if sound_to is None else sound_to
            samples = (
                np.random.default_rng(0)
                .normal(0, loudness, round((end - sound_from) * rate))
                .astype(np.int16)
            )
            if flash is not None:
                place, length = round((onset - sound_from) * rate), rate // 100
                samples[place : place + length] = 25000 * np.sin(np.arange(length) * 2 * np.pi * 1000 / rate)
            _encode(container, sound, samples, rate, start + sound_from)


def _encode(container, stream, samples: np.ndarray, rate: int, start: float) -> None:
    step = 1024
    for first in range(0, len(samples), step):
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + step], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(start * rate) + first
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def face(side: int) -> np.ndarray:
    """A real face (Grace Hopper, from matplotlib), framed as in a face track: (side, side, 3) uint8 BGR."""
    with get_sample_data("grace_hopper.jpg") as file:
        picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    return cv2.resize(picture[116:427, 108:419], (side, side), interpolation=cv2.INTER_AREA)


def flash_time(pictures: np.ndarray) -> float:
    """Seconds into a track at which the first bright one of its pictures, (frames, ...), is up."""
    return float(np.argmax(pictures.reshape(len(pictures), -1).mean(1) > (DARK + BRIGHT) / 2)) / 25


def click_time(samples: np.ndarray) -> float:
    """Seconds into a track at which its sound, (samples,) int16 at 16 kHz, has the click."""
    return float(np.argmax(np.abs(samples.astype(int)) > 6000)) / 16000
