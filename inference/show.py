"""A video with its face tracks drawn on it: green where a face speaks in sync, red where it does not."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np

from inference.embeddings import FIELD
from inference.lipSync import LipSync
from media.clips import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from media.timeline import VideoReader
from media.trackSound import has_sound, read_sound
from support.files import replace_file

IN_SYNC, OUT_OF_SYNC, UNKNOWN = (60, 200, 60), (40, 40, 220), (160, 160, 160)  # BGR
LINE = 1 / 250  # of the picture's larger side
TEXT_HEIGHT = 1 / 30  # of the picture's smaller side
SOUND_BLOCK = 1000  # slots whose sound is held at a time
ENCODING = {"preset": "veryfast", "crf": "20", "threads": "1"}


@dataclass(frozen=True)
class SeenFace:
    """A face track on the clock of its source: from slot `first` on (see media/timeline.py).

    boxes: (frames, 4) left, top, width and height in fractions of the picture. confidences: (frames,), NaN where
    it was not measured.
    """

    first: int
    boxes: np.ndarray
    confidences: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


def confidence_of_frames(found: LipSync | None, frames: int) -> np.ndarray:
    """The confidence of each frame of a track: of the window in whose middle it is, or next to whose it is. (frames,)

    found: None for a track that could not be measured, whose confidences are NaN.
    """
    if found is None:
        return np.full(frames, np.nan)
    middle = FIELD // 2
    windows = found.confidences[:frames]
    return np.pad(windows, (middle, max(0, frames - middle - len(windows))), "edge")[:frames]


def draw_faces(picture: np.ndarray, slot: int, faces: Iterable[SeenFace], in_sync: float) -> None:
    """Draw the boxes of the faces that are there at a slot, each with its confidence, into the picture.

    picture: (height, width, 3) uint8, BGR. in_sync: confidence from which on a face is green.
    """
    height, width = picture.shape[:2]
    line = max(2, round(max(height, width) * LINE))
    scale = cv2.getFontScaleFromHeight(
        cv2.FONT_HERSHEY_SIMPLEX, max(8, round(min(height, width) * TEXT_HEIGHT)), line
    )
    for face in faces:
        if not face.first <= slot < face.first + len(face):
            continue
        confidence = face.confidences[slot - face.first]
        left, top, wide, high = face.boxes[slot - face.first] * (width, height, width, height)
        colour = UNKNOWN if np.isnan(confidence) else IN_SYNC if confidence >= in_sync else OUT_OF_SYNC
        corner, other = (round(left), round(top)), (round(left + wide), round(top + high))
        cv2.rectangle(picture, corner, other, colour, line)
        if not np.isnan(confidence):
            place = (corner[0], max(corner[1] - 2 * line, round(min(height, width) * TEXT_HEIGHT) + line))
            text = f"{confidence:.2f}"
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, line, cv2.LINE_AA)


def show(
    video: str,
    faces: Sequence[SeenFace],
    output: str,
    in_sync: float,
    shown: Callable[[int, int | None], None] = lambda *_: None,
) -> int:
    """Write `output`, an mp4 of the source `video` at 25 frames a second with its sound and the faces drawn.

    in_sync: see draw_faces. shown: told (slots written, slots that the file declares or None) after every picture.
    Returns the number of frames. Memory does not grow with the length. Raises MediaError, OSError.
    """
    with (
        VideoReader(video) as reader,
        replace_file(output, "wb") as file,
        av.open(file, "w", format="mp4") as container,
    ):
        slots = reader.declared_slots()
        pictures = container.add_stream("libx264", rate=FPS, options=ENCODING)
        pictures.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if has_sound(video) else None
        heard = _Sound(video, reader.first_time)
        frames = 0
        for slot, frame in reader.slots():
            picture = reader.bgr(frame)
            if not frames:
                height, width = (side // 2 * 2 for side in picture.shape[:2])  # H.264 has even sizes
                pictures.height, pictures.width = height, width
            draw_faces(picture, slot, faces, in_sync)
            if picture.shape[:2] != (height, width):
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            encoded = av.VideoFrame.from_ndarray(picture, format="bgr24")
            encoded.pts, encoded.time_base = slot, Fraction(1, FPS)
            container.mux(pictures.encode(encoded))
            if sound is not None:
                container.mux(sound.encode(heard.until(slot)))
            frames += 1
            shown(slot + 1, slots)
        container.mux(pictures.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return frames


class _Sound:
    """The sound of a video, slot after slot."""

    def __init__(self, video: str, first_time: float) -> None:
        self._video, self._first_time = video, first_time
        self._block = np.empty(0, np.int16)  # sound of the slots from self._slot on
        self._slot = 0

    def until(self, slot: int) -> av.AudioFrame:
        """The sound from where the last call ended up to the end of this slot."""
        wanted = (slot + 1 - self._slot) * SAMPLES_PER_FRAME
        while len(self._block) < wanted:
            first = self._slot + len(self._block) // SAMPLES_PER_FRAME
            more = read_sound(self._video, self._first_time, first, first + SOUND_BLOCK).samples
            self._block = np.concatenate((self._block, more))
        frame = av.AudioFrame.from_ndarray(self._block[None, :wanted], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        frame.pts = self._slot * SAMPLES_PER_FRAME
        self._block = self._block[wanted:]
        self._slot = slot + 1
        return frame
