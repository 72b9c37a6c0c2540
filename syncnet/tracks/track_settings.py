"""The settings and limits of makeFaceTracks.py. Imports nothing heavy."""

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

MAX_GAP = 25  # slots without a face that a track may have in a row
PART = 1000  # slots; longer tracks are divided
KINDS = ("mp4", "wav", "txt")  # the files of a track, each in a folder of that name
MIN_FACE = 20  # pixels; the detectors do not find smaller ones


@dataclass(frozen=True)
class Rule:
    """The flags of makeFaceTracks.py.

    detector: its name in DETECTORS (survey.py). weights: the content of its file, or None if it has none.
    divide: divide tracks longer than PART.
    """

    detect_every: int  # slots
    min_frames: int
    min_face: int  # pixels
    detector: str = "mtcnn"
    weights: bytes | None = field(default=None, repr=False)
    divide: bool = True

    @property
    def settings(self) -> dict[str, int | str]:
        """The settings that the tracks of a video depend on; with others they are remade."""
        found: dict[str, Any] = {
            "detect_every": self.detect_every,
            "min_frames": self.min_frames,
            "min_face": self.min_face,
        }
        if self.detector != "mtcnn":  # older folders, made when there was only MTCNN, stay finished
            found["detector"] = self.detector
            if self.weights is not None:
                found["detector"] += f" sha256:{hashlib.sha256(self.weights).hexdigest()}"
        if not self.divide:
            found["divide"] = False
        return found


def is_in(path: str, folder: str) -> bool:
    """Is this path the folder or inside it? Both absolute, without links."""
    return os.path.commonpath([path, folder]) == folder
