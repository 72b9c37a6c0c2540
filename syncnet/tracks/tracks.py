"""Joins detected faces into tracks, and crops tracks.

The rule is that of the pipeline for tracks like VoxCeleb2's: boxes that overlap belong to one track, and the side of
the crop is 2.8 times half the face's larger side, with the face's center at half its width and 1 / 2.8 of its height.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations

import cv2
import numpy as np
from scipy.ndimage import median_filter, uniform_filter1d

from syncnet.media.clips import FRAME_SIZE
from syncnet.tracks.faces import Face
from syncnet.tracks.track_settings import MAX_GAP

MIN_OVERLAP = 0.5  # intersection over union of a face with the one before in its track
SMOOTHING = 13  # slots
ABOVE, BELOW, BESIDE = 1.0, 1.8, 1.4  # extent of the crop from the center, in half sizes of the face
PADDING = 110  # gray value outside the picture


@dataclass(eq=False)
class Track:
    """A face from slot `first` on. boxes: (slots, 4) left, top, right, bottom in pixels of the source.

    found: number of detections; the boxes between are interpolated. confidence: mean of the detections. typical:
    their median.
    """

    first: int
    boxes: np.ndarray
    found: int
    confidence: float
    shot: int
    typical: float = 1.0

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def end(self) -> int:
        """The slot after its last one."""
        return self.first + len(self)

    @property
    def size(self) -> float:
        """Mean of the face's larger side, in pixels."""
        return float(np.maximum(*(self.boxes[:, 2:] - self.boxes[:, :2]).T).mean())

    def part(self, first: int, last: int) -> "Track":
        """The track within the slots first ... last - 1 (with a proportional number of detections)."""
        first, last = max(first, self.first), min(last, self.end)
        boxes = self.boxes[first - self.first : max(first, last) - self.first]
        found = round(self.found * len(boxes) / max(1, len(self)))
        return Track(first, boxes, found, self.confidence, self.shot, self.typical)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if sides.min() <= 0:
        return 0.0
    shared = sides.prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


@dataclass(eq=False)
class OpenTrack:
    """The detected faces of one track by slot; more may be added while it is open."""

    faces: dict[int, Face] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return min(self.faces)

    @property
    def last(self) -> int:
        return max(self.faces)

    @property
    def box(self) -> np.ndarray:
        return self.faces[self.last].box

    def until(self, slot: int) -> "OpenTrack":
        """The track up to this slot."""
        return OpenTrack({s: face for s, face in self._with(slot).items() if s <= slot})

    def since(self, slot: int) -> "OpenTrack":
        """The track from this slot on."""
        return OpenTrack({s: face for s, face in self._with(slot).items() if s >= slot})

    def _with(self, slot: int) -> dict[int, Face]:
        """The faces, with an interpolated one at this slot if it lies between two of them."""
        earlier, later = ([s for s in self.faces if (s < slot) is side] for side in (True, False))
        if slot in self.faces or not earlier or not later:
            return self.faces
        a, b = max(earlier), min(later)
        share = (slot - a) / (b - a)
        box = self.faces[a].box * (1 - share) + self.faces[b].box * share
        confidence = min(self.faces[a].confidence, self.faces[b].confidence)
        return {**self.faces, slot: Face(box, confidence)}

    def track(self, shot: int) -> Track:
        """The track with the boxes between detections interpolated."""
        slots = np.array(sorted(self.faces))
        every = np.arange(slots[0], slots[-1] + 1)
        found = np.array([self.faces[slot].box for slot in slots])
        boxes = np.stack([np.interp(every, slots, side) for side in found.T], 1)
        confidence = [self.faces[slot].confidence for slot in slots]
        mean, median = float(np.mean(confidence)), float(np.median(confidence))
        return Track(int(slots[0]), boxes, len(slots), mean, shot, median)


