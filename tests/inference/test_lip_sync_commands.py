"""inferSyncNet.py lse, offset and show: what they print, write and leave out."""

import csv
import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import make_clip, make_wav, noise
from scipy.io import wavfile
from test_show import colour_at, pictures_of
from videoMaker import make_video

import inferSyncNet
from inferSyncNet import lse, offset, show
from syncnet.inference.drawing import find_tracks
from syncnet.inference.offset import PUBLISHED_FOUND, Offset
from syncnet.media.clips import MediaError
from syncnet.tracks.track_files import track_text
from syncnet.tracks.track_folder import STATE, Record, mark_of
from syncnet.tracks.track_settings import Rule
from syncnet.tracks.tracks import Track
from SyncNetDist import SyncNet


@pytest.fixture(scope="module")
def tracks(tmp_path_factory) -> Path:
    """Three tracks that can be measured, one too short, one silent, one without a wav; mp4 and wav apart."""
    folder = tmp_path_factory.mktemp("tracks")
    lengths = {"a/1": 30, "a/2": 41, "b/1": 12, "b/short": 5, "b/silent": 20, "b/mute": 20}
    for name, frames in lengths.items():
        make_clip(str(folder / f"mp4/{name}.mp4"), frames, first=100 * frames)
        if name != "b/mute":
            make_wav(str(folder / f"wav/{name}.wav"), 1)
            sound = noise(frames / 25, seed=frames) * (name != "b/silent")
            wavfile.write(folder / f"wav/{name}.wav", 16000, sound)
    return folder


def run(capsys, *args) -> tuple[int, list[str], list[str]]:
    """The command in this process: exit status, lines of output, lines of errors without bars."""
    status = inferSyncNet.main([str(arg) for arg in args])
    said = capsys.readouterr()
    errors = [line.rpartition("\r")[2] for line in said.err.splitlines() if "inferSyncNet.py:" in line]
    return status, said.out.splitlines(), errors


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="") as file:
        return {row["clip"]: row for row in csv.DictReader(file)}


# ---------------------------------------------------------------- lse


def test_the_figures_of_a_track_do_not_depend_on_other_tracks(network, checkpoint, tracks, tmp_path, capsys):
    given = ("--initial_model", checkpoint, "--model", "tinyModel", "--device", "cpu")
    flags = ("--wav", tracks / "wav", "--csv", tmp_path / "t.csv", "--frames", tmp_path / "frames")
    status, out, errors = run(capsys, "lse", tracks / "mp4", *given, *flags)
    told = {re.search(r"(\w+)\.(mp4|wav):", error)[1] for error in errors}
    assert status == 1 and len(errors) == 3 and told == {"short", "silent", "mute"}
    rows = rows_of(tmp_path / "t.csv")
    assert list(rows) == [str(tracks / f"mp4/{name}.mp4") for name in ("a/1", "a/2", "b/1")]
    assert list(rows[str(tracks / "mp4/a/1.mp4")]) == ["clip", "wav", "frames", "offset", "lse_d", "lse_c"]
    assert any("NOT COMPARABLE" in line for line in out)
    assert [line.split()[-1] for line in out[1:4]] == list(rows)

    mean = next(line for line in out if line.startswith("mean of 3 tracks"))
    for figure, column in (("LSE-D", "lse_d"), ("LSE-C", "lse_c")):
        found = [
            float(number)
            for number in re.search(rf"{figure} ([\d.]+) \(([\d.]+) - ([\d.]+)\)", mean).groups()
        ]
        values = [float(row[column]) for row in rows.values()]
        assert found[0] == pytest.approx(np.mean(values), abs=6e-4)
        assert min(values) - 1e-3 <= found[1] <= found[0] <= found[2] <= max(values) + 1e-3

    for name, frames in (("a/1", 30), ("a/2", 41), ("b/1", 12)):
        video, wav = str(tracks / f"mp4/{name}.mp4"), str(tracks / f"wav/{name}.wav")
        alone = lse(network, video, wav, batch=7)
        row = rows[video]
        assert (row["wav"], int(row["frames"]), int(row["offset"])) == (wav, frames, alone.offset)
        assert float(row["lse_d"]) == pytest.approx(alone.lse_d, abs=2e-5)
        assert float(row["lse_c"]) == pytest.approx(alone.lse_c, abs=2e-5)
        with open(tmp_path / f"frames/{name}.csv", newline="") as file:
            numbers, curve = zip(*list(csv.reader(file))[1:], strict=True)
        assert numbers[0] == "2" and len(numbers) == len(alone.confidences)
        np.testing.assert_allclose(np.array(curve, float), alone.confidences, atol=2e-5)

    status, out, errors = run(
        capsys, "lse", video, "--wav", wav, *given, "--nBatchSize", 3, "--csv", tmp_path / "1.csv"
    )
    assert status == 0 and not errors and any(line.startswith("1 track: LSE-D") for line in out)
    again = rows_of(tmp_path / "1.csv")[video]
    assert {k: float(again[k]) for k in ("lse_d", "lse_c")} == pytest.approx(
        {k: float(row[k]) for k in ("lse_d", "lse_c")}, abs=2e-5
    )


