"""Cuts between shots, by content, as PySceneDetect's ContentDetector and AdaptiveDetector find them.

Pictures are compared in blue, green and red, not in hue: at low bit rates the hue of grayish pixels is coding noise,
which changes at every key frame.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

SHOT_WIDTH = 128  # pixels; pictures are compared at about this width
CUT, CHANGED = (
    27.0,
    2.0,
)  # (0 to 255) a change of at least CUT is a cut if it is CHANGED times those around it
SUDDEN_CUT, SUDDEN = 12.0, 5.0  # so is one of at least SUDDEN_CUT if it is SUDDEN times those around it
LIKE = 0.75  # of the change, clamped to SUDDEN_CUT ... CUT; pictures that differ by less are alike
FLASH = 8  # pictures; a change that is reversed within this many is a flash, not a cut


def shot_picture(picture: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 BGR -> the same without coding noise, for distance()."""
    return cv2.blur(picture, (3, 3))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two shot pictures over all pixels and channels, 0 to 255."""
    return cv2.norm(a, b, cv2.NORM_L1) / max(1, a.size)


def is_cut(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> bool:
    """Does a shot end between before[-1] and after[0], two successive pictures?

    before, after: shot pictures in order, of one size; up to FLASH on either side are compared. There is a cut if the
    two adjacent ones differ enough, and no picture before is like one after.
    """
    before, after = before[-FLASH:], after[:FLASH]
    change = distance(before[-1], after[0])
    if change < SUDDEN_CUT:
        return False
    around = [distance(a, b) for side in (before, after) for a, b in pairwise(side)]
    if around and change < (CHANGED if change >= CUT else SUDDEN) * float(np.mean(around)):
        return False
    if not around and change < CUT:
        return False
    other = min(CUT, max(SUDDEN_CUT, LIKE * change))
    return all(distance(a, b) >= other for a in before for b in after)
