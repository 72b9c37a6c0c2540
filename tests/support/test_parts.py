"""--part K/N: parts in any order, at once, killed or repeated, make what one run without parts makes."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clipMaker import make_clip, make_sound, noise
from test_make_face_tracks import run, video
from test_shards import FRAMES, PER_SHARD, list_clips, make_corpus

import convertAudio
import makeFileList
from syncnet.support.parts import Part, PartRecords, part_number
from syncnet.tracks.track_folder import TrackFolder

ROOT = Path(__file__).parents[2]


def start(script: str, *flags: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files, without hidden folders and without those that name the folder."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(".")}


# ---------------------------------------------------------------- makeFileList.py


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    make_corpus(root)
    return root


def test_the_part_of_a_clip_depends_only_on_its_name():
    names = [f"id{k:05d}/ref/{k:05d}.mp4" for k in range(2000)]
    numbers = [part_number(name, 4) for name in names]
    assert [part_number(name, 4) for name in reversed(names)] == numbers[::-1]
    assert all(400 < numbers.count(number) < 600 for number in (1, 2, 3, 4))
    # SHA-256 85d55a171f0b514e..., modulo 100: also of other versions and machines.
    assert part_number("id00017/a/00001.mp4", 100) == int("85d55a171f0b514e", 16) % 100 + 1 == 71


@pytest.mark.parametrize("shards", [False, True])
def test_parts_of_a_list_in_any_order(corpus, tmp_path, monkeypatch, capsys, shards):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    flags = ["--shards", "shards", "--shard_clips", PER_SHARD] if shards else []
    flags += ["--val_output", "val.txt", "--val_fraction", 0.3]
    monkeypatch.chdir(tmp_path / "whole")
    assert list_clips(corpus, Path("dev.txt"), *flags) == 0
    report = capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "parts")
    for number, missing in ((3, "1, 2"), (1, "2"), (3, "2")):
        assert list_clips(corpus, Path("dev.txt"), *flags, "--part", f"{number}/3") == 0
        assert (
            f"Part {number}/3 is finished; {missing.count(',') + 1} of 3 are not: {missing}."
            in capsys.readouterr().out
        )
        assert not Path("dev.txt").exists() and not Path("val.txt").exists()
    assert list_clips(corpus, Path("dev.txt"), *flags, "--part", "2/3") == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    lists = [line for line in report.splitlines() if line.startswith(("List:", "Next:"))]
    assert [line for line in capsys.readouterr().out.splitlines() if line in lists] == lists and len(
        lists
    ) == 3


def test_parts_with_other_flags_do_not_count(corpus, tmp_path, capsys):
    output = tmp_path / "dev.txt"
    assert list_clips(corpus, output, "--part", "1/2", "--check", "packets") == 0
    assert list_clips(corpus, output, "--part", "2/2") == 0
    assert "Part 2/2 is finished; 1 of 2 are not: 1." in capsys.readouterr().out and not output.exists()
    assert list_clips(corpus, output, "--part", "1/2") == 0
    assert output.exists() and not (tmp_path / "dev.txt.parts").exists()


def test_two_parts_may_both_complete_the_work(tmp_path):
    for _ in range(2):
        PartRecords(str(tmp_path / "list.parts"), Part(1, 2), [["a"], []], None).remove_all()


def test_a_part_whose_clips_have_changed_does_not_count(tmp_path, capsys):
    names = make_corpus(tmp_path)
    output = tmp_path / "dev.txt"
    first, second = (next(name for name in names if part_number(f"{name}.mp4", 2) == k) for k in (1, 2))
    assert list_clips(tmp_path, output, "--part", "1/2") == 0
    os.remove(tmp_path / f"mp4/{first}.mp4")
    assert list_clips(tmp_path, output, "--part", "2/2") == 0
    assert "1 of 2 are not: 1." in capsys.readouterr().out
    make_clip(str(tmp_path / f"mp4/{second}.mp4"), FRAMES - 1)  # a part that runs again looks again
    assert list_clips(tmp_path, output, "--part", "2/2") == 0
    assert list_clips(tmp_path, output, "--part", "1/2") == 0
    assert list_clips(tmp_path, tmp_path / "whole.txt") == 0
    assert output.read_text() == (tmp_path / "whole.txt").read_text()


def test_parts_at_once_and_one_of_them_killed(corpus, tmp_path):
    whole, output = tmp_path / "whole/dev.txt", tmp_path / "parts/dev.txt"
    folders = [f"--{kind}_dir={corpus / kind}" for kind in ("mp4", "wav", "txt")]

    def flags(output: Path, *more: object) -> list[object]:
        shards = ["--shards", output.parent / "shards", "--shard_clips", 2]
        return ["--output", output, *folders, "--nWorkers", 1, *shards, *more]

    killed = start("makeFileList.py", *flags(output, "--part", "2/4"))
    journal = tmp_path / "parts/dev.txt.parts/part-2-of-4.journal"
    while killed.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    parts = [start("makeFileList.py", *flags(output, "--part", f"{number}/4")) for number in (1, 2, 3, 4)]
    printed = [part.communicate(timeout=300)[0] for part in parts]
    assert [part.returncode for part in parts] == [0] * 4, printed
    assert makeFileList.main(list(map(str, flags(whole)))) == 0
    assert output.read_text().replace("/parts/", "/whole/") == whole.read_text()
    shards = [sorted((place.parent / "shards").iterdir()) for place in (output, whole)]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]


@pytest.mark.parametrize("part", ["0/4", "5/4", "1", "1/0", "a/b", "1/2/3"])
def test_parts_that_do_not_exist(corpus, tmp_path, capsys, part):
    with pytest.raises(SystemExit) as end:
        list_clips(corpus, tmp_path / "dev.txt", "--part", part)
    assert end.value.code == 2 and "expected K/N" in capsys.readouterr().err


# ---------------------------------------------------------------- makeFaceTracks.py and convertAudio.py


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Videos of one face each, one without a face, one that is broken, a text."""
    root = tmp_path_factory.mktemp("videos") / "src"
    for number in range(6):
        video(root / f"id{number % 3}/{number}.mp4", 30 + number)
    make_clip(str(root / "none.mp4"), FRAMES)
    (root / "broken.mp4").write_bytes((root / "none.mp4").read_bytes()[:500])
    (root / "about.txt").write_text("not a video")
    return root


