"""Face tracks drawn on their source: the right box in the right color on the right frame, and sound in sync."""

import numpy as np
import pytest
from videoMaker import click_time, flash_time, make_video

from syncnet.inference.drawing import SeenFace, confidence_of_frames, draw_video
from syncnet.inference.lip_sync import summarize
from syncnet.media.clips import MediaError
from syncnet.media.sound import decode_audio
from syncnet.media.timeline import VideoReader
from syncnet.tracks.track_files import read_track_boxes, track_text
from syncnet.tracks.tracks import Track

WIDTH, HEIGHT = 321, 241


def pictures_of(path: str) -> np.ndarray:
    with VideoReader(path) as reader:
        found = {slot: reader.bgr(frame) for slot, frame in reader.slots()}
    assert list(found) == list(range(len(found)))
    return np.stack(list(found.values()))


def colour_at(picture: np.ndarray, x: float, y: float) -> str:
    height, width = picture.shape[:2]
    blue, green, red = picture[round(y * height), round(x * width)].astype(int)
    return "green" if green > max(red, blue) + 60 else "red" if red > max(green, blue) + 60 else "none"


@pytest.mark.parametrize("fps", [25, 30000 / 1001])
def test_boxes_colours_and_sound_are_in_step(tmp_path, fps):
    source, output = str(tmp_path / "a.mkv"), str(tmp_path / "out/seen.mp4")
    frames = round(2.4 * fps)
    make_video(
        source,
        np.arange(frames) / fps,
        size=(WIDTH - 1, HEIGHT - 1),
        start=3.0,
        sound_from=0.2,
        format="matroska",
    )
    confidences = np.r_[np.full(20, 5.0), np.full(20, 0.5)]
    still = SeenFace(10, np.tile([0.1, 0.2, 0.3, 0.4], (40, 1)), confidences)
    moving = SeenFace(0, np.linspace([0.5, 0.5, 0.2, 0.2], [0.7, 0.5, 0.2, 0.2], 58), np.full(58, np.nan))
    told = []
    assert draw_video(source, [still, moving], output, 3.0, lambda *at: told.append(at)) == 60 == len(told)
    assert told == [(number, 60) for number in range(1, 61)]
    pictures = pictures_of(output)
    assert pictures.shape == (60, HEIGHT - 1, WIDTH - 1, 3) and told[-1][0] == 60
    seen = [colour_at(picture, 0.1, 0.4) for picture in pictures]
    assert seen == ["none"] * 10 + ["green"] * 20 + ["red"] * 20 + ["none"] * 10
    for slot in (0, 20, 57):
        left = moving.boxes[slot, 0]
        line = pictures[slot, round(0.6 * HEIGHT), round(left * WIDTH)]
        assert abs(line.astype(int) - 160).max() < 40  # grey, since it was not measured
    assert abs(flash_time(pictures[:, 200:, :40]) - click_time(decode_audio(output))) < 0.021
    assert abs(click_time(decode_audio(output)) - 1.0) < 0.021


def test_a_video_that_is_broken_leaves_no_output(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(MediaError, match="a.mp4"):
        draw_video(str(tmp_path / "a.mp4"), [], str(tmp_path / "seen.mp4"), 3.0)
    assert not (tmp_path / "seen.mp4").exists()


def test_a_frame_has_the_confidence_of_the_window_around_it():
    distances = np.full((30, 31), 10.0)
    distances[:, 15] = np.r_[np.full(15, 4), np.full(15, 8)]
    found = confidence_of_frames(summarize(distances, 35), 36)
    assert found.shape == (36,)
    assert (found[6:17] == 6).all() and (found[17:28] == 2).all()
    assert np.isnan(confidence_of_frames(None, 7)).all()
    assert confidence_of_frames(summarize(distances[:1], 6), 6).shape == (6,)


def test_boxes_are_read_as_they_were_written(tmp_path):
    boxes = np.linspace([32, 24, 96, 120], [64, 48, 128, 144], 50)
    (tmp_path / "a.txt").write_text(track_text("id1", "a", Track(17, boxes, 10, 0.9, 1), 320, 240))
    first, found = read_track_boxes(str(tmp_path / "a.txt"))
    assert first == 17 and found.shape == (50, 4)
    np.testing.assert_allclose(found[:, :2] * (320, 240), boxes[:, :2], atol=0.2)
    np.testing.assert_allclose(found[:, 2:] * (320, 240), boxes[:, 2:] - boxes[:, :2], atol=0.2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("FRAME X Y W H\n", "a.txt: no boxes in it"),
        ("FRAME X Y W H\n1 0.1 0.1 0.2\n", "a.txt, line 2: found '1 0.1 0.1 0.2', expected a frame's number"),
        ("FRAME X Y W H\n1 0.1 0.1 0.2 nan\n", "line 2"),
        ("FRAME X Y W H\n1 0.1 0.1 0.2 0.2\n3 0.1 0.1 0.2 0.2\n", "line 3: frame 3 follows frame 1"),
    ],
)
def test_a_broken_txt_is_named(tmp_path, lines, message):
    (tmp_path / "a.txt").write_text(lines)
    with pytest.raises(MediaError, match=message):
        read_track_boxes(str(tmp_path / "a.txt"))
