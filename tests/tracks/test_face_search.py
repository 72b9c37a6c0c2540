"""Between searches of the whole picture, known faces are found near their last place; the tracks are the same."""

import os

import cv2
import numpy as np
import pytest
from videoMaker import make_video

from syncnet.tracks.face_tracks import Plan, plan_parts, select_tracks, survey_part
from syncnet.tracks.faces import Face, FaceDetector
from syncnet.tracks.survey import DETECTORS
from syncnet.tracks.track_settings import Rule
from syncnet.tracks.tracks import Track, TrackBuilder, overlap

SIZE = (640, 360)


def box(left: float, side: float = 60) -> np.ndarray:
    return np.array([left, 10, left + side, 10 + side], np.float64)


class Scene:
    """Faces by slot, given as boxes; `near` and `searched` are the slots of calls of find_near() and find()."""

    def __init__(self, faces: dict[int, list[np.ndarray]]) -> None:
        self.faces = {slot: [Face(place, 1.0) for place in places] for slot, places in faces.items()}
        self.near: list[int] = []
        self.searched: set[int] = set()

    def find(self, slot: int) -> list[Face]:
        self.searched.add(slot)
        return self.faces.get(slot, [])

    def find_near(self, slot: int, boxes: list[np.ndarray]) -> list[Face] | None:
        self.near.append(slot)
        found = []
        for place in boxes:
            best = max(self.faces.get(slot, []), key=lambda face: overlap(face.box, place), default=None)
            if best is None:
                return None
            found.append(Face(best.box + 0.25, best.confidence))  # another object, at nearly the same place
        return found


def build(scene: Scene, end: int, search_every: int = 15, cuts: tuple[int, ...] = ()) -> TrackBuilder:
    """Tracks from detections at every fifth slot, by find_near() unless search_every is 0."""
    near = scene.find_near if search_every else None
    builder = TrackBuilder(scene.find, find_near=near, search_every=max(1, search_every))
    builder.begin_shot(0)
    for slot in range(end):
        if slot in cuts:
            builder.cut(list(builder.open), slot)
        elif slot % 5 == 0:
            builder.detect_at(slot)
    builder.end_shot(end - 1)
    return builder


def described(builder: TrackBuilder) -> list[list[int]]:
    """The slots of the detections of each track."""
    return sorted(sorted(track.faces) for track in builder.closed)


def test_the_whole_picture_is_searched_now_and_then():
    scene = Scene({slot: [box(slot), box(300 - slot)] for slot in range(50)})
    tracks = described(build(scene, 50))
    assert tracks == [[*range(0, 50, 5), 49]] * 2
    assert scene.searched == {0, 15, 30, 45, 49} and scene.near == [5, 10, 20, 25, 35, 40]


@pytest.mark.parametrize(
    ("begin", "end", "length"),
    [(18, 60, 50), (21, 60, 50), (31, 60, 50), (3, 22, 50), (46, 49, 50), (38, 60, 41), (38, 60, 42)],
)
@pytest.mark.parametrize("others", [0, 1])
def test_a_face_comes_and_goes_at_the_same_slots_as_without_it(begin, end, length, others):
    """Also shortly before the end of a shot, and if the other face was found near its last place meanwhile."""
    places = {slot: [box(300 + slot)] * others + [box(10)] * (begin <= slot < end) for slot in range(length)}
    tracks, expected = (described(build(Scene(places), length, every)) for every in (15, 0))
    assert tracks == expected and len(tracks) == others + (end != 49)


def test_a_face_between_two_searches_is_missed():
    scene = Scene({slot: [box(300)] + [box(10)] * (17 <= slot < 30) for slot in range(50)})
    assert len(described(build(scene, 50))) == 1


def test_without_a_track_the_whole_picture_is_searched_each_time():
    """A face that the detector finds in some frames only would otherwise begin later."""
    scene = Scene({slot: [box(10)] for slot in [22, *range(31, 60)]})
    assert described(build(scene, 60))[0][0] == 31
    assert scene.searched >= {0, 5, 10, 15, 20, 25, 30} and min(scene.near) > 31


def test_a_face_that_is_lost_is_searched_for_at_once():
    """So is one whose place another face has taken."""
    for elsewhere in ([], [box(200)]):
        scene = Scene({slot: [box(10)] if slot < 22 else elsewhere for slot in range(45)})
        tracks = described(build(scene, 45))
        assert tracks[0][-1] == 21 and (not elsewhere or tracks[1][0] == 22)
        assert 25 in scene.searched


def test_two_tracks_do_not_share_a_face():
    """One of two faces that overlap disappears: the other one is also near its last place."""
    scene = Scene({slot: [box(10), box(24)] if slot < 22 else [box(17)] for slot in range(45)})
    ends, expected = ([track[-1] for track in described(build(scene, 45, every))] for every in (15, 0))
    assert sorted(ends) == sorted(expected) == [24, 44]


