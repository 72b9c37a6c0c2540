"""The first pass over a video or a part of it: its shots, and where its faces are."""

from dataclasses import dataclass, replace
from itertools import pairwise

import av
import cv2
import numpy as np

from syncnet.media.timeline import VideoReader
from syncnet.tracks.faces import Face, FaceDetector
from syncnet.tracks.mtcnn import Mtcnn
from syncnet.tracks.shots import FLASH, SHOT_WIDTH, is_cut, shot_picture
from syncnet.tracks.track_settings import MAX_GAP, Rule
from syncnet.tracks.tracks import ABOVE, BELOW, BESIDE, OpenTrack, TrackBuilder, overlap
from syncnet.tracks.transitions import LASTING, LENGTHS, ChangeFinder
from syncnet.tracks.yunet import YuNet

SEARCH_EVERY = 15  # slots between searches of the whole picture
# A survey may begin and end anywhere in a video. WARM_UP slots after its beginning its results no longer depend on
# where it began; up to AHEAD slots before its end they do not depend on where it ends.
WARM_UP = MAX_GAP + FLASH + max(LENGTHS) + 2 * LASTING + SEARCH_EVERY
AHEAD = max(LENGTHS) + LASTING + FLASH + 1
TILTS = 30, -30  # degrees by which a picture is rotated to find a lost face again
AROUND = 2.5  # side of that picture, relative to the larger side of the face
TURNED_SIZE = 1.5  # maximum larger side of the face in that picture, relative to the smallest detectable face
# The same for known faces, which are looked for around their last place. Smaller pictures move the boxes by 1 % of
# the face, larger ones take longer.
NEAR, NEAR_SIZE = 2.0, 2.0
NEAR_SHARE = 0.5  # of the picture; if these places are larger, the whole picture is searched
# The names of --face_detector. Another detector is added here; its tracks are kept apart by its name.
DETECTORS: dict[str, type[FaceDetector]] = {"mtcnn": Mtcnn, "yunet": YuNet}
MIN_REGION = 4  # pixels per side of a crop in a shot picture; smaller ones are not compared


@dataclass(frozen=True)
class Part:
    """Slots first ... last - 1 of a video (last None: to its end), whose first picture is at first_time.

    Parts of a long video overlap: the tracks of this one are joined at slot `begin` to those of the part before.
    restarts: the time stamps of the video restart, so that it can only be read from its beginning.
    """

    path: str
    first_time: float
    first: int
    last: int | None
    begin: int = 0
    restarts: bool = False


@dataclass(eq=False)
class _View:
    slot: int
    frame: av.VideoFrame
    small: np.ndarray  # shot picture
    scale: float  # of the shot picture
    recording: int  # number of the recording, in a concatenated file

    @property
    def kind(self) -> tuple:
        """Equal for pictures that can be compared: same recording, same size."""
        return self.recording, self.frame.width, self.frame.height, self.small.shape


class _FaceFinder:
    """Detects the faces in the current views, once per view. count: of all faces detected."""

    def __init__(self, reader: VideoReader, rule: Rule, views: list[_View]) -> None:
        self.count = 0
        self._reader = reader
        self._detector = DETECTORS[rule.detector](rule.min_face, rule.weights)
        self.sure = self._detector.sure
        self._views = views
        self._min_face = rule.min_face
        self._found: dict[int, list[Face]] = {}  # by slot

    def find(self, slot: int) -> list[Face]:
        if slot not in self._found:
            self._found[slot] = self._detector.find(self._picture(slot, self._detector.scale))
            self.count += len(self._found[slot])
        return self._found[slot]

    def find_again(self, slot: int, box: np.ndarray) -> Face | None:
        """The face near a box if the detector is sure of it in the picture rotated by TILTS; else None.

        MTCNN misses some tilted heads, mostly dark ones, but rarely when they are nearly upright.
        """
        found = [face for tilt in TILTS for face in self._around(slot, box, AROUND, TURNED_SIZE, tilt)]
        best = max(found, key=lambda face: face.confidence, default=None)
        return best if best is not None and best.confidence >= self.sure else None

    def find_near(self, slot: int, boxes: list[np.ndarray]) -> list[Face] | None:
        """The faces near these boxes; None if the detector is not sure of one of them, or find() takes less time."""
        frame = self._view(slot).frame
        sizes = [min((box[2:] - box[:2]).max(), NEAR_SIZE * self._min_face) for box in boxes]
        if sum((NEAR * size) ** 2 for size in sizes) > NEAR_SHARE * frame.width * frame.height:
            return None
        faces = []
        for box in boxes:
            near = self._around(slot, box, NEAR, NEAR_SIZE)
            best = max(near, key=lambda face: overlap(face.box, box), default=None)
            if best is None or best.confidence < self.sure:
                return None
            faces.append(best)
        return faces

    def _around(self, slot: int, box: np.ndarray, around: float, most: float, tilt: float = 0) -> list[Face]:
        """Faces in a part of the picture around a box, `around` times as large, rotated by `tilt` degrees.

        most: maximum larger side of the box in that part, relative to the smallest detectable face.
        """
        center, size = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max()
        scale = min(self._detector.scale, most * self._min_face * self._detector.scale / size)
        picture, side = self._picture(slot, scale), round(around * size * scale)
        turn = cv2.getRotationMatrix2D((center * scale).tolist(), tilt, 1)
        turn[:, 2] += np.round(side / 2 - center * scale)
        back = cv2.invertAffineTransform(turn)
        found = []
        for face in self._detector.find(cv2.warpAffine(picture, turn, (side, side))):
            corners = face.box.reshape(2, 2) * self._detector.scale  # find() divides by its scale
            middle, half = back @ [*corners.mean(0), 1], (corners[1] - corners[0]) / 2
            found.append(Face(np.hstack([middle - half, middle + half]) / scale, face.confidence))
        return found

    def _view(self, slot: int) -> _View:
        return next(view for view in self._views if view.slot == slot)

    def _picture(self, slot: int, scale: float) -> np.ndarray:
        return self._reader.bgr(self._view(slot).frame, scale)

    def forget(self, slot: int) -> None:
        self._found.pop(slot, None)


