"""The command makeFaceTracks.py: any videos in, face tracks and tables out; interrupted, killed, run again."""

import csv
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clipMaker import make_sound, noise
from videoMaker import face, make_video

import makeFaceTracks
import makeFileList
from syncnet.media.clips import MediaError, read_list
from syncnet.media.video_facts import probe
from syncnet.tracks.track_jobs import folder_names

SCRIPT = Path(makeFaceTracks.__file__)
PERSON = face(112)


def draw(picture: np.ndarray, number: int) -> None:
    """A face right of the middle, which moves a little."""
    picture[:] = np.linspace(40, 120, picture.shape[1])[None, :, None]
    picture[30:142, 150 + number % 8 : 262 + number % 8] = PERSON


def turned(code: int) -> Callable[[np.ndarray, int], None]:
    """A function for make_video that draws what has to be turned by `code` to be upright."""
    upright = np.zeros((180, 320, 3), np.uint8)

    def draw_turned(picture, number):
        draw(upright, number)
        back = {cv2.ROTATE_90_CLOCKWISE: cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180: cv2.ROTATE_180}
        picture[:] = cv2.rotate(upright, back[code])

    return draw_turned


def video(path: Path, frames: int = 30, **settings) -> None:
    defaults = {"size": (320, 180), "flash": None, "draw": draw, "options": {"preset": "ultrafast"}}
    make_video(str(path), np.arange(frames) / 25, **{**defaults, **settings})


def run(src: Path, dst: Path, *flags: str) -> int:
    return makeFaceTracks.main(
        ["--src", str(src), "--dst", str(dst), "--nWorkers", "1", "--min_frames", "20", *flags]
    )


