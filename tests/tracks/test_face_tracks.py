"""Shots, faces, tracks and crops: from the pictures of a video to its face tracks."""

import gc
import os
import weakref
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from videoMaker import face, make_video

from syncnet.media.timeline import VideoReader
from syncnet.media.wav import open_wav
from syncnet.tracks.face_tracks import plan_parts, select_tracks, survey_part, write_group, write_tracks
from syncnet.tracks.faces import Face
from syncnet.tracks.mtcnn import Mtcnn
from syncnet.tracks.shots import is_cut, shot_picture
from syncnet.tracks.survey import Part, Survey
from syncnet.tracks.track_joining import Stretch
from syncnet.tracks.track_settings import Rule
from syncnet.tracks.tracks import Track, TrackBuilder, crop, overlap, smooth


def box(left: float, top: float, side: float) -> np.ndarray:
    return np.array([left, top, left + side, top + side], np.float64)


# ---------------------------------------------------------------- joining faces to tracks


def build(places: dict[int, list], shots: list[tuple[int, int]], every: int = 5) -> tuple[list, set[int]]:
    """Tracks of faces, given as boxes or (box, confidence) by slot, and the slots that were looked at."""
    faces = {
        slot: [Face(*(f if isinstance(f, tuple) else (f, 1.0))) for f in found]
        for slot, found in places.items()
    }
    looked = set()

    def find(slot):
        looked.add(slot)
        return faces.get(slot, [])

    builder = TrackBuilder(find)
    for first, last in shots:
        builder.begin_shot(first)
        builder.detect_at(first)
        for slot in range(first, last):
            if slot % every == 0:
                builder.detect_at(slot)
        builder.end_shot(last - 1)
    return builder.finished, looked


def spans(tracks: list) -> list[tuple[int, int]]:
    return sorted((track.first, track.first + len(track)) for track in tracks)


def test_two_faces_that_move_are_two_tracks():
    tracks, looked = build({t: [box(t, 10, 60), box(200 - t, 10, 60)] for t in range(40)}, [(0, 40)])
    assert spans(tracks) == [(0, 40), (0, 40)]
    assert looked == {0, 5, 10, 15, 20, 25, 30, 35, 39}
    first = next(track for track in tracks if track.boxes[0, 0] == 0)
    assert np.allclose(first.boxes[:, 0], np.arange(40))  # interpolated between those found
    assert (first.found, first.size, first.confidence, first.shot) == (9, 60, 1.0, 1)


def test_tracks_begin_and_end_at_the_exact_slot():
    tracks, _ = build({t: [box(10, 10, 60), box(200, 10, 60)] for t in range(13, 48)}, [(0, 80)])
    assert spans(tracks) == [(13, 48)] * 2


@pytest.mark.parametrize(
    ("away", "every", "expected"), [(24, 5, [(0, 120)]), (25, 1, [(0, 120)]), (26, 1, [(0, 40), (66, 120)])]
)
def test_a_gap_of_a_second_is_bridged_and_a_longer_one_is_not(away, every, expected):
    there = [t for t in range(120) if not 40 <= t < 40 + away]
    tracks, _ = build({t: [box(10, 10, 60)] for t in there}, [(0, 120)], every)
    assert spans(tracks) == expected


def test_a_quick_movement_is_followed_frame_by_frame():
    places = {t: [box(10 + 12 * max(0, min(t - 12, 10)), 10, 60)] for t in range(40)}
    tracks, _ = build(places, [(0, 40)])
    assert spans(tracks) == [(0, 40)]


def test_a_track_ends_with_its_shot():
    tracks, _ = build({t: [box(10, 10, 60)] for t in range(60)}, [(0, 33), (33, 60)])
    assert spans(tracks) == [(0, 33), (33, 60)]
    assert [track.shot for track in tracks] == [1, 2]


def test_an_unsure_face_does_not_begin_a_track_but_may_continue_one():
    doubtful = {t: [(box(10, 10, 60), 0.8)] for t in range(40)}
    assert build(doubtful, [(0, 40)])[0] == []
    assert spans(build({**doubtful, 10: [box(10, 10, 60)]}, [(0, 40)])[0]) == [(6, 40)]


