"""The settings and limits of makeFaceTracks.py. Imports nothing heavy."""

import hashlib
import os
from dataclasses import dataclass, field

MAX_GAP = 25  # slots without a face that a track may have in a row
PART = 1000  # slots; longer tracks are divided
KINDS = ("mp4", "wav", "txt")  # the files of a track, each in a folder of that name
MIN_FACE = 20  # pixels; the detectors do not find smaller ones


@dataclass(frozen=True)
class Rule:
    """The flags of makeFaceTracks.py. weights: the content of --face_detector, or None for MTCNN.

    divide: divide tracks longer than PART.
    """

    detect_every: int  # slots
    min_frames: int
    min_face: int  # pixels
    weights: bytes | None = field(default=None, repr=False)
    divide: bool = True

    @property
    def detector(self) -> str:
        """The face detector and a hash of its weights, as in tracks.csv."""
        return "mtcnn" if self.weights is None else f"yunet sha256:{hashlib.sha256(self.weights).hexdigest()}"

    @property
    def settings(self) -> dict[str, int | str]:
        """The settings that the tracks of a video depend on; with others they are remade."""
        found: dict[str, int | str] = {
            "detect_every": self.detect_every,
            "min_frames": self.min_frames,
            "min_face": self.min_face,
        }
        if self.weights is not None:  # older folders, made when there was only MTCNN, stay finished
            found["detector"] = self.detector
        if not self.divide:
            found["divide"] = False
        return found


def is_in(path: str, folder: str) -> bool:
    """Is this path the folder or inside it? Both absolute, without links."""
    return os.path.commonpath([path, folder]) == folder
