"""What becomes a face track: the numbers of makeFaceTracks.py, without what it takes to make one."""

import os
from dataclasses import dataclass

MAX_GAP = 25  # slots of a track without a face
PART = 1000  # slots; longer videos are worked on in parts, and no track goes from one into the next
KINDS = ("mp4", "wav", "txt")  # files of a track, each in a folder of that name
MIN_FACE = 20  # pixels; the detector sees nothing in smaller ones


@dataclass(frozen=True)
class Rule:
    """The flags of makeFaceTracks.py."""

    detect_every: int  # slots
    min_frames: int
    min_face: int  # pixels


def is_in(path: str, folder: str) -> bool:
    """Is this path the folder or in it? Both absolute, without links."""
    return os.path.commonpath([path, folder]) == folder