def test_a_track_of_low_confidence_is_discarded():
    """A hand has a median of 0.92 to 0.94 with MTCNN; a dark, tilted head 0.97, and a lower mean than some hands."""

    def selected(confidences):
        rows = [[float(t), c, 10.0, 10.0, 90.0, 90.0] for t, c in enumerate(confidences)]
        stretch = Stretch(0, 40, 40, [0], [rows], (0, 40))
        return len(select_tracks([stretch], RULE).tracks)

    assert selected([0.98] * 25 + [0.72] * 15) == 1
    assert selected([0.93] * 35 + [1.0] * 5) == 0


@pytest.mark.parametrize(
    ("slots", "count"), [(range(0, 40, 5), 1), ([0, 5, 15, 20, 30, 35], 1), ([0, 12, 24, 36], 0)]
)
def test_a_track_with_few_detections_is_discarded(slots, count):
    """A face is found in nearly every frame, a hand in about half of them, with any confidence."""
    rows = [[float(slot), 0.99, 10.0, 10.0, 90.0, 90.0] for slot in slots]
    rule = replace(RULE, min_frames=30)
    assert len(select_tracks([Stretch(0, 40, 40, [0], [rows], (0, 40))], rule).tracks) == count


def test_a_track_begins_with_the_confidence_of_the_detector():
    faces = {slot: [Face(box(10, 10, 60), 0.7)] for slot in range(20)}
    for sure, count in ((0.6, 1), (0.7, 1), (0.75, 0)):
        builder = TrackBuilder(lambda slot: faces[slot], sure)
        builder.begin_shot(0)
        builder.end_shot(19)
        assert len(builder.closed) == count


@pytest.mark.parametrize(
    ("again", "others", "expected"),
    [
        (box(20, 10, 60), [], [(0, 40)]),
        (None, [], [(0, 11)]),
        (box(60, 10, 60), [], [(0, 11)]),  # elsewhere
        (box(20, 10, 60), [box(60, 10, 60)], [(0, 11), (11, 40)]),  # find() returns another face there
    ],
)
def test_a_lost_face_is_searched_for_near_its_track(again, others, expected):
    asked = []

    def find(slot):
        return faces[slot]

    def find_again(slot, place):
        asked.append((slot, tuple(place)))
        return None if again is None else Face(again, 0.95)

    start, other = Face(box(10, 10, 60), 1.0), [Face(place, 1.0) for place in others]
    faces = {slot: [start] if slot <= 10 else other for slot in range(40)}
    builder = TrackBuilder(find, 0.9, find_again)
    builder.begin_shot(0)
    for slot in range(0, 40, 5):
        builder.detect_at(slot)
    builder.end_shot(39)
    assert spans(builder.finished) == expected
    assert asked[0] == (15, (10, 10, 70, 70))


def test_a_face_joins_the_track_that_it_overlaps_most():
    faces = {0: [Face(box(0, 10, 80), 1.0), Face(box(30, 10, 80), 1.0)]}
    faces[5] = [Face(box(4, 10, 80), 1.0), Face(box(26, 10, 80), 1.0)]
    builder = TrackBuilder(lambda slot: faces[min(faces, key=lambda known: abs(known - slot))])
    builder.begin_shot(0)
    builder.detect_at(0)
    builder.detect_at(5)
    lefts = sorted((track.faces[0].box[0], track.faces[5].box[0]) for track in builder.open)
    assert lefts == [(0, 4), (30, 26)]


def test_a_face_joins_only_one_track():
    faces = {
        slot: [Face(box(left, 10, 80), 1.0) for left in ((0, 20) if slot == 0 else (4,))] for slot in range(6)
    }
    builder = TrackBuilder(lambda slot: faces[slot])
    builder.begin_shot(0)
    builder.detect_at(0)
    builder.detect_at(5)
    assert [5 in track.faces for track in builder.open] == [True, False]


def test_a_cut_separates_faces_in_the_same_place():
    builder = TrackBuilder(lambda slot: faces[slot])
    faces = {t: [Face(box(10, 10, 60), 1.0)] for t in range(40)}
    builder.begin_shot(0)
    for slot in (0, 5, 10, 15, 20):
        builder.detect_at(slot)
    builder.cut(list(builder.open), 22)
    builder.end_shot(39)
    assert spans(builder.finished) == [(0, 22), (22, 40)]


