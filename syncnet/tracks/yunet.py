"""YuNet (Wu et al., Machine Intelligence Research 20, 2023) through OpenCV's FaceDetectorYN: small and fast.

The user downloads its weights from OpenCV Zoo (docs/data.md).
"""

import numpy as np

from syncnet.media.open_video import cv2  # silenced there: it logs each network that it loads
from syncnet.support.errors import UserError
from syncnet.tracks.faces import Face, FaceDetector, distinct

SIZE_IN_DETECTION = 22  # pixels of the smallest face; YuNet finds few below 20
LARGEST_IN_DETECTION = 300  # pixels of the largest faces in its training data
POSSIBLE = 0.5  # minimum confidence
DISTINCT = 0.3  # maximum overlap of boxes of two faces
LEAST = 64  # pixels per side; OpenCV 4.9 reads uninitialized memory for smaller pictures
BOX = 1.02  # size of MTCNN's box, which the crop rule expects, relative to YuNet's; they have the same center


class YuNet(FaceDetector):
    """YuNet as a FaceDetector. Raises UserError for weights that OpenCV cannot run as YuNet."""

    sure = 0.6
    typical = 0.65

    def __init__(self, min_face: int, weights: bytes | None) -> None:
        self.scale = min(1.0, SIZE_IN_DETECTION / min_face)
        if weights is None:
            raise UserError("YuNet needs the file of its weights (docs/data.md)")
        if not hasattr(cv2, "FaceDetectorYN"):
            raise UserError(
                f"OpenCV {cv2.__version__} has no FaceDetectorYN: pip install -U opencv-python-headless"
            )
        if weights.startswith(b"version https://git-lfs"):
            raise UserError("a Git LFS pointer, not the weights; download the file itself (docs/data.md)")
        buffer = np.frombuffer(weights, np.uint8)
        try:
            self._network = cv2.FaceDetectorYN.create(
                "onnx", buffer, np.empty(0, np.uint8), (LEAST, LEAST), POSSIBLE, DISTINCT
            )
            self._network.detect(np.zeros((LEAST, LEAST, 3), np.uint8))
        except cv2.error as error:
            raise UserError(
                f"not a YuNet network that OpenCV {cv2.__version__} can run ({first_line(error)}); "
                "download the one that docs/data.md names"
            ) from None

    def find(self, picture: np.ndarray) -> list[Face]:
        found, scale = [self._detect(picture)], 1.0
        while min(picture.shape[:2]) > 2 * LARGEST_IN_DETECTION:  # larger faces are found at half the scale
            picture = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            scale /= 2
            found.append(self._detect(picture) / [*[scale] * 4, 1])
        faces = np.concatenate(found)
        corner, size, confidence = faces[:, :2], faces[:, 2:4], faces[:, 4]
        boxes = np.hstack([corner + size * (1 - BOX) / 2, corner + size * (1 + BOX) / 2]) / self.scale
        return [Face(boxes[i], float(confidence[i])) for i in distinct(boxes, confidence, DISTINCT)]

    def _detect(self, picture: np.ndarray) -> np.ndarray:
        """(n, 5): left, top, width, height in pixels of this picture, confidence."""
        right, below = (max(0, LEAST - side) for side in picture.shape[1::-1])
        if right or below:
            picture = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_CONSTANT)
        self._network.setInputSize(picture.shape[1::-1])
        found = self._network.detect(picture)[1]
        return np.empty((0, 5)) if found is None else found[:, [0, 1, 2, 3, -1]].astype(np.float64)


def first_line(error: cv2.error) -> str:
    """OpenCV's message for an error, in one line."""
    text = getattr(error, "err", "") or str(error)
    return text.strip("> ").splitlines()[0] if text.strip() else "no reason given"