class TrackBuilder:
    """Joins faces into tracks, slot by slot, shot by shot.

    find: returns the faces at a slot; called for the slot of detect_at() and, where a face appears or disappears, for
    the slots since the previous one. sure: the minimum confidence to begin a track; any confidence continues one.
    find_again: returns a face that find() misses, near this box of a track that was lost at a slot, or None.
    find_near: returns the faces at a slot that are near these boxes, one for each; or None, and find() is called.
    search_every: slots; in the first detection within each multiple of it, find() is called in any case.
    closed: the tracks that ended. shot_starts: the first slot of each shot.

    Length, size and confidence of tracks are judged after those of all parts are joined (face_tracks.py), not here.
    """

    def __init__(
        self,
        find: Callable[[int], list[Face]],
        sure: float = 0.9,
        find_again: Callable[[int, np.ndarray], Face | None] | None = None,
        find_near: Callable[[int, list[np.ndarray]], list[Face] | None] | None = None,
        search_every: int = 1,
    ) -> None:
        self._find = find
        self._sure = sure
        self._find_again = find_again
        self._find_near = find_near
        self._search_every = search_every
        self.open: list[OpenTrack] = []
        self.closed: list[OpenTrack] = []
        self.shot_starts: list[int] = []
        self._looked: int | None = None  # the slot of the last find() in this shot
        self._near: list[int] = []  # the slots of later detections that found all open tracks by find_near()

    @property
    def finished(self) -> list[Track]:
        """The tracks that ended, in order of their ends, with the numbers of their shots."""
        return [track.track(bisect_right(self.shot_starts, track.first)) for track in self.closed]

    def begin_shot(self, slot: int) -> None:
        """A shot begins at this slot."""
        self.shot_starts.append(slot)
        self._looked = None

    def end_shot(self, slot: int) -> None:
        """The shot's last slot is this one."""
        self.detect_at(slot, everywhere=True)
        for track in list(self.open):
            self._finish(track)

    def cut(self, tracks: list[OpenTrack], slot: int) -> None:
        """These tracks end, and others may begin in their places, at this slot."""
        self.detect_at(slot - 1, everywhere=True)
        for track in tracks:
            if track in self.open:
                self._finish(track)
        self.detect_at(slot)

    def divide(self, first: int, last: int, only: OpenTrack | None = None) -> None:
        """Remove slots first ... last, a gradual change of shots, from all tracks and divide those that cross them.

        only: the only track with that change; None: the whole picture changes, and a shot begins after `last`.
        """
        if only is None:
            self.shot_starts.append(last + 1)
        for tracks in (self.closed, self.open):
            for track in [t for t in tracks if only in (None, t) and t.first <= last and t.last >= first]:
                before, after = track.until(first - 1), track.since(last + 1)
                place = tracks.index(track)
                self.closed += [before] if before.faces and tracks is self.open else []
                kept = [t for t in (before, after) if t.faces and (tracks is self.closed or t is after)]
                tracks[place : place + 1] = kept

    def detect_at(self, slot: int, everywhere: bool = False) -> None:
        """Detect the faces at this slot, continue the tracks that they belong to, begin tracks with the others.

        everywhere: call find(). Otherwise, find_near() may be enough; the tracks of faces that appear meanwhile begin
        where they would without it, because the detections without find() are repeated with it.
        """
        last = self._near[-1] if self._near else self._looked
        known = slot == last and not (everywhere and self._near)
        if last is not None and (slot < last or known):
            return
        due = self._looked is None or slot // self._search_every > self._looked // self._search_every
        if not everywhere and not due and self._continue_near(slot):
            self._near.append(slot)
            return
        if self._near:
            self._join(slot, self.open)
            if any(face.confidence >= self._sure for face in self._free(slot)):  # a face has appeared: when?
                for before in self._near:
                    self._search(before)
            self._looked = self._near[-1]
            self._near = []
        self._search(slot)

    def _continue_near(self, slot: int) -> bool:
        """Continue all open tracks by find_near(). Returns whether it found a face for each."""
        if not self.open or self._find_near is None:
            return False
        faces = self._find_near(slot, [track.box for track in self.open])
        if faces is None or any(overlap(a.box, b.box) > MIN_OVERLAP for a, b in combinations(faces, 2)):
            return False
        found = list(zip(self.open, faces, strict=True))
        if any(overlap(track.box, face.box) <= MIN_OVERLAP for track, face in found):
            return False
        for track, face in found:
            track.faces[slot] = face
        return True

    def _search(self, slot: int) -> None:
        """Detect the faces at this slot by find(), continue tracks and begin others."""
        since = self.shot_starts[-1] if self._looked is None else self._looked + 1
        self._join(slot, self.open)
        for track in self.open:
            if slot not in track.faces and track.last == self._looked:  # lost since the last detection: when?
                for between in range(since, slot + 1):
                    self._join(between, [track])
                    if between not in track.faces:
                        break
        for face in self._free(slot):
            if face.confidence >= self._sure:
                self.open.append(self._begun_at(slot, since, face))
        self._looked = slot
        for track in [t for t in self.open if slot - t.last > MAX_GAP]:
            self._finish(track)

    def _begun_at(self, slot: int, since: int, face: Face) -> OpenTrack:
        """A track of this face, from where it appeared."""
        track = OpenTrack({slot: face})
        for before in range(slot - 1, since - 1, -1):
            same = [(overlap(f.box, face.box), f) for f in self._free(before)]
            best, earlier = max(same, key=lambda pair: pair[0], default=(0.0, face))
            if best <= MIN_OVERLAP:
                break
            track.faces[before] = face = earlier
        return track

    def _free(self, slot: int) -> list[Face]:
        """Faces at a slot that belong to no track: find() returns the same objects again, find_near() others."""
        found, taken = self._find(slot), [t.faces[slot] for t in self.open if slot in t.faces]
        near = [face for face in taken if not any(face is other for other in found)]
        return [
            face
            for face in found
            if not any(face is other for other in taken)
            and not any(overlap(face.box, other.box) > MIN_OVERLAP for other in near)
        ]

    def _join(self, slot: int, tracks: list[OpenTrack]) -> None:
        """Assign the faces at a slot to the tracks that they overlap best."""
        pairs = [
            (overlap(track.box, face.box), track, face)
            for face in self._free(slot)
            for track in tracks
            if track.last < slot
        ]
        taken: set[int] = set()
        for shared, track, face in sorted(pairs, key=lambda pair: -pair[0]):
            if shared > MIN_OVERLAP and slot not in track.faces and id(face) not in taken:
                track.faces[slot] = face
                taken.add(id(face))
        for track in tracks:
            if track.last < slot:
                self._join_again(slot, track)

    def _join_again(self, slot: int, track: OpenTrack) -> None:
        """Search for the lost face of a track where it was last, unless another face is there."""
        face = self._find_again(slot, track.box) if self._find_again else None
        if face is None or overlap(track.box, face.box) <= MIN_OVERLAP:
            return
        others = [*self._find(slot), *(t.faces[slot] for t in self.open if slot in t.faces)]
        if not any(overlap(face.box, other.box) for other in others):
            track.faces[slot] = face

    def _finish(self, track: OpenTrack) -> None:
        self.open.remove(track)
        self.closed.append(track)


