"""inferSyncNet.py lse on videos: face tracks are made first, and figures are counted as public scripts count them."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean

import av
import cv2
import numpy as np
import pytest
from clipMaker import make_clip, noise
from videoMaker import face, make_video

import inferSyncNet
from inferSyncNet import lse
from syncnet.inference.offset import Offset
from syncnet.inference.protocols import PROTOCOLS, mean_interval, summarize
from syncnet.media.sound import decode_audio
from syncnet.media.video import FrameReader
from syncnet.support.files import file_hash

PERSON, FRAMES, SHORTEST = face(112), 24, 16
VIDEOS = ("one.mp4", "two_people.mkv", "two_shots.mp4", "no_face.mp4", "other.mov", "deep/one.mp4")
NAMED = [name for name in PROTOCOLS if name not in ("tracks", "wav2lip-lrs")]


def people(*lefts: int, dark: int = 40) -> Callable[[np.ndarray, int], None]:
    """A function for make_video that draws faces side by side, which move a little."""

    def draw(picture: np.ndarray, number: int) -> None:
        picture[:] = np.linspace(dark, dark + 80, picture.shape[1])[None, :, None]
        for left in lefts:
            picture[30:142, left + number % 8 : left + 112 + number % 8] = PERSON

    return draw


def cut(picture: np.ndarray, number: int) -> None:
    """Two shots of FRAMES frames."""
    people(150)(picture, number) if number < FRAMES else people(20, dark=150)(picture, number)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """One person, two people, two shots, no face, and two more with one person."""
    folder = tmp_path_factory.mktemp("videos")

    def video(name: str, draw: Callable, frames: int = FRAMES, **settings) -> None:
        make_video(
            str(folder / name), np.arange(frames) / 25, draw=draw, flash=None, options={"preset": "ultrafast"},
            **{"size": (320, 180), "loudness": 1000, **settings},
        )  # fmt: skip

    video("one.mp4", people(150))
    video("two_people.mkv", people(20, 200), size=(360, 180), format="matroska")
    video("two_shots.mp4", cut, 2 * FRAMES)
    video("no_face.mp4", people())
    video("other.mov", people(90), format="mov", loudness=3000)
    video("deep/one.mp4", people(60, dark=90))
    return folder


@pytest.fixture(scope="module")
def tracks(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tracks")


@pytest.fixture
def counted(checkpoint, videos, tracks, capsys, monkeypatch) -> Path:
    """The tracks of the first five videos, made once; every protocol takes tracks and faces of their sizes."""
    changed = {
        name: replace(protocol, min_frames=min(SHORTEST, protocol.min_frames), min_face=60)
        for name, protocol in PROTOCOLS.items()
    }
    monkeypatch.setattr("syncnet.inference.lse.PROTOCOLS", changed)
    folder = tracks / "counted"
    if not folder.exists():
        inputs = [videos / video for video in VIDEOS[:5]]
        flags = ("--protocol", "mova", "--detect_every", 5, "--tracks", folder)
        status, _, err = run(capsys, *inputs, "--initial_model", checkpoint, *flags)
        assert status == 0 and "5 of 5 videos" in err
    return folder


def run(capsys, *args) -> tuple[int, list[str], str]:
    """The command in this process: exit status, lines of output, errors."""
    status = inferSyncNet.main(["lse", "--model", "tinyModel", "--device", "cpu", *map(str, args)])
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def by_hand(protocol: str, of_tracks: list[dict[str, str]]) -> tuple[dict[str, tuple], tuple]:
    """The figures of each video, and those over videos, from the rows of tracks."""
    videos: dict[str, list[tuple[float, float]]] = {}
    for row in of_tracks:
        videos.setdefault(Path(row["video"]).name, []).append((float(row["lse_d"]), float(row["lse_c"])))
    ways = {
        "wav2lip-real": lambda pairs: (mean(d for d, _ in pairs), mean(c for _, c in pairs)),
        "mocha": lambda pairs: (min(d for d, _ in pairs), max(c for _, c in pairs)),
        "mova": lambda pairs: (
            *(mean(d for d, _ in pairs), mean(c for _, c in pairs)),
            *max(pairs, key=lambda pair: pair[1] - pair[0]),
        ),
    }
    ways["tracks"] = ways["latentsync"] = ways["wav2lip-real"]
    figures = {name: ways[protocol](pairs) for name, pairs in videos.items()}
    if protocol in ("wav2lip-real", "tracks"):
        every = [pair for pairs in videos.values() for pair in pairs]
        return figures, ways[protocol](every)
    return figures, tuple(mean(column) for column in zip(*figures.values(), strict=True))


def test_a_summary_is_written_where_no_video_counts(checkpoint, videos, tmp_path, capsys):
    """A script that waits for it finds why."""
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    flags = ("--initial_model", checkpoint, "--json", tmp_path / "s.json")
    reasons = {str(videos / "no_face.mp4"): "no face found"}
    for video, protocol, columns, expected in (
        (videos / "no_face.mp4", "mova", ("lse_d", "best_lse_c"), reasons),
        (tmp_path / "broken.mp4", "tracks", ("lse_d", "lse_c"), {}),
    ):
        assert run(capsys, video, *flags, "--protocol", protocol)[0] == 1
        summary = json.loads((tmp_path / "s.json").read_text())
        assert [summary[key] for key in ("videos", "tracks", "videos_without_face")] == [0, 0, len(expected)]
        assert [summary[column] for column in columns] == [{"mean": None, "low": None, "high": None}] * 2
        assert {name: reason[:13] for name, reason in summary["not_counted"].items()} == expected


@pytest.mark.parametrize("name", ["tracks", *NAMED])
def test_each_protocol_counts_as_its_script(checkpoint, videos, counted, tmp_path, capsys, monkeypatch, name):
    # by_hand() knows videos by the names of their files, which must differ.
    inputs = [videos / video for video in VIDEOS[:5]]
    flags = ["--tracks", counted]
    flags += [] if name == "tracks" else ["--protocol", name, "--detect_every", 5]
    files = [tmp_path / file for file in ("t.csv", "v.csv", "s.json")]
    outputs = ["--csv", files[0], "--video_csv", files[1], "--json", files[2]]
    status, out, _ = run(capsys, *inputs, "--initial_model", checkpoint, *flags, *outputs)
    assert status == 0
    of_tracks, of_videos = rows(files[0]), rows(files[1])
    assert [Path(row["video"]).name for row in of_tracks] == [
        "one.mp4", "two_people.mkv", "two_people.mkv", "two_shots.mp4", "two_shots.mp4", "other.mov"
    ]  # fmt: skip
    figures, means = by_hand(name, of_tracks)
    assert len(of_videos) == 5 and {Path(row["video"]).name for row in of_videos} == set(VIDEOS[:5])
    columns = list(of_videos[0])[2:-1]
    for row in of_videos:
        video = Path(row["video"]).name
        if video == "no_face.mp4":
            nothing = "0" if name == "mocha" else ""
            assert row["no_face"].startswith("no face found") and {row[c] for c in columns} == {nothing}
        else:
            assert [float(row[c]) for c in columns] == pytest.approx(figures[video], abs=1e-5)
    summary = json.loads(files[2].read_text())
    assert [summary[c]["mean"] for c in columns] == pytest.approx(means, abs=1e-5)
    assert all(summary[c]["low"] <= summary[c]["mean"] <= summary[c]["high"] for c in columns)
    counts = [summary[key] for key in ("protocol", "videos", "tracks", "videos_without_face", "detector")]
    assert counts == [name, 4, 6, 1, ["mtcnn"]]
    assert summary["not_counted"] == {row["video"]: row["no_face"] for row in of_videos if row["no_face"]}
    assert summary["weights_sha256"] == file_hash(str(checkpoint)) and "torch" in summary["versions"]
    said = next(line for line in out if line.startswith(f"{name}: LSE-D"))
    assert f"LSE-D {means[0]:.3f} (" in said and f"LSE-C {means[1]:.3f} (" in said
    assert "of 4 videos, 6 face tracks, 1 video without a face not counted" in said
    assert any(line.startswith("Counted: ") for line in out)
    assert any(line.startswith("not counted: ") and "no_face.mp4: no face found" in line for line in out)
    assert any("NOT COMPARABLE" in line for line in out) and "NOT COMPARABLE" in summary["comparable"]
    monkeypatch.setattr("syncnet.inference.lse.remark", lambda *_: None)  # as with the published weights
    _, out, _ = run(capsys, *inputs, "--initial_model", checkpoint, *flags)
    assert any("Comparable with" in line for line in out)
    assert any("MTCNN in one of 5 frames" in line for line in out) == (name != "tracks")


def test_tracks_are_reused_if_their_settings_fit(
    checkpoint, network, videos, tracks, tmp_path, capsys, monkeypatch
):
    flags = ("--initial_model", checkpoint, "--tracks", tracks / "reused", "--csv", tmp_path / "t.csv")
    inputs = (videos / "one.mp4", videos / "deep/one.mp4")
    assert run(capsys, *inputs, *flags, "--min_frames", SHORTEST)[0] == 0
    first = rows(tmp_path / "t.csv")
    assert [row["clip"] for row in first] == [
        str(tracks / f"reused/mp4/{name}/00001.mp4") for name in ("one", "deep/one")
    ]
    found = lse(network, first[0]["clip"], first[0]["wav"])
    assert float(first[0]["lse_d"]) == pytest.approx(found.lse_d, abs=1e-5)

    monkeypatch.setattr("syncnet.tracks.make_tracks.make_tracks", None)
    assert run(capsys, *inputs, *flags)[0] == 0 and rows(tmp_path / "t.csv") == first
    assert run(capsys, videos / "deep/one.mp4", *flags)[0] == 0 and rows(tmp_path / "t.csv") == first[1:]
    status, _, err = run(capsys, *inputs, *flags, "--min_frames", SHORTEST + 1)
    assert status == 1 and f"were made with --detect_every 5 --min_frames {SHORTEST}" in err
    assert run(capsys, *inputs, *flags, "--protocol", "mocha")[0] == 1
    # A file of the same name, size and time is the same video; of another time, a new one.
    again = shutil.copy2(videos / "deep/one.mp4", tmp_path / "one.mp4")
    assert run(capsys, again, *flags)[0] == 0
    os.utime(again, (1, 1))
    with pytest.raises(TypeError, match="NoneType"):
        run(capsys, again, *flags)


def test_offset_makes_tracks_too(checkpoint, videos, tracks, tmp_path, capsys, monkeypatch):
    shifts = np.arange(-15, 16)
    monkeypatch.setattr("syncnet.inference.offset.offset", lambda *_: Offset(3, 0.5, shifts, shifts * 0.0))
    given = ["offset", "--model", "tinyModel", "--device", "cpu", "--initial_model", checkpoint]
    given += ["--tracks", tracks / "reused", "--min_frames", SHORTEST, "--csv", tmp_path / "o.csv"]
    given += [videos / "one.mp4", videos / "no_face.mp4"]
    assert inferSyncNet.main([str(argument) for argument in given]) == 1
    said = capsys.readouterr()
    assert (
        f"{videos / 'one.mp4'} 0.00-0.96 s: offset 3 frames" in said.out
        and "no_face.mp4: no face" in said.err
    )
    kept = str(tracks / "reused/mp4/one/00001.mp4")
    assert [(row["clip"], row["offset"]) for row in rows(tmp_path / "o.csv")] == [(kept, "3")]
    line = said.out.rpartition("to move the sound: ")[2].split()
    assert line[1:] == ["inferSyncNet.py", "resync", "--initial_model", str(checkpoint), str(videos / "one.mp4"),
                        "--output", str(videos / "one_in_sync.mp4")]  # fmt: skip


def test_show_makes_missing_tracks(checkpoint, videos, tmp_path, capsys, monkeypatch):
    given = ["show", "--model", "tinyModel", "--device", "cpu", "--initial_model", checkpoint]
    given += ["--video", videos / "one.mp4", "--output", tmp_path / "seen.mp4", "--tracks", tmp_path / "new"]
    status = inferSyncNet.main([str(argument) for argument in [*given, "--min_frames", SHORTEST]])
    assert status == 0 and (tmp_path / "new/mp4/one/00001.mp4").exists()
    monkeypatch.setattr("syncnet.tracks.make_tracks.make_tracks", None)
    assert inferSyncNet.main([str(argument) for argument in given]) == 0
    said = f"{tmp_path / 'seen.mp4'}: {videos / 'one.mp4'} with 1 face track"
    assert capsys.readouterr().out.count(said) == 2


def test_without_a_folder_tracks_are_temporary(checkpoint, videos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    flags = ("--initial_model", checkpoint, "--min_frames", SHORTEST, "--csv", tmp_path / "t.csv")
    status, out, _ = run(capsys, videos / "two_shots.mp4", *flags)
    assert status == 0 and sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]
    found = rows(tmp_path / "t.csv")
    assert [(row["clip"], row["first_s"], row["last_s"]) for row in found] == [
        ("two_shots/00001", "0.00", "0.96"), ("two_shots/00002", "0.96", "1.92")
    ]  # fmt: skip
    assert out[1].endswith(f"{videos / 'two_shots.mp4'} 0.00-0.96 s")


def test_a_wav_replaces_the_sound_of_a_video(checkpoint, tmp_path, capsys, monkeypatch):
    """A silent video with a wav has the tracks of the video with that sound; a changed wav needs other tracks."""
    size, times = (320, 180), np.arange(FRAMES) / 25
    options = {"preset": "ultrafast"}
    settings = {"size": size, "draw": people(150), "flash": None, "options": options, "loudness": 2000}
    make_video(str(tmp_path / "mute.mp4"), times, sound_from=None, **settings)
    make_video(
        str(tmp_path / "a.mkv"), times, format="matroska", sound_codec="pcm_s16le", rate=16000, **settings
    )
    wav = tmp_path / "a.wav"
    with av.open(str(wav), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        samples = decode_audio(str(tmp_path / "a.mkv"))[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
    flags = ("--initial_model", checkpoint, "--min_frames", SHORTEST, "--csv", tmp_path / "t.csv")
    assert run(capsys, tmp_path / "a.mkv", *flags)[0] == 0
    (whole,) = rows(tmp_path / "t.csv")
    with_wav = (tmp_path / "mute.mp4", "--wav", wav, "--tracks", tmp_path / "tracks", *flags)
    assert run(capsys, *with_wav)[0] == 0
    (apart,) = rows(tmp_path / "t.csv")
    figures = ("frames", "offset", "lse_d", "lse_c")
    assert [float(apart[name]) for name in figures] == pytest.approx(
        [float(whole[name]) for name in figures], abs=2e-3
    )
    status, _, err = run(capsys, tmp_path / "mute.mp4", *flags)
    assert status == 1 and "mute.mp4: no sound in it" in err
    monkeypatch.setattr("syncnet.tracks.make_tracks.make_tracks", None)
    assert run(capsys, *with_wav)[0] == 0
    os.utime(wav)
    with pytest.raises(TypeError, match="NoneType"):
        run(capsys, *with_wav)


def random_pixels(picture: np.ndarray, number: int) -> None:
    picture[:] = np.random.default_rng(number).integers(0, 256, picture.shape)


def test_whole_pictures_are_scaled_bilinearly(checkpoint, tmp_path, capsys):
    """wav2lip-lrs of large clips is what `tracks` gives of the same frames, scaled beforehand without loss."""
    make_video(
        str(tmp_path / "small/a.mp4"), np.arange(FRAMES) / 25, size=(320, 320), draw=random_pixels, flash=None
    )
    reader = cv2.VideoCapture(str(tmp_path / "small/a.mp4"))
    scaled = [cv2.resize(reader.read()[1], (224, 224), interpolation=cv2.INTER_LINEAR) for _ in range(FRAMES)]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width = stream.height = 224
        stream.pix_fmt = "bgr0"
        for picture in scaled:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    flags = ("--initial_model", checkpoint, "--csv", tmp_path / "t.csv")
    wav = tmp_path / "small/a.mp4"  # its sound
    status, out, _ = run(capsys, tmp_path / "small", "--protocol", "wav2lip-lrs", *flags)
    (found,) = rows(tmp_path / "t.csv")
    assert status == 0 and any("wav2lip-lrs: LSE-D" in line and "of 1 video" in line for line in out)
    assert run(capsys, tmp_path / "a.mkv", "--wav", wav, *flags)[0] == 0
    (expected,) = rows(tmp_path / "t.csv")
    assert [found[name] for name in ("frames", "offset", "lse_d", "lse_c")] == [
        expected[name] for name in ("frames", "offset", "lse_d", "lse_c")
    ]
    status, _, err = run(capsys, tmp_path / "small", "--allow_resize", *flags)
    assert status == 0 and "not 224x224: 1 of 1 video;" in err


def test_pictures_are_scaled_by_area_unless_bilinearly(tmp_path):
    path = str(tmp_path / "a.mp4")
    make_video(path, np.arange(3) / 25, size=(320, 320), draw=random_pixels, flash=None)
    reader = cv2.VideoCapture(path)
    whole = [reader.read()[1] for _ in range(3)]
    for bilinear, way in ((True, cv2.INTER_LINEAR), (False, cv2.INTER_AREA)):
        pictures = np.empty((3, 224, 224, 3), np.uint8)
        with FrameReader(path, True, bilinear) as frames:
            frames.read(0, pictures)
        assert (pictures == [cv2.resize(picture, (224, 224), interpolation=way) for picture in whole]).all()


def test_face_tracks_that_are_given_are_used_as_they_are(checkpoint, tmp_path, capsys, monkeypatch):
    """Numbered ones of a folder are of one video; too short ones do not count."""
    monkeypatch.setattr("syncnet.tracks.make_tracks.make_tracks", None)
    lengths = {"v/00001": 60, "v/00002": 51, "w/00001": 50, "x": 55}
    for number, (name, frames) in enumerate(lengths.items()):
        make_clip(
            str(tmp_path / f"in/{name}.mp4"),
            frames,
            first=100 * number,
            sound=noise(frames / 25, seed=number),
        )
    outputs = ("--csv", tmp_path / "t.csv", "--video_csv", tmp_path / "v.csv")
    flags = ("--initial_model", checkpoint, "--protocol", "latentsync", *outputs)
    status, out, _ = run(capsys, tmp_path / "in", *flags)
    found = {
        Path(row["clip"]).relative_to(tmp_path / "in").as_posix()[:-4]: row
        for row in rows(tmp_path / "t.csv")
    }
    videos = {Path(row["video"]).name: row for row in rows(tmp_path / "v.csv")}
    assert status == 0 and set(found) == set(lengths)
    assert {name: int(row["tracks"]) for name, row in videos.items()} == {"v": 2, "w": 0, "x.mp4": 1}
    both = mean(float(found[name]["lse_d"]) for name in ("v/00001", "v/00002"))
    assert float(videos["v"]["lse_d"]) == pytest.approx(both, abs=1e-5)
    assert "shorter than the 51 frames" in videos["w"]["no_face"]
    assert any("of 2 videos, 3 face tracks, 1 video without a face not counted" in line for line in out)


@pytest.mark.parametrize(
    "flag", [("--min_frames", "60"), ("--min_face", "80"), ("--max_offset", "10"), ("--allow_resize",)]
)
def test_a_named_protocol_has_its_own_numbers(capsys, flag):
    with pytest.raises(SystemExit):
        inferSyncNet.main(["lse", "x.mp4", "--initial_model", "x", "--protocol", "mova", *flag])
    assert f"{flag[0]} goes with --protocol tracks" in capsys.readouterr().err


def test_intervals_are_over_videos():
    """Weighted means, against draws by hand."""
    draws = np.random.default_rng(3)
    of_videos = [draws.normal(7, 1, (size, 2)) for size in draws.integers(1, 5, 40)]
    found = summarize(PROTOCOLS["wav2lip-real"], of_videos)
    assert found.means == pytest.approx(np.concatenate(of_videos).mean(0))
    again = np.random.default_rng(0)
    means = [
        np.concatenate([of_videos[number] for number in again.integers(40, size=40)]).mean(0)
        for _ in range(1000)
    ]
    np.testing.assert_allclose((found.low, found.high), np.quantile(means, [0.025, 0.975], axis=0))
    assert summarize(PROTOCOLS["mocha"], of_videos[:1]).low is None
    low, high = mean_interval(np.ones((5, 1)))
    assert (low, high) == (1, 1)