def test_two_inputs_with_the_same_frames_csv_are_refused(checkpoint, tracks, tmp_path, capsys):
    pair = (tracks / "mp4/a/1.mp4", tracks / "mp4/b/1.mp4")
    status, _, errors = run(capsys, "lse", *pair, "--initial_model", checkpoint, "--frames", tmp_path / "f")
    assert (
        status == 1 and "two inputs would have the same .csv" in errors[0] and not (tmp_path / "f").exists()
    )


# ---------------------------------------------------------------- offset


def test_the_published_network_gives_the_offset_of_lse(tracks):
    torch.manual_seed(1)
    published = SyncNet(model="models.SyncNetV2", device="cpu")
    video, wav = str(tracks / "mp4/b/1.mp4"), str(tracks / "wav/b/1.wav")
    measured = lse(published, video, wav, max_offset=4)
    found = offset(published, video, wav, max_offset=4)
    assert (found.frames, found.confidence) == (measured.offset, measured.lse_c)
    assert found.enough == PUBLISHED_FOUND
    assert np.array_equal(found.similarity, -measured.mean_distances[::-1])
    assert (
        found.similarity[list(found.shifts).index(found.frames)] == found.similarity.max() == -measured.lse_d
    )


@pytest.mark.parametrize("frames, confidence, found", [(1, 2.5, "yes"), (1, 1.5, "no"), (3, 2.5, "edge")])
def test_the_published_network_needs_another_confidence_for_an_offset(frames, confidence, found):
    shifts = np.arange(-3, 4)
    measured = Offset(frames, confidence, shifts, -np.abs(shifts - frames), enough=PUBLISHED_FOUND)
    assert measured.found == found
    assert ("no offset found" in str(measured)) == (found != "yes")


# ---------------------------------------------------------------- show


