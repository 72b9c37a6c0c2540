"""A long video is surveyed in parts: where it is divided, and tracks that do not depend on that."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from test_face_tracks import HEIGHT, RULE, WIDTH, Scene
from videoMaker import make_video

from syncnet.media.clock import Clock
from syncnet.media.timeline import VideoReader
from syncnet.media.wav import open_wav
from syncnet.tracks.face_tracks import group_tracks, plan_parts, select_tracks, survey_part, write_group
from syncnet.tracks.survey import Part
from syncnet.tracks.track_joining import Stretch, join
from syncnet.tracks.track_settings import Rule
from syncnet.tracks.track_sound import read_sound
from syncnet.tracks.tracks import Track


def make_scene(path: Path, scene: Scene, frames: int, key_frames: int, **settings) -> str:
    defaults = {
        "size": (WIDTH, HEIGHT),
        "flash": None,
        "options": {"g": str(key_frames), "preset": "veryfast"},
    }
    make_video(str(path), np.arange(frames) / 25, draw=scene.draw, **{**defaults, **settings})
    return str(path)


def described(tracks: list[Track]) -> list:
    return [(t.first, t.boxes.tolist(), t.found, t.confidence, t.shot) for t in tracks]


# Two people from 0 on; one leaves and comes back; a cut; another person in the same place; a short visit.
BUSY = Scene(
    [
        (10, 30, 112, 0, 170, 0),
        (190, 20, 112, 0, 62, 1),
        (190, 20, 112, 80, 170, 1),
        (100, 30, 112, 170, 236, 0),
        (100, 30, 112, 236, 300, 1),
        (20, 40, 112, 310, 350, 0),
        (190, 40, 112, 330, 380, 1),
    ],
    cuts=(170,),
)


@pytest.fixture(scope="module")
def busy(tmp_path_factory) -> tuple[str, Stretch]:
    """A busy video, and its survey in one piece."""
    path = make_scene(tmp_path_factory.mktemp("busy") / "a.mp4", BUSY, 400, 12)
    return path, survey_part(Part(path, 0.0, 0, None), RULE)


@pytest.mark.parametrize(
    "length", [61, *(pytest.param(n, marks=pytest.mark.slow) for n in (48, 85, 130, 180))]
)
def test_tracks_do_not_depend_on_where_the_video_is_divided(busy, monkeypatch, length):
    path, whole = busy
    monkeypatch.setattr("syncnet.tracks.face_tracks.SURVEY_PART", length)
    parts = plan_parts(path, RULE.detect_every).parts
    assert len(parts) >= 400 // (length + 12) and all(part.begin % RULE.detect_every == 0 for part in parts)
    stretches = [survey_part(part, RULE) for part in parts]
    saved = [Stretch(**json.loads(json.dumps(asdict(stretch)))) for stretch in stretches]
    expected = join([whole])
    assert len(expected) >= 7
    assert described(join(saved)) == described(expected)
    assert described(select_tracks(saved, RULE).tracks) == described(select_tracks([whole], RULE).tracks)


def faces(first: int, last: int, left: float, every: int = 5) -> list[list[float]]:
    """Detections of a face of 60 pixels that does not move, as a Stretch has them."""
    return [[slot, 1.0, left, 10.0, left + 60, 70.0] for slot in range(first, last, every)]


def stretch(begin: int, end: int, starts: list[int], *tracks: list[list[float]]) -> Stretch:
    return Stretch(
        begin=begin, end=end, faces=1, shot_starts=starts, detections=list(tracks), sound=(begin, end)
    )


@pytest.mark.parametrize(
    ("before", "after", "starts", "spans"),
    [
        (faces(0, 110, 10), faces(60, 200, 10), [60], [(0, 196)]),  # one face all the time
        (faces(0, 110, 10), faces(105, 200, 10), [60], [(0, 196)]),  # not seen by the second part before
        (faces(0, 81, 10), faces(105, 200, 10), [60], [(0, 196)]),  # hidden for 24 slots
        (faces(0, 76, 10), faces(100, 200, 10), [60], [(0, 196)]),
        (faces(0, 75, 10), faces(100, 200, 10), [60], [(0, 71), (105, 196)]),
        (faces(0, 71, 10), faces(105, 200, 10), [60], [(0, 71), (105, 196)]),  # hidden for longer
        (faces(0, 110, 10), faces(60, 200, 80), [60], [(0, 101), (105, 196)]),  # elsewhere
        (
            faces(0, 101, 10),
            faces(103, 200, 10),
            [60, 103],
            [(0, 101), (103, 199)],
        ),  # a cut behind the border
    ],
)
def test_a_track_continues_in_the_next_part_by_the_rule_within_a_part(before, after, starts, spans):
    tracks = join([stretch(0, 109, [0], before), stretch(100, 200, starts, after)])
    assert [(track.first, track.end) for track in tracks] == spans
    assert [track.shot for track in tracks] == ([1, 2] if starts[1:] else [1] * len(spans))


def test_another_person_in_the_same_place_is_another_track_next_to_a_border():
    """The first one's track has ended in the part that saw both."""
    first, second = faces(60, 101, 10), faces(101, 200, 10)
    tracks = join([stretch(0, 101, [0], faces(0, 101, 10)), stretch(100, 200, [60], first, second)])
    assert [(track.first, track.end) for track in tracks] == [(0, 101), (101, 197)]