def test_a_cut_in_one_of_two_faces_ends_one_track():
    faces = {slot: [Face(box(150, 10, 60), 1.0), Face(box(0, 10, 60), 1.0)] for slot in range(60)}
    builder = TrackBuilder(lambda slot: faces[slot])
    builder.begin_shot(0)
    builder.detect_at(0)
    left = next(track for track in builder.open if track.box[0] == 0)
    builder.cut([left], 30)
    builder.end_shot(59)
    assert spans(builder.finished) == [(0, 30), (0, 60), (30, 60)]


@pytest.mark.parametrize("whole", [False, True])
def test_a_gradual_change_divides_the_tracks_that_cross_it(whole):
    """In slots 12 to 17, of the whole picture or of a track. One face is cut at slot 15, one appears at slot 17."""
    faces = {slot: [Face(box(slot, 10, 60), 1 - (slot == 14) / 2)] for slot in range(40)}
    for slot, found in faces.items():
        found += [Face(box(left, 10, 60), 1.0) for left in (300, 500) + (700,) * (slot >= 17)]
    builder = TrackBuilder(lambda slot: faces[slot])
    builder.begin_shot(0)
    builder.detect_at(0)
    builder.detect_at(10)
    builder.cut([track for track in builder.open if track.box[0] == 500], 15)
    builder.detect_at(20)
    builder.divide(12, 17, None if whole else next(track for track in builder.open if track.box[0] == 20))
    builder.end_shot(39)
    tracks = sorted((t.boxes[0, 0], t.first, t.end, t.shot) for t in builder.finished)
    divided = [(0, 0, 12, 1), (18, 18, 40, 2 if whole else 1)]
    if whole:
        others = [(300, 0, 12, 1), (300, 18, 40, 2), (500, 0, 12, 1), (500, 18, 40, 2), (700, 18, 40, 2)]
    else:
        others = [(300, 0, 40, 1), (500, 0, 15, 1), (500, 15, 40, 1), (700, 17, 40, 1)]
    assert tracks == divided + others and builder.shot_starts == ([0, 18] if whole else [0])
    first = next(track for track in builder.finished if track.boxes[0, 0] == 0)
    assert first.boxes[-1, 0] == 11 and first.found == 3  # at 0, 10 and, between 10 and 14, 11
    assert first.confidence == pytest.approx((1 + 1 + 0.5) / 3)


def test_overlap():
    assert overlap(box(0, 0, 10), box(0, 0, 10)) == 1
    assert overlap(box(0, 0, 10), box(5, 0, 10)) == pytest.approx(1 / 3)
    assert overlap(box(0, 0, 10), box(20, 0, 10)) == overlap(box(0, 0, 10), box(10, 10, 10)) == 0


# ---------------------------------------------------------------- crops


def test_boxes_are_smoothed_without_lag_and_without_a_drop_at_the_ends():
    moving = np.array([box(2 * t, 50, 40) for t in range(100)], np.float64)
    shaken = moving + np.random.default_rng(0).normal(0, 2, moving.shape)
    shaken[30] += 300  # one wrong box
    steady = smooth(shaken)
    right = (moving[:, :2] + moving[:, 2:]) / 2
    assert np.abs(steady[8:-8, :2] - right[8:-8]).max() < 3
    assert np.abs(np.diff(steady[:, 1])).max() < 0.8
    assert steady[0, 2] == pytest.approx(20, abs=2.5)


@pytest.mark.parametrize("half", [30.0, 112 / 1.4, 150.0])
def test_the_crop_follows_the_rule(half):
    """The face is 1 / 1.4 of the side, its middle at half the width and 1 / 2.8 of the height."""
    picture = np.zeros((600, 900, 3), np.uint8)
    x, y = 450.25, 260.5
    cv2.rectangle(
        picture,
        (round(x - half), round(y - half)),
        (round(x + half) - 1, round(y + half) - 1),
        (255,) * 3,
        -1,
    )
    seen = crop(picture, x, y, half)
    assert (seen.shape, seen.dtype) == ((224, 224, 3), np.uint8)
    rows, columns = np.nonzero(seen[..., 0] > 127)
    assert rows.max() - rows.min() + 1 == pytest.approx(160, abs=2.5)
    assert columns.max() - columns.min() + 1 == pytest.approx(160, abs=2.5)
    assert (rows.max() + rows.min()) / 2 == pytest.approx(79.5, abs=1.5)
    assert (columns.max() + columns.min()) / 2 == pytest.approx(111.5, abs=1.5)