def smooth(boxes: np.ndarray) -> np.ndarray:
    """(slots, 4) boxes -> (slots, 3): x and y of the center and half the larger side, smoothed over SMOOTHING slots.

    A median filter, as in the rule, and a mean of the same width, because boxes are detected only now and then and
    the steps between them would remain.
    """
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) / 2
    steady = median_filter(np.hstack([centers, half]), (SMOOTHING, 1), mode="nearest")
    return uniform_filter1d(steady, SMOOTHING, axis=0, mode="nearest")


def crop(picture: np.ndarray, x: float, y: float, half: float) -> np.ndarray:
    """The face with this center and half size, in pixels, cropped by the rule: (224, 224, 3) uint8.

    picture: (height, width, 3) uint8. Gray outside the picture.
    """
    left, top, side = x - BESIDE * half, y - ABOVE * half, (ABOVE + BELOW) * half
    x0, y0 = max(0, int(left) - 1), max(0, int(top) - 1)
    part = picture[y0 : max(0, int(top + side) + 2), x0 : max(0, int(left + side) + 2)]
    if part.size == 0:
        return np.full((FRAME_SIZE, FRAME_SIZE, 3), PADDING, np.uint8)
    # Linear interpolation alone would skip pixels of a larger crop.
    shrink = min(1.0, FRAME_SIZE / side)
    width, height = (max(1, round(length * shrink)) for length in part.shape[1::-1])
    if shrink < 1:
        part_x, part_y = width / part.shape[1], height / part.shape[0]
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    else:
        part_x = part_y = 1.0
    # From the middle of a pixel of the crop to that of a pixel of the part.
    step = np.array([side * part_x, side * part_y]) / FRAME_SIZE
    start = np.array([(left - x0) * part_x, (top - y0) * part_y]) + step / 2 - 0.5
    matrix = np.array([[step[0], 0, start[0]], [0, step[1], start[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    gray = (PADDING, PADDING, PADDING)
    return cv2.warpAffine(part, matrix, (FRAME_SIZE, FRAME_SIZE), flags=flags, borderValue=gray)
