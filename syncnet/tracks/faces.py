"""The interface of face detectors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Face:
    """A box (left, top, right, bottom) in pixels of the whole picture, and the detector's confidence, 0 to 1.

    The box of a face at the edge extends outside the picture.
    """

    box: np.ndarray
    confidence: float


class FaceDetector(ABC):
    """Finds faces whose larger side has at least about `min_face` pixels.

    A box spans a face from the hairline to the chin, as MTCNN's does: half its larger side and its center define the
    crop (syncnet/tracks/tracks.py). scale: the factor by which a picture is resized before it is passed to find().
    sure: the minimum confidence to begin a track. typical: the minimum median confidence of a track; hands have less.
    """

    scale: float
    sure: float
    typical: float

    @abstractmethod
    def __init__(self, min_face: int, weights: bytes | None) -> None:
        """Set `scale`. weights: the content of the file in --face_detector, or None without one. Raises UserError."""

    @abstractmethod
    def find(self, picture: np.ndarray) -> list[Face]:
        """Find the faces in a resized picture, (height, width, 3) uint8 BGR; boxes in pixels of the original."""


def distinct(boxes: np.ndarray, scores: np.ndarray, most: float, of_smaller: bool = False) -> list[int]:
    """Non-maximum suppression: indices of boxes, best first, that overlap no better one by more than `most`.

    boxes: (n, 4) left, top, right, bottom. The overlap is a fraction of the union, or of the smaller box.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        shared = np.maximum(sides, 0).prod(1)
        whole = np.minimum(areas[best], areas[left]) if of_smaller else areas[best] + areas[left] - shared
        left = left[shared <= most * whole]
    return kept