@pytest.mark.parametrize("half", [30.3, 200.4])
def test_a_crop_is_that_of_a_picture_with_a_gray_border(half):
    picture = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 10, 3), np.uint8), (500, 300))
    bordered = cv2.copyMakeBorder(picture, 600, 600, 600, 600, cv2.BORDER_CONSTANT, value=(110, 110, 110))
    for x, y in ((250.3, 150.6), (20.4, 30.2), (480.7, 290.1)):
        difference = crop(picture, x, y, half) - crop(bordered, x + 600, y + 600, half).astype(float)
        assert np.abs(difference).mean() < 0.5
    assert (crop(np.full((900, 900, 3), 250, np.uint8), 450.3, 350.6, half) == 250).all()
    outside = crop(picture, -600.0, 50.0, half)
    assert (outside == 110).all() and outside.dtype == np.uint8


def test_large_crops_are_averaged():
    """To a third of their size; one column of three is white, but not the middle one."""
    picture = np.zeros((680, 680, 3), np.uint8)
    picture[:, ::3] = 255
    assert crop(picture, 336.0, 240.0, 240.0).mean() == pytest.approx(85, abs=1)


def test_the_crops_of_a_track_follow_its_face_steadily(tmp_path):
    """A white square that moves by 2 pixels per frame, in boxes that jump by 8; the crop enlarges it four times."""

    def draw(picture, number):
        picture[100:140, 20 + 2 * number : 60 + 2 * number] = 255

    path = str(tmp_path / "a.mp4")
    make_video(path, np.arange(50) / 25, size=(WIDTH, 240), flash=None, draw=draw)
    boxes = np.array([box(20 + 2 * t + 4 * (-1) ** t, 100, 40) for t in range(50)])
    with VideoReader(path) as reader:
        part = Part(path, reader.first_time, 0, None)
        write_tracks(reader, part, [Track(0, boxes, 50, 1.0, 1).part(10, 50)], str(tmp_path), "a")
    video = cv2.VideoCapture(str(tmp_path / "00001.mp4"))
    centers = [np.argwhere(video.read()[1][..., 0] > 160).mean(0) for _ in range(40)]
    assert np.abs(np.array(centers)[6:-6] - [79.5, 111.5]).max() < 4
    lines = np.array([line.split() for line in (tmp_path / "00001.txt").read_text().splitlines()[7:]], float)
    sizes = np.hstack([boxes[10:, :2], np.full((40, 2), 40)]) / [WIDTH, 240, WIDTH, 240]
    assert lines[:, 0].tolist() == list(range(11, 51)) and np.abs(lines[:, 1:] - sizes).max() < 0.0006


# ---------------------------------------------------------------- shots


def test_cuts_and_flashes():
    rng = np.random.default_rng(0)
    a, b = (
        shot_picture(cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (256, 144))) for _ in range(2)
    )
    white = shot_picture(np.full((144, 256, 3), 255, np.uint8))
    assert is_cut([a] * 6, [b] * 6)
    assert is_cut([a], [b])
    assert not is_cut([a] * 6, [a] * 6)
    assert not is_cut([a] * 6, [white, a, a, a, a, a])  # a flash begins
    assert not is_cut([a, a, a, a, a, white], [a] * 6)  # and ends
    assert is_cut([a, a, a, a, a, white], [b] * 6)


# ---------------------------------------------------------------- faces


def test_the_box_of_a_face_at_the_edge_extends_outside():
    found = Mtcnn(48).find(np.ascontiguousarray(face(200)[30:]))
    assert len(found) == 1
    assert found[0].box[1] < -15


# ---------------------------------------------------------------- scenes

