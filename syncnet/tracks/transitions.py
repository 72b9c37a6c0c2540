"""Gradual changes from one shot to the next: dissolves, wipes, fades to and from black.

Two pictures some slots apart differ as much as across a cut, and every picture between them is composed of the two:
the same mix everywhere (a dissolve, a fade), or one on either side of a border that moves through the picture (a
wipe). When people or the camera move, the pictures between are not composed of the two.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Generic, TypeVar

import cv2
import numpy as np

from syncnet.tracks.shots import distance

SIDE = 32  # pixels; pictures and regions are compared at SIDE x SIDE
LENGTHS = (6, 10, 15, 22, 33, 48, 63)  # slots from the picture before a change to the one after it
SAMPLES = 8  # intermediate pictures that are compared first
DIFFERENT = 18.0  # (0 to 255) minimum mean difference across a change
LEFT_OVER, LEAST_CHANGED = 0.005, 14.0  # allowed residual per unit of change beyond LEAST_CHANGED
FINE_SHARE = 0.25  # weight of the residual of fine detail, which people who move slowly show elsewhere
BACK = 0.08  # a change may go back this far from one sample to the next, because people move meanwhile
# Fraction of a change at which it has certainly begun; it is unfinished up to one minus that. Movement resembles a
# slight mix, but not a border.
VISIBLE, BORDER_VISIBLE = 0.12, 0.02
EVEN = 0.2  # the pace of a change is measured between this fraction and one minus it
SUDDEN = 0.7  # fraction of a change from one picture to the next; syncnet/tracks/shots.py decides whether it is a cut
EVERY = 3  # slots between two searches for changes
LASTING = 12  # slots; a change that is reversed within this many is ignored
# A change that contains another one replaces it if the shots differ MORE times as much across it, and it is at most
# LONGER times as long.
MORE, LONGER = 1.04, 1.5
JOINED = 3  # slots between two changes that count as one
BACK_AGAIN, ALIKE = (
    0.6,
    14.0,
)  # factor on the difference, and maximum, below which a picture equals the one before
SHIFT = 5  # pixels of SIDE / 2: maximum shift of a picture to recognize camera movement


def _borders() -> list[np.ndarray]:
    """Orders of the SIDE * SIDE pixels in which a border may pass them: sideways, up, diagonally, from the center."""
    y, x = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2).astype(np.float64)
    return [np.argsort(way.ravel(), kind="stable") for way in (x, y, x + y, x - y, x * x + y * y)]


BORDERS = _borders()


@dataclass(frozen=True, eq=False)
class Change:
    """A gradual change: slots first ... last show both shots. difference: of the shots. before: a picture."""

    first: int
    last: int
    difference: float
    before: np.ndarray


Crop = tuple[slice, slice]  # rows and columns
Key = TypeVar("Key")


@dataclass(eq=False)
class _Seen(Generic[Key]):
    """A change in the whole picture (key and crop None) or in a crop, which may still grow or prove to be a flash."""

    key: Key | None
    crop: Crop | None
    change: Change
    slot: int  # of the picture after it


class ChangeFinder(Generic[Key]):
    """Finds gradual changes in successive pictures, and in crops of them."""

    def __init__(self) -> None:
        self._past: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=max(LENGTHS) + LASTING + 1)
        self._seen: list[_Seen[Key]] = []

    def add(self, slot: int, picture: np.ndarray) -> None:
        """picture: (height, width, 3) uint8, of the same size within a shot."""
        self._past.append((slot, picture, reduced(picture)))

    def end_shot(self) -> list[tuple[Key | None, int, int]]:
        """Forget the pictures; return the remaining changes, as lasting() does."""
        self._past.clear()
        seen, self._seen = self._seen, []
        return self._whole_first(seen)

    def lasting(self, crops: Iterable[tuple[Key, int, Crop]]) -> list[tuple[Key | None, int, int]]:
        """Find changes that end at the last picture; return the earlier ones that lasted.

        crops: (key, first slot to compare, crop). Returns (key of the crop, or None for the whole picture; first and
        last slot that show both shots).
        """
        now = self._past[-1][0]
        if now % EVERY:
            return []
        self._seen = [seen for seen in self._seen if not self._is_back(seen)]
        self._look_at(None, 0, None)
        for key, first, crop in crops:
            self._look_at(key, first, crop)
        lasted = [seen for seen in self._seen if now - seen.slot >= LASTING]
        self._seen = [seen for seen in self._seen if now - seen.slot < LASTING]
        whole = [seen.change.last for seen in lasted if seen.crop is None]
        while whole and self._past and self._past[0][0] <= max(whole):
            self._past.popleft()
        return self._whole_first(lasted)

    def _whole_first(self, seen: list[_Seen[Key]]) -> list[tuple[Key | None, int, int]]:
        """Changes in order of time, without those in crops during one of the whole picture."""
        whole = [s.change for s in seen if s.crop is None]
        kept = [s for s in seen if s.crop is None or not any(_overlap(s.change, change) for change in whole)]
        kept.sort(key=lambda s: s.change.first)
        return [(s.key, s.change.first, s.change.last) for s in kept]

    def _picture(self, number: int, crop: Crop | None) -> np.ndarray:
        return self._past[number][2] if crop is None else reduced(self._past[number][1][crop])

    def _is_back(self, seen: _Seen[Key]) -> bool:
        """Does the last picture show what was before a change?"""
        now = self._picture(-1, seen.crop)
        return distance(seen.change.before, now) < min(ALIKE, BACK_AGAIN * seen.change.difference)

    def _was_before(self, length: int, crop: Crop | None, last: np.ndarray, change: Change) -> bool:
        """Does the last picture equal one before a change of this length?"""
        before = range(max(-len(self._past), -1 - length - LASTING), -1 - length)
        least = min(ALIKE, BACK_AGAIN * change.difference)
        return any(distance(self._picture(k, crop), last) < least for k in before)

    def _look_at(self, key: Key | None, first: int, crop: Crop | None) -> None:
        last = self._picture(-1, crop)
        for length in LENGTHS:
            if length >= len(self._past) or self._past[-1 - length][0] < first:
                break
            if changed(self._picture(-1 - length, crop), last) < DIFFERENT:
                continue
            count = range(-1 - length, 0)
            change = find_change([self._picture(k, crop) for k in count], self._past[-1 - length][0])
            if change is not None and not self._was_before(length, crop, last, change):
                self._keep(_Seen(key, crop, change, self._past[-1][0]))

    def _keep(self, new: _Seen[Key]) -> None:
        """Merge changes at one place and time, such as a fade to black and one from black."""
        for number, seen in enumerate(self._seen):
            if seen.key is new.key and _overlap(seen.change, new.change):
                a, b = seen.change, new.change
                if b.first <= a.first and a.last <= b.last:  # the complete change, or movement around it too
                    length, longer = (c.last - c.first + 1 for c in (a, b))
                    if b.difference > MORE * a.difference and longer <= LONGER * length + JOINED:
                        self._seen[number] = new
                elif not (a.first <= b.first and b.last <= a.last):
                    earlier = a if a.first <= b.first else b
                    change = Change(earlier.first, max(a.last, b.last), earlier.difference, earlier.before)
                    self._seen[number] = _Seen(new.key, new.crop, change, max(seen.slot, change.last + 1))
                return
        self._seen.append(new)


def _overlap(a: Change, b: Change) -> bool:
    return a.first <= b.last + 1 + JOINED and b.first <= a.last + 1 + JOINED


def reduced(picture: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 -> (SIDE, SIDE, 3) float32."""
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def changed(a: np.ndarray, b: np.ndarray) -> float:
    """How much two reduced pictures differ beyond light and movement, 0 to 255; exact from DIFFERENT on."""
    if (found := distance(a, b)) < DIFFERENT or (found := _without_light(a, b)) < DIFFERENT:
        return found
    return min(found, _without_movement(a, b))


