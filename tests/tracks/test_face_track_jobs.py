"""makeFaceTracks.py on videos of several parts, in any order and interrupted anywhere; and on its own faults."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from test_face_tracks import Scene
from test_make_face_tracks import PERSON, files, reasons, rows, run, video
from videoMaker import face

import syncnet.tracks.track_jobs
from syncnet.tracks.face_tracks import plan_parts
from syncnet.tracks.track_jobs import plan
from syncnet.tracks.track_settings import Rule

JOBS = ("survey_part", "write_group")


@pytest.fixture
def short_parts(monkeypatch) -> None:
    for name in ("face_tracks.SURVEY_PART", "face_tracks.PART", "track_jobs.PART"):
        monkeypatch.setattr(f"syncnet.tracks.{name}", 50)


@pytest.fixture(scope="module")
def two_shots(tmp_path_factory) -> Path:
    """A folder with a video of two shots, src/a.mp4, and its tracks in `whole`, written in short parts."""
    folder = tmp_path_factory.mktemp("two shots")
    scene = Scene([(100, 30, 112, 0, 60, 0), (100, 30, 112, 60, 200, 1)], cuts=(60,))
    video(folder / "src/a.mp4", 200, draw=scene.draw, options={"preset": "ultrafast", "g": "25"})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("face_tracks.SURVEY_PART", "face_tracks.PART", "track_jobs.PART"):
            patch.setattr(f"syncnet.tracks.{name}", 50)
        assert run(folder / "src", folder / "whole") == 0
    return folder


@pytest.mark.usefixtures("short_parts")
def test_parts_begin_where_faces_are_detected(two_shots):
    for every in (5, 7):
        planned = plan(str(two_shots / "src"), Rule(every, 34, 60), "a.mp4")[1]
        assert len(planned.parts) == 4 and all(part.begin % every == 0 for part in planned.parts)


@pytest.mark.usefixtures("short_parts")
def test_tracks_are_numbered_by_time_for_any_order_of_the_jobs(two_shots, tmp_path, monkeypatch):
    def backwards(function, items, workers, chunk=1):  # noqa: ARG001
        items = iter(items)
        while batch := list(itertools.islice(items, 100)):
            yield from map(function, reversed(batch))

    monkeypatch.setattr("syncnet.tracks.make_tracks.map_in_processes", backwards)
    assert run(two_shots / "src", tmp_path) == 0
    assert files(tmp_path) == files(two_shots / "whole")
    found = rows(tmp_path)["a.mp4"]
    assert found == rows(two_shots / "whole")["a.mp4"]
    assert [(float(row["first_s"]), float(row["last_s"]), row["shot"]) for row in found] == [
        (0.0, 1.2, "1"), (1.2, 2.4, "1"), (2.4, 4.24, "2"), (4.24, 6.12, "2"), (6.12, 8.0, "2"),
    ]  # fmt: skip


@pytest.mark.usefixtures("short_parts")
def test_an_interrupted_video_resumes_with_the_parts_that_are_not_done(two_shots, tmp_path, monkeypatch):
    done: list[tuple] = []
    for name in JOBS:
        work = getattr(syncnet.tracks.track_jobs, name)

        def counted(part, *args, work=work, name=name):
            if len(done) == stop:
                raise KeyboardInterrupt
            done.append((name, part.first))
            return work(part, *args)

        monkeypatch.setattr(syncnet.tracks.track_jobs, name, counted)
    for stop in range(20):  # noqa: B007 (counted() reads it)
        if run(two_shots / "src", tmp_path) == 0:
            break
    assert len(done) == len(set(done)) == 7  # 4 parts, and 5 tracks in 3 groups
    assert files(tmp_path) == files(two_shots / "whole")
    assert rows(tmp_path) == rows(two_shots / "whole")


def test_a_video_that_changes_after_an_interruption_is_surveyed_again(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    video(tmp_path / "src/a.mp4", 30)
    with monkeypatch.context() as patch:
        patch.setattr(syncnet.tracks.track_jobs, "write_group", interrupted)
        assert run(tmp_path / "src", tmp_path / "dst") == 130
    video(tmp_path / "src/a.mp4", 36)
    assert run(tmp_path / "src", tmp_path / "dst") == 0
    assert rows(tmp_path / "dst")["a.mp4"][0]["frames"] == "36"


def test_two_processes_join_a_track_across_the_parts_of_a_long_video(tmp_path):
    """The face is detected at slot 1961, where its shot begins, and in one slot of 25 from 1975 to 2200."""

    def draw(picture, number):
        if 1961 <= number < 2201:
            picture[4:116, 24:136] = PERSON

    video(
        tmp_path / "src/a.mp4", 2520, size=(160, 120), draw=draw, options={"preset": "ultrafast", "g": "250"}
    )
    assert len(plan_parts(str(tmp_path / "src/a.mp4")).parts) == 2
    flags = ["--nWorkers", "2", "--detect_every", "25"]
    assert run(tmp_path / "src", tmp_path / "dst", *flags) == 0
    (row,) = rows(tmp_path / "dst")["a.mp4"]
    assert (row["first_s"], row["frames"], row["found"]) == ("78.44", "240", "11")


def test_boxes_are_fractions_of_their_own_picture(tmp_path):
    """The picture becomes twice as large in the middle of the stream."""
    for name, size, start in (("one.ts", (320, 180), 1.0), ("two.ts", (640, 360), 3.0)):
        picture = face(size[1] // 2)

        def draw(canvas, number, picture=picture):  # noqa: ARG001
            side = len(picture)
            canvas[side // 2 : side // 2 + side, side : 2 * side] = picture

        video(tmp_path / name, 50, size=size, draw=draw, format="mpegts", start=start)
    (tmp_path / "src").mkdir()
    joined = (tmp_path / "one.ts").read_bytes() + (tmp_path / "two.ts").read_bytes()
    (tmp_path / "src/a.ts").write_bytes(joined)
    assert run(tmp_path / "src", tmp_path / "dst", "--min_face", "40") == 0
    tracks = rows(tmp_path / "dst")["a.ts"]
    assert len(tracks) == 2 and 1.8 < float(tracks[1]["face_size"]) / float(tracks[0]["face_size"]) < 2.2
    boxes = [
        np.array([line.split()[1:] for line in path.read_text().splitlines()[7:]], float)
        for path in sorted((tmp_path / "dst/txt/a").iterdir())
    ]
    assert np.allclose(boxes[0].mean(0), boxes[1].mean(0), atol=0.03)
    assert np.allclose(boxes[0].mean(0), [0.33, 0.3, 0.19, 0.4], atol=0.08)


# ---------------------------------------------------------------- faults of the program


@pytest.mark.parametrize("name", [*JOBS, "plan_parts"])
def test_a_fault_of_the_program_is_not_blamed_on_the_video(tmp_path, monkeypatch, capsys, name):
    src, dst = tmp_path / "src", tmp_path / "dst"
    for source in ("a.mp4", "b.mp4"):
        video(src / source)
    work = getattr(syncnet.tracks.track_jobs, name)

    def faulty(what, *args):
        if "a.mp4" in str(what):
            raise ValueError("the truth value is ambiguous")
        return work(what, *args)

    with monkeypatch.context() as patch:
        patch.setattr(syncnet.tracks.track_jobs, name, faulty)
        assert run(src, dst) == 1
    said = capsys.readouterr().out
    assert f"{dst}/errors.txt" in said and "not finished             1" in said and "\n  a.mp4\n" in said
    errors = (dst / "errors.txt").read_text()
    assert errors.startswith("a.mp4\nTraceback") and "in faulty" in errors
    assert "ValueError: the truth value is ambiguous" in errors
    assert list(rows(dst)) == ["b.mp4"] and reasons(dst) == {}
    assert run(src, dst) == 0  # repaired
    assert "finished before          1" in capsys.readouterr().out
    assert list(rows(dst)) == ["a.mp4", "b.mp4"]


def test_only_faults(tmp_path, monkeypatch, capsys):
    video(tmp_path / "src/a.mp4")
    monkeypatch.setattr(syncnet.tracks.track_jobs, "survey_part", lambda *_: {}["key"])
    assert run(tmp_path / "src", tmp_path / "dst") == 1
    said = capsys.readouterr()
    assert "no videos" not in said.err and "not finished             1" in said.out
    assert "KeyError: 'key'" in (tmp_path / "dst/errors.txt").read_text()


def test_a_video_without_tracks_of_an_earlier_version_is_tried_again(tmp_path, capsys):
    src, dst = tmp_path / "src", tmp_path / "dst"
    for source in ("a.mp4", "b.mp4"):
        video(src / source)
    assert run(src, dst) == 0
    journal = dst / ".makeFaceTracks/finished.jsonl"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [record.pop("version") for record in records] == [2, 2]  # the first version wrote none
    records[1].update(tracks=[], reason="ValueError: The truth value of an array is ambiguous")
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))
    capsys.readouterr()
    assert run(src, dst) == 0
    said = capsys.readouterr().out
    assert "finished before          1" in said and "made again               1" in said
    assert "by an old version        1   which divided tracks every 40 s" in said
    assert list(rows(dst)) == ["a.mp4", "b.mp4"] and reasons(dst) == {}
    assert run(src, dst) == 0
    assert "finished before          2" in capsys.readouterr().out