WIDTH, HEIGHT = 320, 180
RULE = Rule(detect_every=5, min_frames=20, min_face=60)


def make_tracks(part: Part, rule: Rule, folder: str, identity: str) -> list[dict]:
    """Both passes over a video that is one part."""
    tracks = select_tracks([survey_part(part, rule)], rule).tracks
    return write_group(part, tracks, folder, identity) if tracks else []


class Scene:
    """Faces in squares on a background: (left, top, side, first, last, which), drawn into a video."""

    def __init__(self, squares: list[tuple], cuts: tuple[int, ...] = ()) -> None:
        self.squares, self.cuts = squares, cuts
        rng = np.random.default_rng(3)
        self.backgrounds = [
            cv2.resize(rng.integers(60, 120, (6, 10, 3), np.uint8), (WIDTH, HEIGHT))
            for _ in range(1 + len(cuts))
        ]
        self.faces = {
            (side, which): (face(side)[:, ::-1, ::-1] if which else face(side))
            for _, _, side, _, _, which in squares
        }

    def draw(self, picture: np.ndarray, number: int) -> None:
        picture[:] = self.backgrounds[sum(number >= cut for cut in self.cuts)]
        for left, top, side, first, last, which in self.squares:
            if first <= number < last:
                picture[top : top + side, left : left + side] = self.faces[side, which]


def tracks_of(tmp_path, scene: Scene, frames: int, rate: float = 25) -> list[dict]:
    source, folder = str(tmp_path / "a.mp4"), str(tmp_path / "out")
    make_video(
        source, np.arange(frames) / rate, size=(WIDTH, HEIGHT), flash=None, draw=scene.draw, rate=16000
    )
    (part,) = plan_parts(source).parts
    return make_tracks(part, RULE, folder, "a")


@pytest.mark.parametrize(
    ("squares", "cuts", "frames", "expected"),
    [
        ([(10, 30, 112, 0, 45, 0), (180, 20, 112, 0, 45, 1)], (), 45, [(0, 45), (0, 45)]),  # two people
        ([(10, 30, 112, 0, 33, 0), (180, 20, 112, 33, 60, 1)], (33,), 60, [(0, 33), (33, 60)]),  # a cut
        ([(100, 30, 112, 0, 33, 0), (100, 30, 112, 33, 60, 1)], (), 60, [(0, 33), (33, 60)]),  # in one place
        (
            [(100, 30, 112, 0, 28, 0), (100, 30, 112, 78, 105, 0)],
            (),
            105,
            [(0, 28), (78, 105)],
        ),  # leaves for 2 s
    ],
)
def test_scenes(tmp_path, squares, cuts, frames, expected):
    tracks = tracks_of(tmp_path, Scene(squares, cuts), frames)
    assert len(tracks) == len(expected)
    for track, (first, last) in zip(tracks, expected, strict=True):
        assert abs(track["first"] - first) <= 1
        assert abs(track["first"] + track["frames"] - last) <= 1
    for number, track in enumerate(tracks, 1):
        square = squares[number - 1]
        lines = (tmp_path / f"out/{number:05d}.txt").read_text().splitlines()
        assert lines[2].split() == ["Offset", ":", "0"]
        numbers = [line.split() for line in lines[7:]]
        assert [int(fields[0]) for fields in numbers] == list(
            range(track["first"] + 1, track["first"] + 1 + len(numbers))
        )
        left, top, wide, high = np.array(numbers, np.float64)[:, 1:].mean(0) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
        half = max(wide, high) / 2
        x, y = left + wide / 2, top + high / 2
        seen = np.array([x - 1.4 * half, y - half, x + 1.4 * half, y + 1.8 * half])
        assert overlap(seen, box(*square[:3])) > 0.8
        video = cv2.VideoCapture(str(tmp_path / f"out/{number:05d}.mp4"))
        shown = np.array([video.read()[1] for _ in range(track["frames"])], np.float64)
        assert not video.read()[0]
        assert len(open_wav(str(tmp_path / f"out/{number:05d}.wav"))) == track["frames"] * 640
        # What the loader sees is what the source shows there.
        original = face(224)
        people = [original.ravel(), original[:, ::-1, ::-1].ravel()]
        alike = [np.corrcoef(shown.mean(0).ravel(), person)[0, 1] for person in people]
        assert alike[square[5]] > max(0.6, alike[1 - square[5]] + 0.2)


