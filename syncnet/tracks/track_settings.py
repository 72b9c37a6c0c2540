"""What becomes a face track: the numbers of makeFaceTracks.py, without what it takes to make one."""

import hashlib
import os
from dataclasses import dataclass, field

MAX_GAP = 25  # slots of a track without a face
PART = 1000  # slots; longer tracks are written in pieces
KINDS = ("mp4", "wav", "txt")  # files of a track, each in a folder of that name
MIN_FACE = 20  # pixels; the detector sees nothing in smaller ones


@dataclass(frozen=True)
class Rule:
    """The flags of makeFaceTracks.py. weights: the content of --face_detector, or None for MTCNN.

    divide: tracks longer than PART are written in pieces.
    """

    detect_every: int  # slots
    min_frames: int
    min_face: int  # pixels
    weights: bytes | None = field(default=None, repr=False)
    divide: bool = True

    @property
    def detector(self) -> str:
        """The face detector, with its weights, as tracks.csv names it."""
        return "mtcnn" if self.weights is None else f"yunet sha256:{hashlib.sha256(self.weights).hexdigest()}"

    @property
    def settings(self) -> dict[str, int | str]:
        """What decides on the tracks of a video: with other settings they are made again."""
        found: dict[str, int | str] = {
            "detect_every": self.detect_every,
            "min_frames": self.min_frames,
            "min_face": self.min_face,
        }
        if self.weights is not None:  # folders made before there was a choice stay finished
            found["detector"] = self.detector
        if not self.divide:
            found["divide"] = False
        return found


def is_in(path: str, folder: str) -> bool:
    """Is this path the folder or in it? Both absolute, without links."""
    return os.path.commonpath([path, folder]) == folder