@pytest.mark.slow
def test_parts_of_face_tracks_in_any_order(videos, tmp_path, capsys):
    assert run(videos, tmp_path / "whole") == 0
    report = re.sub(r", \d+ s\n", "\n", capsys.readouterr().out)
    parts = tmp_path / "parts"
    for number in (2, 3, 2):
        assert run(videos, parts, "--part", f"{number}/3") == 0
        assert f"Part {number}/3 is finished" in capsys.readouterr().out
        assert not (parts / "tracks.csv").exists() and not (parts / "tracks.png").exists()
    assert run(videos, parts, "--part", "1/3") == 0
    assert contents(parts) == contents(tmp_path / "whole") and (parts / "no_tracks.txt").exists()
    said = re.sub(r", \d+ s\n", "\n", capsys.readouterr().out).replace("/parts/", "/whole/")
    finished_before = re.compile(r"  finished before .*\n")
    assert finished_before.sub("", said) == finished_before.sub("", report)
    assert run(videos, parts) == 0  # a run without parts takes over what they have made
    assert re.search(r"finished before +8\n", capsys.readouterr().out)
    assert contents(parts) == contents(tmp_path / "whole")
    assert not [path for path in (parts / ".makeFaceTracks").iterdir() if "-of-" in path.name]


@pytest.mark.slow
def test_an_interrupted_part_of_face_tracks_resumes(videos, tmp_path, monkeypatch, capsys):
    assert run(videos, tmp_path / "whole") == 0
    finished = TrackFolder.finish
    count = itertools.count(1)

    def interrupted(folder, record, made):
        if next(count) == 2:
            raise KeyboardInterrupt
        finished(folder, record, made)

    for number in (1, 2):
        with monkeypatch.context() as patch:
            count = itertools.count(1)
            patch.setattr(TrackFolder, "finish", interrupted)
            assert run(videos, tmp_path / "parts", "--part", f"{number}/2") == 130
    assert not (tmp_path / "parts/tracks.csv").exists()
    for number in (1, 2):
        assert run(videos, tmp_path / "parts", "--part", f"{number}/2") == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    os.utime(videos / "none.mp4")  # has changed: its part makes it again, and another part completes
    assert run(videos, tmp_path / "parts", "--part", f"{part_number('none.mp4', 2)}/2") == 0
    assert run(videos, tmp_path / "parts", "--part", f"{3 - part_number('none.mp4', 2)}/2") == 0
    assert re.search(r"made again +1 ", capsys.readouterr().out)


