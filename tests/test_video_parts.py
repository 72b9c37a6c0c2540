"""A long video is surveyed in parts: where it is divided, and tracks that do not depend on that."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from test_face_tracks import HEIGHT, RULE, WIDTH, Scene
from videoMaker import make_video

from media.faceTracks import plan_parts, select_tracks, survey_part
from media.survey import Part
from media.track_joining import Stretch, join
from media.tracks import Track


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
    """A video with much going on, and its survey in one piece."""
    path = make_scene(tmp_path_factory.mktemp("busy") / "a.mp4", BUSY, 400, 12)
    return path, survey_part(Part(path, 0.0, 0, None), RULE)


@pytest.mark.parametrize("length", [48, 61, 85, 130, 180])
def test_tracks_do_not_depend_on_where_the_video_is_divided(busy, monkeypatch, length):
    path, whole = busy
    monkeypatch.setattr("media.faceTracks.PART", length)
    parts = plan_parts(path, RULE.detect_every).parts
    assert len(parts) >= 400 // (length + 12)
    stretches = [survey_part(part, RULE) for part in parts]
    saved = [Stretch(**json.loads(json.dumps(asdict(stretch)))) for stretch in stretches]
    expected = join([whole])
    assert len(expected) >= 7
    assert described(join(saved)) == described(expected)
    assert described(select_tracks(saved, RULE).tracks) == described(select_tracks([whole], RULE).tracks)