def find_change(pictures: Sequence[np.ndarray], slot: int) -> Change | None:
    """The gradual change from the first of these successive pictures to the last, or None.

    pictures: reduced. slot: of the first one.
    """
    a, b = pictures[0], pictures[-1]
    beyond = changed(a, b)
    if beyond < DIFFERENT:
        return None
    inner = np.unique(np.linspace(0, len(pictures) - 1, SAMPLES + 2).round().astype(int))[1:-1]
    fine = [_fine(pictures[k]) for k in (*inner, 0, -1)]
    left_over_fine = {way: left for left, _, way in _explanations(np.stack(fine[:-2]), *fine[-2:])}
    found = [
        (left + FINE_SHARE * left_over_fine[way], way)
        for left, progress, way in _explanations(np.stack([pictures[k] for k in inner]), a, b)
        if progress[0] < 0.5 < progress[-1] and np.diff(progress).min() > -BACK
    ]
    left_over, way = min(found, default=(1.0, ""))
    if left_over > LEFT_OVER * (beyond - LEAST_CHANGED):
        return None
    begin, end = 0, len(pictures) - 1  # the last picture of one shot, the first one of the other
    for outside in (2, 2, 1):
        part = np.stack(pictures[begin : end + 1])
        progress = next(p for _, p, w in _explanations(part, part[0], part[-1]) if w == way)
        if np.diff(progress, prepend=0, append=1).max() > SUDDEN:
            return None
        first, last = _ramp(progress, BORDER_VISIBLE if way.startswith("wipe") else VISIBLE)
        begin, end = max(begin, begin + first - outside), min(end, begin + last + outside)
    a, b = pictures[begin], pictures[end]
    return Change(slot + begin + 1, slot + max(begin + 1, end - 1), distance(a, b), a)


