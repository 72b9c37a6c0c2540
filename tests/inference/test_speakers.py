"""inferSyncNet.py speakers: who speaks when, on a scene with known turns."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from clipMaker import make_clip, make_wav
from scipy.io import wavfile
from test_show import colour_at, pictures_of
from videoMaker import make_video

import inferSyncNet
from syncnet.inference.speakers import speaking
from syncnet.tracks.track_files import track_text
from syncnet.tracks.track_folder import STATE, Record, mark_of
from syncnet.tracks.track_settings import Rule
from syncnet.tracks.tracks import Track

FIRST, FRAMES, TURN = 10, 44, 22  # slot at which both tracks begin, frames, and of the first turn
WIDTH, HEIGHT = 320, 240
NAN = float("nan")


@pytest.mark.parametrize(
    ("confidences", "shortest", "expected"),
    [
        ([0, 1, 3, 1, 1, 0], 1, "011110"),  # as long as it stays above the lower threshold
        ([1, 1, 2.9, 1, 1, 1], 1, "000000"),  # never above the upper one
        ([3, 3, 0, 3, 0, 3, 3, 3], 3, "00000111"),  # the shortest span
        ([NAN, 3, NAN, 3, 3, NAN], 2, "000110"),
        ([1, 3], 2, "11"),
        ([], 1, ""),
    ],
)
def test_spans_have_two_thresholds_and_a_shortest_length(confidences, shortest, expected):
    found = speaking(np.array(confidences, float), on=3, off=1, shortest=shortest)
    assert "".join(map(str, found.astype(int))) == expected


@pytest.fixture
def scene(clock, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A video of two people who speak in turns, and its face tracks.

    The left one shows the frames 0, 1 ..., the right one 50, 51 ...; the sound of the left one is heard first.
    """
    video, tracks = tmp_path / "a talk.mp4", tmp_path / "tracks"
    make_video(str(video), np.arange(FIRST + FRAMES + 6) / 25, size=(WIDTH, HEIGHT), flash=None)
    parts = []
    for first, begin in ((0, 0), (50, TURN)):
        make_wav(str(tmp_path / "part.wav"), TURN * 640 + 640, first=(first + begin - 1) * 640)
        parts.append(wavfile.read(tmp_path / "part.wav")[1][: TURN * 640])
    rows = []
    for number, (first, left) in enumerate(((0, 20), (50, 180)), 1):
        name = f"{number:05d}"
        make_clip(str(tracks / f"mp4/a talk/{name}.mp4"), FRAMES, first=first)
        for kind in ("wav", "txt"):
            (tracks / f"{kind}/a talk").mkdir(parents=True, exist_ok=True)
        wavfile.write(tracks / f"wav/a talk/{name}.wav", 16000, np.concatenate(parts))
        boxes = np.tile([left, 60, left + 100, 160], (FRAMES, 1))
        text = track_text("a talk", "a talk.mp4", Track(FIRST, boxes, FRAMES, 0.9, 1), WIDTH, HEIGHT)
        (tracks / f"txt/a talk/{name}.txt").write_text(text)
        rows.append(
            {"first": FIRST, "frames": FRAMES, "size": 100, "found": FRAMES, "confidence": 0.9, "shot": 1}
        )
    mark = mark_of(str(video), Rule(5, 34, 60))
    (tracks / STATE).mkdir()
    (tracks / STATE / "finished.jsonl").write_text(
        json.dumps(asdict(Record("a talk.mp4", mark, "a talk", rows, version=2))) + "\n"
    )
    monkeypatch.setattr(inferSyncNet, "load_network", lambda *_, **__: clock)
    return video, tracks


def run(*args) -> int:
    return inferSyncNet.main(["speakers", "--initial_model", "x", *map(str, args)])


def test_turns_are_found(scene, tmp_path, capsys):
    video, tracks = scene
    files = [tmp_path / name for name in ("seen.mp4", "a.rttm", "a.csv")]
    flags = ("--output", files[0], "--rttm", files[1], "--csv", files[2], "--max_offset", 5)
    assert run(video, "--tracks", tracks, *flags) == 0
    with open(files[2], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["person"] for row in rows] == ["a talk/00001", "a talk/00002"]
    assert {row["video"] for row in rows} == {str(video)}
    expected = np.zeros((2, FIRST + FRAMES), bool)
    expected[0, FIRST : FIRST + TURN] = expected[1, FIRST + TURN :] = True
    found = np.zeros_like(expected)
    for number, row in enumerate(rows):
        begin, end = round(float(row["begin_s"]) * 25), round(float(row["end_s"]) * 25)
        found[number, begin:end] = True
        assert float(row["confidence"]) > 0.3
    assert (found == expected)[:, FIRST:].mean() > 0.9

    lines = files[1].read_text().splitlines()
    for line, row in zip(lines, rows, strict=True):
        kind, name, channel, begin, length, _, _, person, _, _ = line.split()
        assert (kind, name, channel, person) == ("SPEAKER", "a_talk", "1", row["person"].replace(" ", "_"))
        assert float(begin) == float(row["begin_s"])
        assert float(begin) + float(length) == pytest.approx(float(row["end_s"]))

    turns = (FIRST + TURN // 2, FIRST + TURN + TURN // 2)
    assert [colours(files[0], slot) for slot in turns] == [["green", "red"], ["red", "green"]]
    *printed, last = capsys.readouterr().out.splitlines()
    for line, row in zip(printed, rows, strict=True):
        begin, end, _, confidence, *person = line.split()
        assert [begin, end, " ".join(person)] == [row["begin_s"], row["end_s"], row["person"]]
        assert float(confidence) == pytest.approx(float(row["confidence"]), abs=6e-4)
    assert last == f"{files[0]}: {video} with 2 face tracks"

    flags = ("--output", files[0], "--csv", files[2], "--max_offset", 5, "--min_span", 1.2)
    assert run(video, "--tracks", tracks, *flags) == 0
    assert "no face speaks in sync" in capsys.readouterr().out and len(files[2].read_text().splitlines()) == 1
    assert [colours(files[0], slot) for slot in turns] == [["red", "red"]] * 2  # whatever the confidence

    # Above --off all the time, and above --on at some.
    assert run(video, "--tracks", tracks, "--csv", files[2], "--max_offset", 5, "--on", 0.2, "--off", -9) == 0
    with open(files[2], newline="") as file:
        times = [(float(row["begin_s"]), float(row["end_s"])) for row in csv.DictReader(file)]
    measured = (FIRST / 25, (FIRST + FRAMES) / 25)
    assert times == [measured] * 2


def colours(video: Path, slot: int) -> list[str]:
    """Of the left sides of both boxes in a drawn picture."""
    picture = pictures_of(str(video))[slot]
    return [colour_at(picture, x / WIDTH, 110 / HEIGHT) for x in (20, 180)]


def test_contradictory_flags_are_refused(scene, capsys):
    video, tracks = scene
    for flags, message in (
        ((), "give --output, --rttm or --csv"),
        (("--csv", "x", "--on", 1, "--off", 2), "--off 2: is above --on 1"),
    ):
        with pytest.raises(SystemExit):
            run(video, *flags)
        assert message in capsys.readouterr().err
    assert run(video, "--tracks", tracks, "--csv", "x.csv", "--off", 2) == 1
    assert "--off 2: is above --on 0.15" in capsys.readouterr().err