def test_a_cut_is_followed_by_a_search_and_no_track_begins_before_it():
    scene = Scene({slot: [box(10)] if slot < 22 else [box(10), box(200)] for slot in range(40)})
    assert [(track[0], track[-1]) for track in described(build(scene, 40, cuts=(22,)))] == [
        (0, 21),
        (22, 39),
        (22, 39),
    ]


# ---------------------------------------------------------------- in a video


class SquareFinder(FaceDetector):
    """Finds bright squares; `sizes` are the widths of the pictures that it was given.

    near: its confidence in pictures that are not whole.
    """

    sure = typical = 0.9
    near = 1.0
    sizes: list[int] = []  # noqa: RUF012

    def __init__(self, min_face: int, weights: bytes | None) -> None:  # noqa: ARG002
        self.scale = min(1.0, 20 / min_face)

    def find(self, picture: np.ndarray) -> list[Face]:
        self.sizes.append(picture.shape[1])
        confidence = 1.0 if picture.shape[1] == round(SIZE[0] * self.scale) else self.near
        bright = cv2.threshold(picture[..., 0], 170, 255, cv2.THRESH_BINARY)[1]
        _, _, found, _ = cv2.connectedComponentsWithStats(bright)
        return [
            Face(np.array([left, top, left + wide, top + high]) / self.scale, confidence)
            for left, top, wide, high, area in found[1:]
            if area > 50
        ]


@pytest.fixture
def squares(monkeypatch) -> type[SquareFinder]:
    monkeypatch.setitem(DETECTORS, "squares", SquareFinder)
    monkeypatch.setattr(SquareFinder, "sizes", [])
    return SquareFinder


def scene_video(path: str, places: dict[int, tuple[int, int, int]], frames: int) -> Plan:
    """One part with squares, (first slot: left, top, side), which move to the right by a pixel per frame."""

    def draw(picture: np.ndarray, number: int) -> None:
        for first, (left, top, side) in places.items():
            if number >= first:
                picture[top : top + side, left + number : left + number + side] = 230

    options = {"preset": "ultrafast"}
    make_video(path, np.arange(frames) / 25, size=SIZE, flash=None, draw=draw, rate=16000, options=options)
    return plan_parts(path)


def surveyed(plan: Plan, rule: Rule) -> list[Track]:
    return select_tracks([survey_part(part, rule) for part in plan.parts], rule).tracks


def whole_pictures(sizes: list[int], scale: float) -> int:
    return sizes.count(round(SIZE[0] * scale))


def test_tracks_of_a_video_are_the_same(squares, tmp_path, monkeypatch):
    """Known faces are found in a small part of the picture, and one that appears is found in frames before."""
    places = {0: (40, 60, 80), 23: (330, 80, 100)}
    plan = scene_video(os.path.join(tmp_path, "a.mp4"), places, 60)
    rule = Rule(5, 30, 40, "squares")
    near = surveyed(plan, rule)
    searched = whole_pictures(squares.sizes, 0.5)
    squares.sizes.clear()
    monkeypatch.setattr("syncnet.tracks.survey.SEARCH_EVERY", 1)
    everywhere = surveyed(plan, rule)
    assert searched < whole_pictures(squares.sizes, 0.5) == len(squares.sizes)
    for tracks in (near, everywhere):
        assert [(track.first, track.end) for track in tracks] == [(0, 60), (23, 60)]
    for a, b in zip(near, everywhere, strict=True):
        assert a.found == b.found
        np.testing.assert_allclose(a.boxes, b.boxes, atol=4)


@pytest.mark.parametrize(
    ("min_frames", "sides", "searches"),
    [
        (30, [80], 4),
        (12, [80], 7),  # once in 7 slots, so that a track of 12 frames is not missed
        (6, [80], 9),
        (30, [50] * 4, 4),  # every known face is searched for near its place
        (30, [80] * 2, 4),  # where a part of another one may be seen, too
        (30, [80] * 5, 9),  # unless these places are most of the picture
    ],
)
def test_how_often_the_whole_picture_is_searched(squares, tmp_path, min_frames, sides, searches):
    places = {-n: (10 + n * (side + 40), 50, side) for n, side in enumerate(sides)}
    plan = scene_video(os.path.join(tmp_path, "a.mp4"), places, 40)
    surveyed(plan, Rule(5, min_frames, 40, "squares"))
    assert whole_pictures(squares.sizes, 0.5) == searches


def test_a_doubtful_face_near_its_last_place_is_searched_for_everywhere(squares, tmp_path, monkeypatch):
    plan = scene_video(os.path.join(tmp_path, "a.mp4"), {0: (40, 60, 80)}, 40)
    monkeypatch.setattr(squares, "near", 0.7)
    (track,) = surveyed(plan, Rule(5, 30, 40, "squares"))
    assert whole_pictures(squares.sizes, 0.5) == 9 and track.confidence == 1.0