def draw_tilting(picture: np.ndarray, number: int, tilt: float) -> None:
    """A dark face that tilts by up to `tilt` degrees from picture 10 to 40, and stays so."""
    square = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    square[30:142, 100:212] = face(112)
    turn = cv2.getRotationMatrix2D((156, 86), tilt * np.clip((number - 10) / 30, 0, 1), 1)
    picture[:] = cv2.warpAffine(square, turn, (WIDTH, HEIGHT), borderValue=(90, 90, 90)) // 5


@pytest.mark.parametrize("tilt", [-45, 45])
def test_a_dark_face_that_tilts_is_not_lost(tmp_path, tilt):
    """The detector misses it at this tilt, but is sure of it at a third of that."""
    path = str(tmp_path / "a.mp4")
    make_video(
        path,
        np.arange(100) / 25,
        size=(WIDTH, HEIGHT),
        flash=None,
        draw=lambda picture, number: draw_tilting(picture, number, tilt),
        rate=16000,
    )
    (part,) = plan_parts(path).parts
    (track,) = select_tracks([survey_part(part, RULE)], RULE).tracks
    assert (track.first, track.end) == (0, 100)
    assert track.found == 21
    x, y = (track.boxes[-1, :2] + track.boxes[-1, 2:]) / 2
    assert np.hypot(x - 156, y - 76) < 20


def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch):
    """Frames are given back as soon as they are looked at, not when the garbage is collected."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system does not say how much memory a process has")
    path = str(tmp_path / "a.mp4")
    make_video(path, np.arange(250) / 25, size=(640, 480), flash=None, options={"preset": "ultrafast"})
    monkeypatch.setattr(Mtcnn, "find", lambda self, picture: [])  # noqa: ARG005
    held = []
    step = Survey._step

    def watched(self, index):
        held.append(int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        step(self, index)

    monkeypatch.setattr(Survey, "_step", watched)
    gc.disable()
    try:
        make_tracks(plan_parts(path).parts[0], RULE, str(tmp_path / "out"), "a")
    finally:
        gc.enable()
    assert len(held) == 250
    assert held[-1] - held[50] < 200 * 640 * 480 * 1.5 / 2  # bytes; half of the 200 frames between


def frames_alive() -> int:
    return sum(
        type(thing) is av.VideoFrame for thing in gc.get_objects()
    )  # isinstance would wake lazy modules


def test_a_part_leaves_nothing_in_memory(tmp_path, monkeypatch):
    """Without the garbage collector, which comes late to a process that works on part after part."""
    path = str(tmp_path / "a.mp4")
    make_video(path, np.arange(30) / 25, size=(320, 240), flash=None, options={"preset": "ultrafast"})
    made = []
    for kind in (Survey, Mtcnn, VideoReader):
        begin = kind.__init__

        def watched(self, *args, begin=begin):
            made.append(weakref.ref(self))
            begin(self, *args)

        monkeypatch.setattr(kind, "__init__", watched)
    gc.collect()
    before = frames_alive()
    gc.disable()
    try:
        make_tracks(plan_parts(path).parts[0], RULE, str(tmp_path / "out"), "a")
        assert frames_alive() == before
    finally:
        gc.enable()
    assert len(made) == 4 and [reference() for reference in made] == [None] * 4


def test_a_flash_does_not_end_a_track(tmp_path):
    scene = Scene([(100, 30, 112, 0, 50, 0)])

    def draw(picture, number):
        scene.draw(picture, number)
        if 22 <= number < 25:
            picture[:] = 255

    make_video(str(tmp_path / "a.mp4"), np.arange(50) / 25, size=(WIDTH, HEIGHT), flash=None, draw=draw)
    (part,) = plan_parts(str(tmp_path / "a.mp4")).parts
    tracks = make_tracks(part, RULE, str(tmp_path / "out"), "a")
    assert [(track["first"], track["frames"]) for track in tracks] == [(0, 50)]