class Survey:
    """The first pass: the shots and face tracks of a part, in `builder`. Only a few pictures are in memory at a time.

    No reference cycle leads back to it, so that its pictures are freed with the last reference to it.
    """

    def __init__(self, reader: VideoReader, rule: Rule) -> None:
        self.reader = reader
        self.rule = rule
        self.end = 0
        self._views: list[_View] = []  # around the current one
        self._changes: ChangeFinder[OpenTrack] = ChangeFinder()
        self._finder = _FaceFinder(reader, rule, self._views)
        # A track that is long enough has a slot at which the whole picture is searched.
        search_every = max(1, min(SEARCH_EVERY, rule.min_frames - rule.detect_every))
        self._kept = max(FLASH, search_every + rule.detect_every)
        finder = self._finder
        self.builder = TrackBuilder(
            finder.find, finder.sure, finder.find_again, finder.find_near, search_every
        )

    @property
    def faces(self) -> int:
        """Faces found so far."""
        return self._finder.count

    def run(self, part: Part) -> None:
        self.end = part.first
        ahead = 0  # views that are not processed yet
        for slot, frame in self.reader.slots(part.first, part.last):
            self._views.append(self._view(slot, frame))
            ahead += 1
            self.end = slot + 1
            if ahead > FLASH:
                self._step(len(self._views) - ahead)
                ahead -= 1
                self._forget(ahead)
        for left in range(ahead, 0, -1):
            self._step(len(self._views) - left)
        if self._views:
            self.builder.end_shot(self._views[-1].slot)
        self._divide(self._changes.end_shot())

    def _view(self, slot: int, frame: av.VideoFrame) -> _View:
        if self._views and self._views[-1].frame is frame:
            return replace(self._views[-1], slot=slot)
        scale = min(1.0, SHOT_WIDTH / frame.width)
        small = shot_picture(self.reader.bgr(frame, scale))
        return _View(slot, frame, small, scale, self.reader.clock.recording_at(frame.time or 0.0))

    def _forget(self, ahead: int) -> None:
        keep = ahead + 1 + self._kept
        for view in self._views[:-keep]:
            self._finder.forget(view.slot)
        del self._views[:-keep]

    def _step(self, index: int) -> None:
        view = self._views[index]
        before, after = self._neighbors(index)
        if not before or is_cut([v.small for v in before], [v.small for v in after]):
            if index > 0:
                self.builder.end_shot(self._views[index - 1].slot)
            self._divide(self._changes.end_shot())
            self.builder.begin_shot(view.slot)
            self.builder.detect_at(view.slot)
            self._changes.add(view.slot, view.small)
            return
        cut = [track for track in self.builder.open if self._is_cut_there(track, before, after)]
        if cut:
            self.builder.cut(cut, view.slot)
        elif view.slot % self.rule.detect_every == 0:
            self.builder.detect_at(view.slot)
        self._changes.add(view.slot, view.small)
        crops = [(track, _crop_in(view, track.box)) for track in self.builder.open]
        self._divide(self._changes.lasting([(t, t.first, crop) for t, crop in crops if crop is not None]))

    def _divide(self, changes: list[tuple[OpenTrack | None, int, int]]) -> None:
        for track, first, last in changes:
            self.builder.divide(first, last, track)

    def _neighbors(self, index: int) -> tuple[list[_View], list[_View]]:
        """Views before the one at `index`, and from it on, that are consecutive and of one kind."""
        broken = [
            second
            for second, (a, b) in enumerate(pairwise(self._views), 1)
            if b.slot != a.slot + 1 or a.kind != b.kind
        ]
        begin = max((place for place in broken if place <= index), default=0)
        end = min((place for place in broken if place > index), default=len(self._views))
        return self._views[begin:index], self._views[index:end]

    def _is_cut_there(self, track: OpenTrack, before: list[_View], after: list[_View]) -> bool:
        """Is there a cut in the crop of this track: another face on the same background, for example?"""
        region = _crop_in(before[-1], track.box)
        if region is None:
            return False
        return is_cut([v.small[region] for v in before], [v.small[region] for v in after])


def _crop_in(view: _View, box: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns of the shot picture in the crop of a face, or None if they are too few."""
    left, top, right, bottom = box * view.scale
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
    rows = slice(max(0, int(y - ABOVE * half)), max(0, int(y + BELOW * half)))
    columns = slice(max(0, int(x - BESIDE * half)), max(0, int(x + BESIDE * half)))
    return (rows, columns) if min(view.small[rows, columns].shape[:2]) >= MIN_REGION else None