def test_only_different_parts_use_a_folder_of_tracks_at_once(tmp_path):
    one, other, all_of_it = (TrackFolder(str(tmp_path), part) for part in (Part(1, 2), Part(2, 2), None))
    with one.in_use("taken"), other.in_use("taken"):
        for folder in (TrackFolder(str(tmp_path), Part(1, 2)), all_of_it):
            with pytest.raises(OSError, match="taken"), folder.in_use("taken"):
                pass
    with all_of_it.in_use("taken"), pytest.raises(OSError, match="taken"), one.in_use("taken"):
        pass


def test_parts_of_a_conversion_in_any_order(tmp_path, capsys):
    for number in range(6):
        make_sound(str(tmp_path / f"aac/id{number % 3}/{number}.m4a"), noise(0.5, seed=number))
    make_clip(str(tmp_path / "aac/mute.mp4"), FRAMES)
    (tmp_path / "aac/text.wav").write_text("not a sound")

    def convert(dst: str, *more: str) -> int:
        return convertAudio.main(
            ["--src", str(tmp_path / "aac"), "--dst", str(tmp_path / dst), "--nWorkers=1", *more]
        )

    assert convert("whole") == 1
    report = re.sub(r", \d+ s\n", "\n", capsys.readouterr().out)
    failing = part_number("text.wav", 3)
    for number, missing in ((3, 2), (1, 1), (3, 1)):
        assert convert("parts", "--part", f"{number}/3") == int(number == failing)
        assert f"Part {number}/3 is finished; {missing} of 3 are not: " in capsys.readouterr().out
        assert not (tmp_path / "parts/not_converted.txt").exists()
    assert convert("parts", "--part", "2/3") == 1
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    said = re.sub(r", \d+ s\n", "\n", capsys.readouterr().out).replace("/parts/", "/whole/")
    counts = re.compile(r"  (converted|up to date) .*\n")  # part 3 has run twice
    assert counts.sub("", said) == counts.sub("", report)


@pytest.mark.slow
def test_four_parts_of_face_tracks_at_once_and_one_of_them_killed(videos, tmp_path):
    assert run(videos, tmp_path / "whole") == 0
    flags = ["--src", videos, "--dst", tmp_path / "parts", "--nWorkers", 1, "--min_frames", 20]
    working = part_number("id0/0.mp4", 4)
    killed = start("makeFaceTracks.py", *flags, "--part", f"{working}/4")
    work = tmp_path / f"parts/.makeFaceTracks/work-{working}-of-4"
    while killed.poll() is None and not list(work.rglob("*.json")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    parts = [start("makeFaceTracks.py", *flags, "--part", f"{number}/4") for number in (1, 2, 3, 4)]
    printed = [part.communicate(timeout=600)[0] for part in parts]
    assert [part.returncode for part in parts] == [0] * 4, printed
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