def test_shots_are_numbered_over_the_whole_video():
    tracks = join(
        [
            stretch(0, 109, [0, 40], faces(0, 40, 10), faces(40, 100, 10)),
            stretch(100, 200, [60, 150], faces(60, 150, 10), faces(150, 200, 10)),
        ]
    )
    assert [(track.first, track.shot) for track in tracks] == [(0, 1), (40, 2), (150, 3)]


def test_a_long_track_is_written_in_even_pieces():
    """No rest is dropped for being short, and no piece is shorter than asked for."""
    one = [stretch(0, 1030, [0], faces(0, 1030, 10))]
    found = select_tracks(one, Rule(5, 34, 60))
    assert [(track.first, track.end, track.found) for track in found.tracks] == [
        (0, 513, 103),
        (513, 1026, 103),
    ]
    assert found.longest == found.heard == 1026
    assert [len(track) for track in select_tracks(one, Rule(5, 600, 60)).tracks] == [1026]
    assert select_tracks(one, Rule(5, 1000, 61)).tracks == []


def test_tracks_are_written_in_groups_that_begin_close_together():
    tracks = select_tracks(
        [stretch(0, 3000, [0], faces(0, 2996, 10), faces(100, 401, 90), faces(1200, 1301, 90))], RULE
    ).tracks
    assert [track.first for track in tracks] == [0, 100, 998, 1200, 1997]
    assert [[t.first for t in group] for group in group_tracks(tracks, 1000)] == [[0, 100, 998], [1200, 1997]]
    assert len(group_tracks(tracks, np.inf)) == 1


def test_a_video_with_one_key_frame_is_not_divided(tmp_path, monkeypatch):
    monkeypatch.setattr("syncnet.tracks.face_tracks.SURVEY_PART", 50)
    scene = Scene([(100, 30, 112, 0, 300, 0)])
    path = make_scene(
        tmp_path / "a.mp4", scene, 300, 1000, options={"x264-params": "keyint=infinite:scenecut=0"}
    )
    plan = plan_parts(path)
    assert (plan.length, plan.declared) == (300, 300)
    assert [(part.first, part.last) for part in plan.parts] == [(0, None)]
    path = make_scene(tmp_path / "b.mp4", scene, 300, 120)
    assert [part.first for part in plan_parts(path).parts] == [0, 120, 240]