@pytest.fixture
def made(tmp_path, tracks) -> Path:
    """A video, and tracks as makeFaceTracks.py would have made them of it and of another of the same name."""
    make_video(str(tmp_path / "videos/x/talk.mov"), np.arange(60) / 25, format="mov")
    rows = ["source,track,first_s,last_s,frames"]
    for source, name, clip in (
        ("talk.mov", "talk/00001", "a/2"),
        ("x/talk.mov", "x/talk/00001", "a/1"),
        ("x/talk.mov", "x/talk/00002", "b/short"),
    ):
        rows.append(f"{source},{name},0.4,1.6,30")
        for kind in ("mp4", "wav", "txt"):
            (tmp_path / f"tracks/{kind}/{name}").parent.mkdir(parents=True, exist_ok=True)
        for kind in ("mp4", "wav"):
            (tmp_path / f"tracks/{kind}/{name}.{kind}").write_bytes(
                (tracks / f"{kind}/{clip}.{kind}").read_bytes()
            )
        left = 200 if name.endswith("2") else 60
        boxes = np.tile([left, 60, left + 60, 120], (30, 1))
        text = track_text(name, "talk", Track(10, boxes, 30, 0.9, 1), 320, 240)
        (tmp_path / f"tracks/txt/{name}.txt").write_text(text)
    (tmp_path / "tracks/tracks.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def record_sources(made: Path, **paths: Path) -> None:
    """What makeFaceTracks.py records of its sources: their names and the files that they are."""
    rule = Rule(detect_every=5, min_frames=34, min_face=60)
    journal = made / "tracks" / STATE / "finished.jsonl"
    journal.parent.mkdir(exist_ok=True)
    with journal.open("a") as file:
        for source, path in paths.items():
            name = source.replace("__", "/")
            file.write(json.dumps(asdict(Record(f"{name}.mov", mark_of(str(path), rule), name))) + "\n")


def test_the_tracks_of_a_video_are_drawn_on_it(checkpoint, made, capsys):
    flags = ("--initial_model", checkpoint, "--model", "tinyModel", "--tracks", made / "tracks")
    video, output = made / "videos/x/talk.mov", made / "seen.mp4"
    record_sources(made, x__talk=video)
    status, out, errors = run(capsys, "show", *flags, "--video", video, "--output", output, "--in_sync", -9)
    assert status == 1 and len(errors) == 1 and "talk/00002.mp4: 5 frames, lip sync needs 6" in errors[0]
    assert out[-1] == f"{output}: {video} with 2 face tracks" and output.stat().st_size > 1000
    assert [line.split()[-1] for line in out[1:-1]] == [str(made / "tracks/mp4/x/talk/00001.mp4")]
    for in_sync, colour in ((-9, "green"), (9, "red")):
        assert run(capsys, "show", *flags, "--video", video, "--output", output, "--in_sync", in_sync)[0] == 1
        seen = [colour_at(picture, 60 / 320, 90 / 240) for picture in pictures_of(str(output))]
        assert seen == ["none"] * 10 + [colour] * 30 + ["none"] * 20


def test_a_video_is_recognized_by_more_than_its_name(made, capsys):
    videos, tracks = made / "videos", str(made / "tracks")
    video, other = videos / "x/talk.mov", videos / "talk.mov"
    make_video(str(other), np.arange(50) / 25, format="mov")
    x, top = ["x/talk/00001", "x/talk/00002"], ["talk/00001"]
    assert find_tracks(tracks, str(video)) == x  # by its name alone, which is said
    assert "WARNING" in (said := capsys.readouterr().err) and "by its name alone" in said
    record_sources(made, x__talk=video, talk=other)
    assert (find_tracks(tracks, str(video)), find_tracks(tracks, str(other))) == (x, top)

    elsewhere = made / "elsewhere"
    make_video(str(elsewhere / "x/talk.mov"), np.arange(40) / 25, format="mov")
    with pytest.raises(
        MediaError, match=r"elsewhere/x/talk.mov: is not the video .* bytes, the source x/talk.mov had"
    ):
        find_tracks(tracks, str(elsewhere / "x/talk.mov"))
    # A video of the same name as one source, and the content of another.
    shutil.copy2(video, elsewhere / "talk.mov")
    assert find_tracks(tracks, str(elsewhere / "talk.mov")) == x
    shutil.copy2(other, made / "renamed.mov")
    assert find_tracks(tracks, str(made / "renamed.mov")) == top
    assert capsys.readouterr().err == ""
    # A folder that was moved, and one that was copied without its times.
    videos.rename(made / "moved")
    assert find_tracks(tracks, str(made / "moved/x/talk.mov")) == x
    assert capsys.readouterr().err == ""
    os.utime(made / "moved/x/talk.mov", (1, 1))
    assert find_tracks(tracks, str(made / "moved/x/talk.mov")) == x
    assert "by name and size" in capsys.readouterr().err


def test_tracks_of_other_videos_are_refused(network, made):
    make_video(str(made / "other.mp4"), np.arange(30) / 25)
    tracks, seen = str(made / "tracks"), str(made / "seen.mp4")
    with pytest.raises(
        MediaError, match="other.mp4: no track of it in .*tracks.csv .*makeFaceTracks.py --src"
    ):
        show(network, tracks, str(made / "other.mp4"), seen)
    with pytest.raises(MediaError, match="tracks.csv: no such file. Make the tracks"):
        show(network, str(made), str(made / "other.mp4"), seen)
    with pytest.raises(MediaError, match=f"is the one above: --tracks {tracks}$"):
        show(network, f"{tracks}/mp4/", str(made / "other.mp4"), seen)
    (made / "talk.mov").write_bytes((made / "other.mp4").read_bytes())
    with pytest.raises(MediaError, match="30 frames at 25 a second, its tracks reach to frame 40"):
        show(network, tracks, str(made / "talk.mov"), seen)
    assert not (made / "seen.mp4").exists()
    with pytest.raises(MediaError, match="is the source video itself"):
        show(network, tracks, str(made / "talk.mov"), str(made / "talk.mov"))