def rows(dst: Path) -> dict[str, list[dict]]:
    """tracks.csv by source."""
    found: dict[str, list[dict]] = {}
    with open(dst / "tracks.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["source"], []).append(row)
    return found


def reasons(dst: Path) -> dict[str, str]:
    """no_tracks.txt by source."""
    if not (dst / "no_tracks.txt").exists():
        return {}
    lines = (dst / "no_tracks.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines)


def files(dst: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(dst)): p.read_bytes()
        for k in ("mp4", "wav", "txt")
        for p in (dst / k).rglob("*.*")
        if p.is_file()
    }


def likeness(dst: Path, name: str) -> float:
    """How much the mean picture of a track is like the face that was drawn."""
    reader = cv2.VideoCapture(str(dst / "mp4" / name / "00001.mp4"))
    pictures = []
    while True:
        ok, picture = reader.read()
        if not ok:
            break
        pictures.append(picture)
    return np.corrcoef(np.mean(pictures, 0).ravel(), cv2.resize(PERSON, (224, 224)).ravel())[0, 1]


KINDS = {
    "plain.mp4": {},
    "a name with spaces/Zwölf 日本.MOV": {"format": "mov"},
    "turned90.mp4": {"size": (180, 320), "draw": turned(cv2.ROTATE_90_CLOCKWISE), "rotation": -90},
    "turned180.mp4": {"draw": turned(cv2.ROTATE_180), "rotation": 180},
    "hevc10.mkv": {"format": "matroska", "codec": "libx265", "pixels": "yuv420p10le",
                   "options": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}},
    "vp9.webm": {"format": "webm", "codec": "libvpx-vp9", "sound_codec": "libopus", "rate": 48000,
                 "options": {"deadline": "realtime", "cpu-used": "8"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
    "mpeg4.avi": {"format": "avi", "codec": "mpeg4", "sound_codec": "libmp3lame", "options": {"b": "3000000"}},
    "mpeg2.ts": {"format": "mpegts", "codec": "mpeg2video", "sound_codec": "mp2", "options": {"b": "3000000"}},
    "wmv2.wmv": {"format": "asf", "codec": "wmv2", "sound_codec": "wmav2", "options": {"b": "3000000"}},
    "without ending": {"format": "matroska"},
    "late start.mkv": {"format": "matroska", "start": 7.7},
}  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """All kinds of videos and of other files, put through the command once."""
    folder = tmp_path_factory.mktemp("zoo")
    src = folder / "src"
    for name, settings in KINDS.items():
        video(src / name, **settings)
    squeezed = {"size": (160, 180), "aspect": Fraction(2, 1)}
    wide = np.zeros((180, 320, 3), np.uint8)

    def draw_squeezed(picture, number):
        draw(wide, number)
        picture[:] = cv2.resize(wide, (160, 180), interpolation=cv2.INTER_AREA)

    video(src / "anamorphic.mp4", draw=draw_squeezed, **squeezed)
    interlaced = {"flags": "+ildct+ilme", "b": "4000000"}
    two = np.zeros((2, 180, 320, 3), np.uint8)

    def draw_fields(picture, number):  # of two moments, in turn
        draw(two[0], 2 * number)
        draw(two[1], 2 * number + 1)
        picture[0::2], picture[1::2] = two[0, 0::2], two[1, 1::2]

    video(
        src / "interlaced.mpg",
        draw=draw_fields, format="mpegts", codec="mpeg2video", sound_codec="mp2", options=interlaced,
    )  # fmt: skip
    video(src / "silent.mp4", sound_from=None)
    make_sound(str(src / "sound.m4a"), noise(2.0))
    video(src / "nobody.mp4", draw=None)
    video(
        src / "small.mp4",
        draw=lambda p, _: p.__setitem__(np.s_[40:100, 90:150], cv2.resize(PERSON, (60, 60))),
    )
    video(src / "short.mp4", draw=lambda picture, number: draw(picture, number) if number < 12 else None)
    video(src / "mute.mp4", loudness=0)
    video(src / "little sound.mp4", sound_to=0.4)
    fast = {"container_options": {"movflags": "faststart"}, "options": {"preset": "ultrafast", "g": "25"}}
    video(src / "whole.mp4", frames=100, **fast)
    (src / "cut.mp4").write_bytes((src / "whole.mp4").read_bytes()[:-20000])
    (src / "whole.mp4").unlink()
    (src / "head.mp4").write_bytes((src / "plain.mp4").read_bytes()[:1000])
    (src / "empty.mkv").write_bytes(b"")
    (src / "text.mp4").write_text("#EXTM3U\n/etc/hosts\n")
    (src / "notes.txt").write_text("no video\n")
    (src / "plain.mkv").write_bytes((src / "without ending").read_bytes())
    assert run(src, folder / "dst") == 0
    return folder / "dst"


@pytest.mark.parametrize("name", [*KINDS, "anamorphic.mp4", "interlaced.mpg", "plain.mkv"])
def test_every_kind_of_video_gives_its_track(zoo, name):
    (row,) = rows(zoo)[name]
    folder = row["track"].removesuffix("/00001")
    assert abs(int(row["frames"]) - 30) <= 2
    assert float(row["first_s"]) <= 0.08  # a codec may begin its sound late
    assert 65 < float(row["face_size"]) < 95
    assert likeness(zoo, folder) > 0.7
    assert 5 <= int(row["found"]) <= 15


def test_other_files_are_listed_with_the_reason(zoo):
    expected = {
        "silent.mp4": "no sound",
        "sound.m4a": "no pictures",
        "nobody.mp4": "no face found",
        "small.mp4": "faces smaller than --min_face 60: up to ",
        "mute.mp4": "its sound is silence",
        "short.mp4": "shorter than --min_frames 20: the longest face track has 12 frames",
        "little sound.mp4": "shorter than --min_frames 20: of a face track of 30 frames, 10 have both",
        "head.mp4": "MP4, cut off or damaged",
        "empty.mkv": "empty (0 bytes)",
        "text.mp4": "a text file, neither sound nor video",
        "cut.mp4": "broken at ",
    }
    found = reasons(zoo)
    assert set(found) == set(expected)
    for name, reason in expected.items():
        assert found[name].startswith(reason), name
    assert "tracks up to there only" in found["cut.mp4"]
    assert 25 <= int(rows(zoo)["cut.mp4"][0]["frames"]) < 90


def test_tracks_are_listed_by_the_list_maker(zoo, tmp_path, capsys):
    flags = [f"--{kind}_dir={zoo / kind}" for kind in ("mp4", "wav", "txt")]
    makeFileList.main(["--output", str(tmp_path / "list.txt"), "--nWorkers", "1", *flags])
    tracks = sum(len(found) for found in rows(zoo).values())
    assert tracks == len(KINDS) + 4
    lines = (tmp_path / "list.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == tracks, capsys.readouterr().out + (tmp_path / "list.txt.skipped.txt").read_text()


def test_the_contact_sheet_shows_one_face_per_track(zoo):
    sheet = cv2.imread(str(zoo / "tracks.png"))
    tracks = sum(len(found) for found in rows(zoo).values())
    assert sheet.shape == (-(-tracks // 10) * 178, 1600, 3)
    cell = cv2.resize(PERSON, (160, 160), interpolation=cv2.INTER_AREA)
    for number in range(tracks):
        top, left = number // 10 * 178, number % 10 * 160
        shown = sheet[top : top + 160, left : left + 160]
        assert np.corrcoef(shown.ravel(), cell.ravel())[0, 1] > 0.6


def test_finished_videos_are_kept_and_changed_ones_remade(tmp_path, capsys):
    src, dst = tmp_path / "src", tmp_path / "src" / "tracks"  # tracks inside of src are not sources
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        video(src / name)
    assert run(src, dst) == 0
    first = files(dst)
    assert len(first) == 9
    stamps = {p: os.stat(dst / p).st_mtime_ns for p in first}
    assert run(src, dst) == 0
    assert "finished before          3" in capsys.readouterr().out
    assert files(dst) == first
    assert {p: os.stat(dst / p).st_mtime_ns for p in first} == stamps

    (dst / "mp4/b/00001.mp4").write_bytes(first["mp4/b/00001.mp4"][:500])  # as after a power cut
    video(src / "c.mp4", frames=40)
    assert run(src, dst) == 0
    again = files(dst)
    assert again["mp4/b/00001.mp4"] == first["mp4/b/00001.mp4"]
    assert rows(dst)["c.mp4"][0]["frames"] != "30"
    assert os.stat(dst / "mp4/a/00001.mp4").st_mtime_ns == stamps["mp4/a/00001.mp4"]
    assert run(src, dst, "--min_frames", "35") == 0
    assert list(rows(dst)) == ["c.mp4"]
    assert sorted(files(dst)) == ["mp4/c/00001.mp4", "txt/c/00001.txt", "wav/c/00001.wav"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, {"a.avi": "a", "a.mkv": "a.mkv", "a.mp4": "a.mp4", "b/a.mp4": "b/a", "c": "c"}),
        # a.mkv has a folder, and gone.mp4 left tracks.
        ({"a.mkv": "a", "gone.mp4": "gone"}, {"a.avi": "a.avi", "a.mkv": "a", "gone.avi": "gone.avi"}),
        # Names that are the same on other systems.
        ({}, {"Ann.mp4": "Ann", "ann.mp4": "ann.mp4", "ANN.mkv": "ANN.mkv"}),
        ({}, {"u\u0308.mp4": "u\u0308", "\u00fc.mp4": "\u00fc.mp4"}),
        # A folder never has the name of a track's file.
        (
            {},
            {
                "a.mp4": "a",
                "a/00001.mkv": "a/00001",
                "a/00001.mp4": "a/00001.mp4_",
                "00001.mp4.mp4": "00001.mp4",
            },
        ),
        ({}, {"a/00002.wav.mov": "a/00002.wav.mov"}),
    ],
)
def test_each_source_has_a_separate_folder(given, names):
    assert folder_names(list(names), given) == names


def test_videos_come_and_go(tmp_path, capsys):
    src, dst = tmp_path / "src", tmp_path / "dst"
    video(src / "a.mp4")
    video(src / "a.mkv", frames=33, format="matroska")
    assert run(src, dst) == 0
    first = files(dst)
    assert sorted(rows(dst)) == ["a.mkv", "a.mp4"] and len(first) == 6
    (src / "a.mkv").unlink()  # whose tracks have the folder of the shorter name
    video(src / "a.mov", frames=36, format="mov")
    capsys.readouterr()
    assert run(src, dst) == 0
    said = capsys.readouterr().out
    assert f"2 videos in {src}" in said and "no longer exist          1" in said and "made again" not in said
    assert {path: content for path, content in files(dst).items() if path in first} == first
    assert {name: found[0]["frames"] for name, found in rows(dst).items()} == {
        "a.mkv": "33", "a.mp4": "30", "a.mov": "36",
    }  # fmt: skip
    assert len(files(dst)) == 9
    video(src / "a.mp4", frames=35)
    assert run(src, dst) == 0
    assert "made again               1" in capsys.readouterr().out and len(files(dst)) == 9


def test_a_single_video(tmp_path, capsys, monkeypatch):
    video(tmp_path / "src" / "a.mp4")
    video(tmp_path / "src" / "b.mp4")
    monkeypatch.chdir(tmp_path / "src")
    assert run(Path("a.mp4"), tmp_path / "dst") == 0
    assert "1 video in a.mp4" in capsys.readouterr().out
    assert sorted(files(tmp_path / "dst")) == ["mp4/a/00001.mp4", "txt/a/00001.txt", "wav/a/00001.wav"]
    assert run(tmp_path / "src/b.mp4", tmp_path / "dst") == 0
    assert sorted(rows(tmp_path / "dst")) == ["a.mp4", "b.mp4"]
    (tmp_path / "notes.txt").write_text("no video")
    assert run(tmp_path / "notes.txt", tmp_path / "other") == 1
    assert "no videos" in capsys.readouterr().err


def test_a_report_is_about_the_videos_of_this_run(tmp_path, capsys):
    """A folder that was given by mistake is not reported again."""
    make_sound(str(tmp_path / "sounds/a.wav"), noise(1.0))
    for name in ("ann", "bob"):
        video(tmp_path / f"src/{name}/a.mp4")
    (tmp_path / "empty").mkdir()
    dst = tmp_path / "d s t"
    assert run(tmp_path / "sounds", dst) == 1
    assert "a.wav: no pictures in it" in capsys.readouterr().out
    assert run(tmp_path / "empty", dst) == 1
    said = capsys.readouterr()
    assert "no videos in this folder" in said.err and "a.wav" not in said.out
    assert run(tmp_path / "src", dst) == 0
    said = capsys.readouterr().out
    assert "a.wav" not in said and "2.4 seconds" in said
    script, *typed = shlex.split(said.splitlines()[-1].removeprefix("Next: python "))
    args = makeFileList.parse_args(typed)
    assert (script, args.output, args.val_output) == ("makeFileList.py", "data/mine.txt", "data/mine_val.txt")
    assert args.mp4_dir == str(dst / "mp4")
    assert run(tmp_path / "src/ann", tmp_path / "one", "--min_frames", "34") == 1
    assert "A --min_frames below 34" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(14, "14.0 seconds"), (90, "1.5 minutes"), (3600, "1.0 hours"), (9000, "2.5 hours")],
)
def test_duration(seconds, words):
    assert makeFaceTracks.duration(seconds) == words


def test_the_command_for_shorter_tracks_makes_all_that_can_be_used():
    """Those of 8 frames are too short for training."""
    reasons = [
        "has 25 frames",
        "of a face track of 40 frames, 12 have both picture and sound",
        "has 8 frames",
    ]
    command = makeFaceTracks.shorter_tracks(reasons, ["--src", "a", "--dst", "b", "--min_frames", "50"])
    assert re.search(r"makeFaceTracks\.py .*--min_frames 12$", command)


def test_flags(tmp_path, capsys):
    for flags, message in (
        (["--src", str(tmp_path / "nowhere"), "--dst", str(tmp_path)], "nowhere: no such folder"),
        (
            ["--src", str(tmp_path), "--dst", str(tmp_path), "--detect_every", "26"],
            "--detect_every 26: expected 1 to 25",
        ),
        (["--src", str(tmp_path), "--dst", str(tmp_path), "--min_face", "3"], "--min_face 3: expected 20"),
        (["--src", str(tmp_path), "--dst", str(tmp_path), "--nWorkers", "0"], "--nWorkers 0"),
    ):
        with pytest.raises(SystemExit) as stop:
            makeFaceTracks.main(flags)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert run(tmp_path, tmp_path / "dst") == 1
    assert "no videos in this folder" in capsys.readouterr().err


def start(src: Path, dst: Path) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), "--src", str(src), "--dst", str(dst), "--min_frames", "20"]
    return subprocess.Popen(
        [*command, "--nWorkers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stopped_and_run_again(tmp_path, end):
    """Two processes, killed while they work: the files are those of an uninterrupted run."""
    src = tmp_path / "src"
    for number in range(5):
        video(src / f"{number}.mp4", frames=28 + number)
    assert run(src, tmp_path / "whole") == 0
    process = start(src, tmp_path / "dst")
    while process.poll() is None and not list((tmp_path / "dst/mp4").glob("*/*.mp4")):
        time.sleep(0.002)
    assert process.poll() is None, process.stdout.read()
    os.killpg(process.pid, end) if end == signal.SIGINT else process.kill()
    printed = process.communicate(timeout=300)[0]
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert "The same command resumes from here." in printed
        assert "Traceback" not in printed
    for path, content in files(tmp_path / "dst").items():
        assert content == files(tmp_path / "whole")[path]  # existing files are complete
    assert run(src, tmp_path / "dst") == 0
    assert files(tmp_path / "dst") == files(tmp_path / "whole")
    assert rows(tmp_path / "dst") == rows(tmp_path / "whole")
    assert not list((tmp_path / "dst").rglob("*.part"))
    assert not list((tmp_path / "dst/.makeFaceTracks").rglob("*.mp4"))


@pytest.mark.parametrize("moved", ["mp4", "txt"])
def test_killed_while_tracks_are_moved_in(tmp_path, monkeypatch, moved):
    src, dst = tmp_path / "src", tmp_path / "dst"
    video(src / "a.mp4")
    real = os.replace

    def stopped(source, target):
        real(source, target)
        if str(target).endswith(f"00001.{moved}") and "/a/" in str(target):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopped)
        assert run(src, dst) == 130
    assert run(src, dst) == 0
    assert run(src, tmp_path / "whole") == 0 and files(dst) == files(tmp_path / "whole")


def test_pipes_broken_links_and_nested_folders(tmp_path, capsys):
    src, dst = tmp_path / "src", tmp_path / "dst"
    video(src / "a.mp4")
    video(src / "a" / "b.mp4")  # its tracks lie in the folder of those of a.mp4
    os.mkfifo(src / "pipe.mp4")
    os.symlink(tmp_path / "nowhere.mp4", src / "broken.mp4")
    assert run(src, dst) == 0
    assert reasons(dst) == {
        "pipe.mp4": "not a file",
        "broken.mp4": "cannot be read (No such file or directory)",
    }
    video(src / "a.mp4", frames=35)  # regenerated, without harm to the other
    assert run(src, dst) == 0
    assert sorted(files(dst)) == sorted(
        f"{kind}/{name}/00001.{kind}" for kind in ("mp4", "wav", "txt") for name in ("a", "a/b")
    )
    assert {name: found[0]["frames"] for name, found in rows(dst).items()} == {"a.mp4": "35", "a/b.mp4": "30"}
    for wrong in (["--src", str(src), "--dst", str(src)], ["--src", str(dst / "mp4"), "--dst", str(dst)]):
        with pytest.raises(SystemExit):
            makeFaceTracks.main(wrong)
        assert "would become videos of --src" in capsys.readouterr().err


def test_two_runs_at_once(tmp_path, capsys):
    video(tmp_path / "src/a.mp4")
    (tmp_path / "dst/.makeFaceTracks").mkdir(parents=True)
    with open(tmp_path / "dst/.makeFaceTracks/lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(tmp_path / "src", tmp_path / "dst") == 1
    assert "another run is using it" in capsys.readouterr().err
    assert run(tmp_path / "src", tmp_path / "dst") == 0


def test_recordings_one_after_the_other_in_a_file(tmp_path):
    """Where time stamps restart, the next recording starts a new shot, and nothing of it is lost."""
    video(tmp_path / "one.ts", frames=60, format="mpegts", start=5.0)
    (tmp_path / "src").mkdir()
    one = (tmp_path / "one.ts").read_bytes()
    (tmp_path / "src/two.ts").write_bytes(one + one)
    assert run(tmp_path / "src", tmp_path / "dst") == 0
    assert "two.ts" not in reasons(tmp_path / "dst")
    tracks = rows(tmp_path / "dst")["two.ts"]
    assert sum(int(track["frames"]) for track in tracks) >= 115
    assert [track["shot"] for track in tracks] == ["1", "2"]


def test_unfinished_downloads_hidden_folders_and_other_files_are_skipped(tmp_path, capsys):
    src, dst = tmp_path / "src", tmp_path / "dst"
    video(src / "a.mp4")
    for name in ("b.mp4.part", "c.mkv.crdownload", "d.mp4~", ".Trash-1000/files/e.mp4", "@eaDir/f.mp4"):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(src / "a.mp4", src / name)
    (src / "lock").touch()
    (src / "notes.txt").write_text("no video")
    (src / "two\nlines\x1b[31m.mp4").touch()
    assert run(src, dst) == 0
    assert list(rows(dst)) == ["a.mp4"]
    assert (dst / "no_tracks.txt").read_text() == "two\\nlines\\x1b[31m.mp4: empty (0 bytes)\n"
    assert "other files              2" in capsys.readouterr().out
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit):
        run(tmp_path / "pipe", dst)
    assert "pipe: neither a folder nor an ordinary file" in capsys.readouterr().err


def test_tracks_of_any_name_can_be_listed(tmp_path, capsys):
    src, dst = tmp_path / "src", tmp_path / "dst"
    video(src / "a.mp4")
    for name in (b"J\xfcrgen.mp4", b"J\xffrgen.mp4", b"two\nlines.mp4"):
        shutil.copy(src / "a.mp4", src / os.fsdecode(name))
    (src / "a.mp4").unlink()
    assert run(src, dst) == 0
    assert list(rows(dst)) == ["J\\udcfcrgen.mp4", "J\\udcffrgen.mp4", "two\nlines.mp4"]
    flags = [f"--{kind}_dir={dst / kind}" for kind in ("mp4", "wav", "txt")]
    assert makeFileList.main(["--output", str(tmp_path / "list.txt"), "--nWorkers", "1", *flags]) == 0
    listed = [os.path.relpath(clip.video, dst / "mp4") for clip in read_list(str(tmp_path / "list.txt"))]
    assert listed == ["J_rgen.mp4/00001.mp4", "J_rgen/00001.mp4", "two_lines/00001.mp4"]
    assert (dst / "txt/J_rgen/00001.txt").read_text().startswith("Identity  : \tJ_rgen\n")
    assert run(src, dst) == 0
    assert "finished before          3" in capsys.readouterr().out


def test_the_remedy_for_interlaced_pictures_works(tmp_path):
    source = tmp_path / "src/a.ts"
    video(source, format="mpegts", codec="mpeg2video", options={"flags": "+ildct+ilme"})
    with pytest.raises(
        MediaError, match="interlaced.*not cropped to a face, make face tracks of it"
    ) as refused:
        probe(str(source)).check()
    line = re.search(r"python makeFaceTracks.py (--src my_videos --dst my_tracks)", str(refused.value))
    folders = {"my_videos": str(source.parent), "my_tracks": str(tmp_path / "dst")}
    assert (
        makeFaceTracks.main(
            [folders.get(w, w) for w in line[1].split()] + ["--nWorkers=1", "--min_frames=20"]
        )
        == 0
    )
    probe(str(tmp_path / "dst/mp4/a/00001.mp4")).check()


def test_a_folder_that_cannot_be_read_is_reported_and_skipped(tmp_path, closed, capsys):
    for name in ("a", "b"):
        (tmp_path / "src" / name).mkdir(parents=True)
        (tmp_path / "src" / name / "1.mp4").write_bytes(b"no video")
    closed(tmp_path / "src/b")
    assert run(tmp_path / "src", tmp_path / "dst") == 1  # no track
    printed = f"{tmp_path}/src/b: this folder and its contents cannot be read (Permission denied)"
    out = capsys.readouterr().out
    assert re.search(r"folders not read +1\n", out) and f"  {printed}\n" in out
    first, second = (tmp_path / "dst/no_tracks.txt").read_text().splitlines()
    assert first == printed and second.startswith("a/1.mp4: a text file")
    closed(tmp_path / "src/a")
    assert run(tmp_path / "src", tmp_path / "other") == 1
    assert "no videos in this folder" in (error := capsys.readouterr().err) and printed in error