def _ramp(progress: np.ndarray, visible: float) -> tuple[int, int]:
    """Numbers of the first and last picture that show both shots, from how much of the second is in each."""
    first, last = int(np.argmax(progress > visible)), int(np.flatnonzero(progress < 1 - visible)[-1])
    even = np.flatnonzero((progress > EVEN) & (progress < 1 - EVEN))
    if len(even) > 1:  # changes have an even pace, or are slower at their ends; movement matters little
        slope, offset = np.polyfit(even, progress[even], 1)
        if slope > 0:
            first = min(first, round(-offset / slope) + 1)
            last = max(last, round((1 - offset) / slope) - 1)
    return first, last


def _explanations(between: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[tuple[float, np.ndarray, str]]:
    """How well pictures are explained as composed of a and b: (residual, fraction of b in each, kind of change).

    between: (n, SIDE, SIDE, 3). The residual is the mean squared error as a fraction of that between a and b.
    """
    step, moved = b - a, between - a
    whole = float((step**2).sum())
    mix = np.clip((moved * step).sum((1, 2, 3)) / whole, 0, 1)
    rest = ((moved - mix[:, None, None, None] * step) ** 2).sum((1, 2, 3)) / whole
    found = [(float(rest.mean()), mix, "mix"), _through_color(between, a, b, whole)]
    from_a = (moved**2).sum(3).reshape(len(between), -1) / whole
    from_b = ((moved - step) ** 2).sum(3).reshape(len(between), -1) / whole
    for number, order in enumerate(BORDERS):
        as_a, as_b = (np.pad(np.cumsum(error[:, order], 1), ((0, 0), (1, 0))) for error in (from_a, from_b))
        for name, behind, ahead in (("", as_b, as_a), ("back", as_a, as_b)):
            rest = behind + ahead[:, -1:] - ahead
            border = rest.argmin(1)
            progress = border / (SIDE * SIDE)
            found.append(
                (float(rest.min(1).mean()), 1 - progress if name else progress, f"wipe {number}{name}")
            )
    return found


def _through_color(
    between: np.ndarray, a: np.ndarray, b: np.ndarray, whole: float
) -> tuple[float, np.ndarray, str]:
    """The explanation as a fade from a to black, or another color, and from there to b."""
    plainest = int(between.std((1, 2)).sum(1).argmin())
    color = between[plainest].mean((0, 1))
    left, progress = [], []
    for number, picture in enumerate(between - color):
        shot = (a if number <= plainest else b) - color
        share = np.clip((picture * shot).sum() / max(1e-6, (shot**2).sum()), 0, 1)
        left.append(((picture - share * shot) ** 2).sum() / whole)
        progress.append((1 - share) / 2 if number <= plainest else (1 + share) / 2)
    return float(np.mean(left)), np.array(progress), "color"


def _fine(picture: np.ndarray) -> np.ndarray:
    """The fine detail of a picture."""
    return picture - cv2.blur(picture, (5, 5))


def _without_light(a: np.ndarray, b: np.ndarray) -> float:
    """Their difference after the best change of brightness and contrast of either one."""
    a, b = a - a.mean(), b - b.mean()
    shared = max(0.0, float(np.vdot(a, b)))
    return max(distance(x * (shared / max(1e-6, float(np.vdot(x, x)))), y) for x, y in ((a, b), (b, a)))


def _without_movement(a: np.ndarray, b: np.ndarray) -> float:
    """Their difference after the best shift of one of them, or after one that leaves less than DIFFERENT."""
    x, y = (cv2.resize(p, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA) for p in (a, b))

    def parts(shift: int) -> tuple[slice, slice]:
        return slice(max(0, shift), SIDE // 2 + min(0, shift)), slice(
            max(0, -shift), SIDE // 2 + min(0, -shift)
        )

    spans = [parts(shift) for shift in sorted(range(-SHIFT, SHIFT + 1), key=abs)]
    least = inf
    for (rows, r), (columns, c) in product(spans, spans):
        least = min(least, distance(x[rows, columns], y[r, c]))
        if least < DIFFERENT:
            break
    return least