@pytest.mark.parametrize("seconds", [86400.0, 1e8, 0.5])
def test_a_wrong_declared_duration_makes_no_parts(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr("syncnet.tracks.face_tracks.SURVEY_PART", 50)
    path = tmp_path / "a.mkv"
    make_video(str(path), np.arange(150) / 25, format="matroska", flash=None, options={"g": "25"})
    data = bytearray(path.read_bytes().replace(b"DURATION", b"DURATIOX"))
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = np.array(seconds * 1000, ">f8").tobytes()
    path.write_bytes(data)
    plan = plan_parts(str(path))
    assert plan.declared == round(seconds * 25)
    assert abs(plan.length - 150) <= 1
    assert [part.first for part in plan.parts] == [0, 50, 100]


def test_a_video_whose_time_stamps_restart_is_not_divided(tmp_path, monkeypatch):
    monkeypatch.setattr("syncnet.tracks.face_tracks.SURVEY_PART", 50)
    for name, frames in (("a", 150), ("b", 100)):
        make_video(
            str(tmp_path / name), np.arange(frames) / 25, format="mpegts", flash=None, options={"g": "25"}
        )
    path = tmp_path / "c.ts"
    path.write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    plan = plan_parts(str(path))
    assert len(plan.parts) == 1
    assert abs(plan.length - 250) <= 2


def test_a_video_whose_seeks_lead_to_its_beginning_is_not_divided(tmp_path, monkeypatch):
    monkeypatch.setattr("syncnet.tracks.face_tracks.SURVEY_PART", 50)
    monkeypatch.setattr("syncnet.media.timeline.MAX_LEAD", 1.0)
    path = str(tmp_path / "a.mp4")
    make_video(path, np.arange(150) / 25, flash=None, options={"g": "25"})
    assert len(plan_parts(path).parts) == 3

    class Seekless(VideoReader):
        def _seek(self, time):  # noqa: ARG002
            self.clock = Clock()
            self.container.seek(0)
            return self._frames()

    monkeypatch.setattr("syncnet.tracks.face_tracks.VideoReader", Seekless)
    assert len(plan_parts(path).parts) == 1


def test_the_sound_of_a_long_video_is_read_a_little_at_a_time(tmp_path, monkeypatch):
    """Also where its pictures are read in one piece; the sound of a track is the same."""
    scene = Scene([(100, 30, 112, 0, 150, 0)])
    path = make_scene(tmp_path / "a.mp4", scene, 150, 1000, flash=4.0, rate=16000)
    (part,) = plan_parts(path).parts
    whole = select_tracks([survey_part(part, RULE)], RULE)
    track = whole.tracks[0]
    track = replace(track, confidence=0.93, typical=0.97)
    pieces = [track.part(first, first + 50) for first in (0, 50, 100)]
    rows = write_group(part, pieces, str(tmp_path / "whole"), "a")
    assert [(row["first"], row["frames"], row["confidence"]) for row in rows] == [
        (0, 50, 0.93), (50, 50, 0.93), (100, 50, 0.93),
    ]  # fmt: skip
    lengths = []

    def watched(path, first_time, first, last, **settings):
        lengths.append(last - first)
        return read_sound(path, first_time, first, last, **settings)

    monkeypatch.setattr("syncnet.tracks.face_tracks.SOUND_LENGTH", 50)
    monkeypatch.setattr("syncnet.tracks.face_tracks.read_sound", watched)
    assert select_tracks([survey_part(part, RULE)], RULE).heard == whole.heard == 150
    write_group(part, pieces, str(tmp_path / "pieces"), "a")
    assert lengths == [50] * 6
    for number in ("00001", "00002", "00003"):
        one, other = (
            np.array(open_wav(str(tmp_path / f"{kind}/{number}.wav"))) for kind in ("whole", "pieces")
        )
        assert len(one) == len(other) == 32000 and np.corrcoef(one, other)[0, 1] > 0.99
        assert (tmp_path / f"whole/{number}.mp4").read_bytes() == (
            tmp_path / f"pieces/{number}.mp4"
        ).read_bytes()
    lengths.clear()
    survey_part(replace(part, restarts=True), RULE)
    assert lengths == [150]
