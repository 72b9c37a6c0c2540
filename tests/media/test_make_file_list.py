"""makeFileList.py: the right clips, the right reasons, and nothing lost when it is interrupted."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clipMaker import frame_number, make_clip, make_sound, make_txt, make_wav, noise
from scipy.io import wavfile
from videoMaker import face, make_video

import convertAudio
import makeFaceTracks
import makeFileList
import trainSyncNet
from makeFileList import VOXCELEB2_CLIPS, main
from syncnet.loading.two_lists import split_people
from syncnet.media.clips import Clip, read_list
from syncnet.media.video import read_frames
from syncnet.media.wav import open_wav
from syncnet.training.loaders import make_loaders

SCRIPT = Path(__file__).resolve().parents[2] / "makeFileList.py"
FRAMES = 20


@pytest.fixture(scope="module")
def master(tmp_path_factory) -> Path:
    """One good clip to copy: clip.mp4 (the index first in the file), clip.wav, clip.txt."""
    folder = tmp_path_factory.mktemp("master")
    make_clip(str(folder / "clip.mp4"), FRAMES, faststart=True)
    make_wav(str(folder / "clip.wav"), FRAMES * 640)
    make_txt(str(folder / "clip.txt"), offset=-3)
    return folder


def add_clip(root: Path, master: Path, name: str, put: Callable = shutil.copy) -> dict[str, Path]:
    paths = {}
    for kind in ("mp4", "wav", "txt"):
        paths[kind] = root / kind / f"{name}.{kind}"
        paths[kind].parent.mkdir(parents=True, exist_ok=True)
        put(master / f"clip.{kind}", paths[kind])
    return paths


def make_corpus(root: Path, master: Path, count: int, put: Callable = shutil.copy) -> list[str]:
    """put: os.link, which is faster, for clips that are not changed."""
    names = [f"id{number % 7:05d}/ref/{number:05d}" for number in range(count)]
    for name in names:
        add_clip(root, master, name, put)
    return sorted(names)


def flags(root: Path, output: Path, *more: str) -> list[str]:
    folders = [f"--{kind}_dir={root / kind}" for kind in ("mp4", "wav", "txt")]
    return [f"--output={output}", *folders, "--nWorkers=1", *more]


def reasons(output: Path) -> dict[str, str]:
    """mp4, wav or txt path -> reason, from the file of skipped clips."""
    lines = Path(f"{output}.skipped.txt").read_text().splitlines()
    return {line.split(": ")[1].split(", line")[0]: line.split(": ")[0] for line in lines}


BREAK = {
    "mp4 cut off, index kept": (
        "mp4",
        lambda path: os.truncate(path, path.stat().st_size - 900),
        "frames missing",
    ),
    "mp4 cut off": ("mp4", lambda path: os.truncate(path, 500), "mp4 cannot be opened"),
    "zero bytes": ("mp4", lambda path: path.write_bytes(b""), "mp4 empty"),
    "txt without Offset": (
        "txt",
        lambda path: path.write_text("a\nb\nFV Conf : 20\n"),
        "txt without an offset",
    ),
    "txt missing": ("txt", lambda path: path.unlink(), "txt missing"),
    "wav missing": ("wav", lambda path: path.unlink(), "wav missing"),
    "wav cut off": ("wav", lambda path: path.write_bytes(path.read_bytes()[:-5000]), "wav broken"),
    "wav at 44.1 kHz stereo": (
        "wav",
        lambda path: wavfile.write(path, 44100, np.zeros((35280, 2), np.int16)),
        "wav of another format",
    ),
    "no video stream": ("mp4", lambda path: make_sound(str(path), noise(0.8)), "mp4 without video"),
}


@pytest.mark.parametrize("check", ["decode", "packets"])
def test_broken_clips_are_skipped_with_their_reasons(tmp_path, master, capsys, check):
    names = make_corpus(tmp_path, master, 100)
    broken = {}
    ways = list(BREAK)[1:] * 5  # eight ways, five of each,
    ways[0] = ways[8] = "mp4 cut off, index kept"  # where two of the five truncated ones still open
    for name, way in zip(names[::2][:40], ways, strict=True):
        kind, damage, reason = BREAK[way]
        path = tmp_path / kind / f"{name}.{kind}"
        damage(path)
        broken[str(path)] = reason
    output = tmp_path / "out/list.txt"
    assert main(flags(tmp_path, output, "--nWorkers=1", f"--check={check}")) == 0
    printed = capsys.readouterr().out
    assert reasons(output) == broken
    assert re.search(r"found +100 ", printed)
    assert re.search(r"listed +60 ", printed)
    for reason in set(broken.values()):
        assert re.search(rf"{list(broken.values()).count(reason)} {reason}: ", printed)
    bad = {re.sub(r".*/(id.*)\.\w+", r"\1", path) for path in broken}
    expected = [
        Clip(f"{tmp_path}/mp4/{name}.mp4", f"{tmp_path}/wav/{name}.wav", -3, FRAMES)
        for name in names
        if name not in bad
    ]
    assert read_list(str(output)) == expected
    assert sorted(os.listdir(tmp_path / "out")) == ["list.txt", "list.txt.skipped.txt"]


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ((FRAMES - 1) * 640 - 1, "sound and video lengths different"),
        ((FRAMES - 1) * 640, None),
        ((FRAMES + 1) * 640, None),
        ((FRAMES + 1) * 640 + 1, "sound up to 2 frames too long"),
        ((FRAMES + 2) * 640, "sound up to 2 frames too long"),
        ((FRAMES + 2) * 640 + 1, "sound and video lengths different"),
    ],
)
def test_sound_may_differ_by_one_frame(tmp_path, master, samples, reason):
    add_clip(tmp_path, master, "other")
    wav = add_clip(tmp_path, master, "clip")["wav"]
    make_wav(str(wav), samples)
    assert main(flags(tmp_path, tmp_path / "list")) == 0
    assert reasons(tmp_path / "list") == ({str(wav): reason} if reason else {})


def test_a_damaged_picture_is_noticed_by_decoding_only(tmp_path, master):
    add_clip(tmp_path, master, "good")
    damaged = add_clip(tmp_path, master, "damaged")["mp4"]
    with av.open(str(damaged)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(damaged.read_bytes())
    position, size = packets[0]
    content[position : position + size] = bytes(size)  # the only key frame
    damaged.write_bytes(content)
    assert main(flags(tmp_path, tmp_path / "decoded")) == 0
    assert reasons(tmp_path / "decoded") == {str(damaged): "frames missing"}
    assert [clip.video for clip in read_list(str(tmp_path / "decoded"))] == [f"{tmp_path}/mp4/good.mp4"]
    assert main(flags(tmp_path, tmp_path / "counted", "--check=packets")) == 0
    assert len(read_list(str(tmp_path / "counted"))) == 2


def test_the_readmes_command_keeps_the_paths_as_given(tmp_path, master, monkeypatch):
    add_clip(tmp_path / "vox/dev", master, "id00001/ref/00001")
    monkeypatch.chdir(tmp_path)
    command = ["--output", "data/dev.txt"]
    for slash in ("", "/"):
        for base in ("vox", "./vox", str(tmp_path / "vox")):
            folders = [f"--{kind}_dir={base}/dev/{kind}{slash}" for kind in ("mp4", "txt", "wav")]
            assert main([*command, *folders, "--nWorkers=1"]) == 0
            stem = "id00001/ref/00001"
            line = f"{base}/dev/mp4/{stem}.mp4 {base}/dev/wav/{stem}.wav -3 {FRAMES}\n"
            assert Path("data/dev.txt").read_text() == line


def test_workers_and_check_do_not_change_the_list(tmp_path, master):
    make_corpus(tmp_path, master, 25)
    lists = []
    for more in (["--nWorkers=1"], ["--nWorkers=3"], ["--nWorkers=2", "--check=packets"]):
        assert main(flags(tmp_path, tmp_path / "list", *more)) == 0
        lists.append((tmp_path / "list").read_bytes())
    assert lists[0] == lists[1] == lists[2]
    videos = [clip.video for clip in read_list(str(tmp_path / "list"))]
    assert len(videos) == 25
    assert videos == sorted(videos)


def test_names_with_spaces_links_and_unusable_names(tmp_path, master):
    add_clip(tmp_path, master, "a person/a clip")
    linked = add_clip(tmp_path / "elsewhere", master, "linked/file")
    for kind, path in linked.items():
        (tmp_path / kind / "link").symlink_to(path.parent)
        (tmp_path / kind / f"one.{kind}").symlink_to(path)
        (tmp_path / kind / "link" / "loop").symlink_to(tmp_path / kind)  # a link to the folder around it
    add_clip(tmp_path, master, "tab\there")
    add_clip(tmp_path, master, os.fsdecode(b"not\xffutf8"))
    (tmp_path / "mp4/dangling.mp4").symlink_to(tmp_path / "nowhere")
    assert main(flags(tmp_path, tmp_path / "list")) == 0
    found = [os.path.relpath(clip.video, tmp_path / "mp4") for clip in read_list(str(tmp_path / "list"))]
    assert found == ["a person/a clip.mp4", "link/file.mp4", "one.mp4"]
    skipped = Path(f"{tmp_path / 'list'}.skipped.txt").read_text()
    assert skipped.count("name cannot stand in a list") == 2
    assert "txt missing: " in skipped  # of the dangling link


def test_your_own_videos(tmp_path):
    """Any depth, sound inside the mp4, no txt: what comes out is in step."""
    for name in ("one", "some folder/two", "a/b/c/d/three"):
        make_clip(str(tmp_path / f"{name}.mp4"), 60, sound=noise(2.4), rate=16000)
    make_clip(str(tmp_path / "fast.mp4"), 72, sound=noise(2.4), fps=30)
    make_clip(str(tmp_path / "large.mp4"), 60, sound=noise(2.4), size=320)
    assert convertAudio.main([f"--src={tmp_path}", f"--dst={tmp_path}", "--nWorkers=1"]) == 0
    own = [f"--output={tmp_path}/list", f"--mp4_dir={tmp_path}", f"--wav_dir={tmp_path}"]
    own += ["--nWorkers=1", "--no_txt"]
    assert main(own) == 0
    clips = read_list(f"{tmp_path}/list")
    names = [os.path.relpath(clip.video, tmp_path) for clip in clips]
    assert names == ["a/b/c/d/three.mp4", "one.mp4", "some folder/two.mp4"]
    assert all((clip.offset, clip.frames) == (0, 60) for clip in clips)
    assert len(open_wav(clips[0].audio)) == 60 * 640
    assert sorted(reasons(tmp_path / "list").values()) == ["not 224x224", "not 25 frames a second"]

    assert main([*own, "--allow_resize"]) == 0
    clips = read_list(f"{tmp_path}/list")
    assert [os.path.relpath(clip.video, tmp_path) for clip in clips][1] == "large.mp4"
    pictures = np.zeros((3, 224, 224, 3), np.uint8)
    read_frames(clips[1].video, 40, pictures, allow_resize=True)
    assert [frame_number(picture) for picture in pictures] == [40, 41, 42]


def test_a_killed_run_resumes(tmp_path, master, capsys):
    make_corpus(tmp_path, master, 500, os.link)
    (tmp_path / "wav/id00001/ref/00001.wav").unlink()
    assert main(flags(tmp_path, tmp_path / "whole", "--nWorkers=1")) == 0
    output, journal = tmp_path / "list", tmp_path / "list.journal"
    command = [sys.executable, str(SCRIPT), *flags(tmp_path, output, "--nWorkers=2", "--resume")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 30):
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=300)  # ends only when the workers, who hold the pipe too, have ended
    assert not output.exists()
    done = journal.read_bytes().count(b"\n") - 1  # less the head
    assert 29 <= done < 500

    with journal.open("ab") as file:  # what a machine that lost power may leave
        file.write(b"\0\0\0\n" + b'["id00003/ref/0')
    shutil.copy(journal, tmp_path / "copy.journal")
    capsys.readouterr()
    assert main(flags(tmp_path, output, "--nWorkers=1", "--resume")) == 0
    assert re.search(rf"kept +{done} ", capsys.readouterr().out)
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()
    assert reasons(output) == reasons(tmp_path / "whole")
    assert not journal.exists()


def kept(root: Path, output: Path, capsys, *more: str) -> int:
    """Run over a journal of earlier runs; how many of its results were reused."""
    assert main(flags(root, output, *more)) == 0
    found = re.search(r"kept +(\d+)", capsys.readouterr().out)
    return int(found[1]) if found else 0


@pytest.fixture
def journal_stays(monkeypatch) -> None:
    """As if each run had been interrupted at its end."""
    monkeypatch.setattr("syncnet.media.check_journal.CheckJournal.close", lambda _: 0)


@pytest.mark.usefixtures("journal_stays")
def test_a_result_is_reused_while_its_video_is_the_same(tmp_path, master, capsys):
    names = make_corpus(tmp_path, master, 10)
    output, journal = tmp_path / "list", tmp_path / "list.journal"
    assert kept(tmp_path, output, capsys) == 0
    assert len(journal.read_text().splitlines()) == 11
    assert kept(tmp_path, output, capsys, "--resume") == 10
    assert kept(tmp_path, output, capsys) == 0  # not asked to
    # Sound and txt files are always read again.
    make_txt(str(tmp_path / f"txt/{names[2]}.txt"), offset=14)
    make_wav(str(tmp_path / f"wav/{names[4]}.wav"), 5000)
    (tmp_path / f"mp4/{names[6]}.mp4").unlink()
    os.utime(tmp_path / f"mp4/{names[7]}.mp4", (1, 1))
    larger = tmp_path / f"mp4/{names[8]}.mp4"  # modified at the same time as before
    stamp = larger.stat().st_mtime_ns
    larger.write_bytes(larger.read_bytes() + b"x")
    os.utime(larger, ns=(stamp, stamp))
    assert kept(tmp_path, output, capsys, "--resume") == 7
    clips = read_list(str(output))
    assert len(clips) == 8 and clips[2].offset == 14
    assert reasons(output) == {f"{tmp_path}/wav/{names[4]}.wav": "sound and video lengths different"}
    with journal.open("a") as file:
        file.write('["id00003/ref/0')  # cut off: what follows must not be glued to it
    os.utime(tmp_path / f"mp4/{names[4]}.mp4", (2, 2))
    assert kept(tmp_path, output, capsys, "--resume") == 8
    assert kept(tmp_path, output, capsys, "--resume") == 9
    journal.write_bytes(b"\0\0\0")
    assert kept(tmp_path, output, capsys, "--resume") == 0


@pytest.mark.usefixtures("journal_stays")
@pytest.mark.parametrize(
    "other",
    [
        ["--allow_resize"],
        ["--no_txt"],
        ["--mp4_dir=mp4"],
        ["--mp4_dir=./mp4/"],
        ["--mp4_dir=link/"],
        ["--mp4_dir=mp4/id00001", "--wav_dir=wav/id00001", "--txt_dir=txt/id00001"],
        ["--wav_dir=other_wavs"],
        ["--val_output=val", "--nWorkers=1"],
    ],
    ids=" ".join,
)
def test_other_flags_and_folders_reuse_the_results(other, tmp_path, master, capsys, monkeypatch):
    """And give the list that they give without a journal."""
    names = make_corpus(tmp_path, master, 12)
    make_clip(str(tmp_path / f"mp4/{names[1]}.mp4"), FRAMES, size=320)
    make_clip(str(tmp_path / f"mp4/{names[0]}.mp4"), FRAMES, fps=30)
    shutil.copytree(tmp_path / "wav", tmp_path / "other_wavs")
    (tmp_path / "other_wavs" / f"{names[5]}.wav").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "mp4")
    monkeypatch.chdir(tmp_path)
    videos = 2 if "mp4/id00001" in other[0] else 11 if "other_wavs" in other[0] else 12
    assert kept(tmp_path, Path("list"), capsys) == 0
    assert kept(tmp_path, Path("list"), capsys, *other, "--resume") == videos
    assert kept(tmp_path, Path("fresh"), capsys, *other) == 0
    for name in ("", ".skipped.txt"):
        assert Path(f"list{name}").read_text() == Path(f"fresh{name}").read_text()


@pytest.mark.usefixtures("journal_stays")
def test_results_of_another_kind_of_check_are_not_used(tmp_path, master, capsys):
    make_corpus(tmp_path, master, 4)
    output = tmp_path / "list"
    assert kept(tmp_path, output, capsys, "--check=packets") == 0
    assert main(flags(tmp_path, output, "--resume")) == 0
    out = capsys.readouterr().out
    assert "--resume: " in out and "has no results for --check decode; all clips are checked" in out
    assert kept(tmp_path, output, capsys, "--check=packets", "--resume") == 4


@pytest.mark.usefixtures("journal_stays")
def test_failures_that_may_be_temporary_are_checked_again(tmp_path, master, capsys):
    """A disk that fails for a while leaves videos that cannot be opened or seem cut off."""
    make_corpus(tmp_path, master, 3)
    damaged = add_clip(tmp_path, master, "id00009/a")["mp4"]
    damaged.write_bytes(damaged.read_bytes()[:-900])
    assert kept(tmp_path, tmp_path / "list", capsys) == 0
    assert reasons(tmp_path / "list") == {str(damaged): "frames missing"}
    assert kept(tmp_path, tmp_path / "list", capsys, "--resume") == 3


def test_a_run_without_resume_destroys_nothing(tmp_path, master, capsys, monkeypatch):
    """Interrupted in its turn, it leaves the results of both."""
    make_corpus(tmp_path, master, 6)
    journal = tmp_path / "list.journal"
    real, count = makeFileList.check_job, 0

    def interrupted_at(last: int):
        def check(*args):
            nonlocal count
            count += 1
            if count > last:
                raise KeyboardInterrupt
            return real(*args)

        return check

    monkeypatch.setattr("makeFileList.check_job", interrupted_at(4))
    assert main(flags(tmp_path, tmp_path / "list")) == 130
    monkeypatch.setattr("makeFileList.check_job", interrupted_at(5))
    capsys.readouterr()
    assert main(flags(tmp_path, tmp_path / "list")) == 130
    out = capsys.readouterr().out
    assert "an interrupted run checked 4 videos" in out and "add --resume: nothing is lost" in out
    monkeypatch.setattr("makeFileList.check_job", real)
    # A finished run over other videos leaves the results too, and says so.
    others = [f"--{kind}_dir={tmp_path}/{kind}/id00005" for kind in ("mp4", "wav", "txt")]
    assert main(flags(tmp_path, tmp_path / "list", *others)) == 0
    assert "it has 4 results of an interrupted run" in capsys.readouterr().out
    assert kept(tmp_path, tmp_path / "list", capsys, "--resume") == 5
    assert not journal.exists()


def test_an_interrupted_part_resumes(tmp_path, master, capsys, monkeypatch):
    make_corpus(tmp_path, master, 14)
    real, checked = makeFileList.check_job, []

    def interrupted(*args):
        if len(checked) == 2:
            raise KeyboardInterrupt
        checked.append(args)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr("makeFileList.check_job", interrupted)
        assert main(flags(tmp_path, tmp_path / "list", "--part=1/2")) == 130
    assert main(flags(tmp_path, tmp_path / "list", "--part=1/2")) == 0
    assert kept(tmp_path, tmp_path / "list", capsys, "--part=2/2") == 2
    assert len(read_list(str(tmp_path / "list"))) == 14


def test_ctrl_c_prints_how_to_resume(tmp_path, master):
    make_corpus(tmp_path, master, 2000, os.link)  # more than can be checked before the signal comes
    command = [sys.executable, str(SCRIPT), *flags(tmp_path, tmp_path / "list", "--nWorkers=2")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    journal = tmp_path / "list.journal"
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 10):
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the workers too
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 130
    assert "To resume, run the same command with --resume." in printed
    assert "Traceback" not in printed
    assert journal.exists()


def test_bad_input_is_one_clear_message(tmp_path, master, capsys):
    add_clip(tmp_path, master, "clip")
    good = flags(tmp_path, tmp_path / "list")
    for wrong, message in (
        ([*good, "--nWorkers=0"], "needs at least 1"),
        (
            [*good, "--wav_dir=nowhere"],
            "--wav_dir nowhere: no such folder. Make the wavs with convertAudio.py",
        ),
        (
            [*good, "--txt_dir=nowhere"],
            "--txt_dir nowhere: no such folder. For clips without txt, give --no_txt",
        ),
        ([flag for flag in good if "txt_dir" not in flag], "--txt_dir is required"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert main([*good, f"--mp4_dir={tmp_path / 'wav'}"]) == 1
    assert "no .mp4 files" in capsys.readouterr().err
    (tmp_path / "wav/clip.wav").unlink()
    assert main(good) == 1
    assert "No clip can be used" in capsys.readouterr().err
    assert not (tmp_path / "list").exists()


def test_voxceleb2_is_measured_against_its_full_count(tmp_path, master, capsys, monkeypatch):
    monkeypatch.setitem(VOXCELEB2_CLIPS, "test", 200)
    for number in range(2):
        wav = add_clip(tmp_path / "test", master, f"id00017/01dfn2spqyE/{number:05d}")["wav"]
    wav.unlink()
    assert main(flags(tmp_path / "test", tmp_path / "list")) == 0
    expected = "VoxCeleb2's test set has 200 clips: 2 (1.0 %) are here, 1 (0.5 %) are listed."
    assert expected in capsys.readouterr().out
    monkeypatch.setitem(VOXCELEB2_CLIPS, "test", 201)  # less than 1 % of it: a sample
    assert main(flags(tmp_path / "test", tmp_path / "list")) == 0
    assert "VoxCeleb2" not in capsys.readouterr().out
    monkeypatch.setitem(VOXCELEB2_CLIPS, "test", 2)
    add_clip(tmp_path / "test", master, "own/clip")
    assert main(flags(tmp_path / "test", tmp_path / "list")) == 0
    assert "VoxCeleb2" not in capsys.readouterr().out


def test_people_are_split(master, tmp_path, capsys):
    make_corpus(tmp_path, master, 14)  # of seven people, two clips each
    (output, validation) = (tmp_path / "train.txt", tmp_path / "val.txt")
    split = [f"--val_output={validation}", "--val_fraction=0.3"]
    assert main(flags(tmp_path, output, *split)) == 0
    people = {
        path: {Path(clip.video).parts[-3] for clip in read_list(str(path))} for path in (output, validation)
    }
    assert (len(people[output]), len(people[validation])) == (5, 2)
    assert not people[output] & people[validation]
    assert len(read_list(str(output))) == 10 and len(read_list(str(validation))) == 4
    assert "(4 clips of 2 people)" in capsys.readouterr().out

    first = validation.read_bytes()
    assert main(flags(tmp_path, output, *split)) == 0 and validation.read_bytes() == first
    assert main(flags(tmp_path, output, f"--val_output={validation}", "--val_fraction=0.01")) == 0
    assert len({clip.video.split("/")[-3] for clip in read_list(str(validation))}) == 1


def test_the_next_command_suits_the_lists(master, tmp_path, capsys):
    """Clips shorter than the default crop, fewer than the default batch: the loaders take what is printed."""
    make_corpus(tmp_path, master, 14)
    split = flags(tmp_path, tmp_path / "train.txt", f"--val_output={tmp_path}/val.txt")
    assert main([*split, "--val_fraction=0.3"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    script, *typed = shlex.split(line.removeprefix("Next: python "))
    args = trainSyncNet.parse_args(typed)
    assert script == "trainSyncNet.py" and args.save_path == str(tmp_path / "train")
    assert (args.maxFrames, args.nBatchSize) == (FRAMES - 4 - 3, 4)  # the txt of all clips says offset -3
    assert [loader.nFiles for loader in make_loaders(args, str(tmp_path), torch.device("cpu"))] == [10, 4]
    assert main([*split, "--val_fraction=0.01"]) == 0
    assert "Next:" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "mp4/id00000")
    for number in range(1, 7):
        (tmp_path / f"mp4/id{number:05d}/ref/{number:05d}.mp4").unlink()
    assert main([*split, "--val_fraction=0.01"]) == 0
    said = capsys.readouterr().out
    assert "(1 clip of 1 person)" in said and "Not enough to train on yet. Use a longer list" in said


@pytest.mark.parametrize(
    "wrong",
    [{"mp4": "."}, {"mp4": "mp4/id00000"}, {"mp4": "mp4/id00000/ref"}, {"wav": "."}, {"txt": "txt/id00000"}],
)
def test_the_folder_that_is_on_the_wrong_level_is_named(wrong, master, tmp_path, monkeypatch, capsys):
    """What is printed is typed, and lists the clips."""
    add_clip(tmp_path, master, "id00000/ref/00001")
    monkeypatch.chdir(tmp_path)
    folders = {kind: wrong.get(kind, kind) for kind in ("mp4", "wav", "txt")}
    typed = [word for kind, folder in folders.items() for word in (f"--{kind}_dir", folder)]
    assert main(["--output", "list", "--nWorkers", "1", *typed]) == 1
    said = capsys.readouterr().out
    flag, folder = re.search(r"The files are found with (\S+) (\S+)", said).groups()
    assert main(["--output", "list", "--nWorkers", "1", *typed, flag, folder]) == 0


def typed_again(said: str) -> list[str]:
    """The flags of the makeFileList.py command that a message ends with."""
    return shlex.split(re.search(r"python makeFileList\.py (.*)$", said.strip())[1])


@pytest.mark.parametrize(
    "names", [["anna/a/1", "anna/a/2", "anna/b/1", "anna/c/1"], [f"talk/0000{k}" for k in range(4)]]
)
def test_the_advice_for_a_single_person_works(master, tmp_path, capsys, names, monkeypatch):
    """The line that is printed is typed as it is, and leads to two lists and a training command."""
    monkeypatch.chdir(tmp_path)
    for name in names:
        add_clip(tmp_path, master, name)
    given = (
        "--output=train.txt --val_output val.txt --val_fraction 0.5 --mp4_dir=mp4 --wav_dir=wav --txt_dir=txt"
    )
    assert main([*given.split(), "--nWorkers=1"]) == 1
    said = capsys.readouterr().err
    assert "--alphaI 0" in said
    assert main(typed_again(said)) == 0
    assert "Next: python trainSyncNet.py" in capsys.readouterr().out
    lists = [read_list("train.txt"), read_list("val.txt")]
    assert sum(map(len, lists)) == 4 and all(map(len, lists))
    assert not {clip.video for clip in lists[0]} & {clip.video for clip in lists[1]}


def test_the_advice_for_few_people_works(master, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for who in "abcde":
        add_clip(tmp_path, master, f"{who}/1")
    given = "--output=train.txt --val_output=val.txt --mp4_dir=mp4 --wav_dir=wav --txt_dir=txt --nWorkers=1"
    assert main(given.split()) == 0
    said = capsys.readouterr().out
    assert "Not enough to train on yet" in said and "Next" not in said
    assert main(typed_again(said)) == 0
    said = capsys.readouterr().out
    assert "(3 clips of 3 people)" in said and "(2 clips of 2 people)" in said and "Next: " in said


def test_missing_face_tracks_are_explained(master, tmp_path, capsys):
    """Videos that were too short for makeFaceTracks.py leave no folder, or one person."""
    (tmp_path / "wav").mkdir()
    (tmp_path / "txt").mkdir()
    reason = "shorter than --min_frames 34: the longest face track has 25 frames"
    (tmp_path / "no_tracks.txt").write_text(
        f"b/0.mp4: {reason}\nb/1.mp4: empty (0 bytes)\nb/2.mp4: empty (0 bytes)\n"
    )
    wanted = "found no face track in 3 videos; see "
    split = flags(tmp_path, tmp_path / "train.txt", f"--val_output={tmp_path}/val.txt")
    with pytest.raises(SystemExit):
        main(split)
    said = capsys.readouterr().err
    assert wanted in said and "Too short: 1. The same makeFaceTracks.py command with --min_frames 9" in said
    (tmp_path / "mp4").mkdir()
    assert main(split) == 1
    assert wanted in capsys.readouterr().err
    add_clip(tmp_path, master, "a/1")
    assert main(split) == 1
    said = capsys.readouterr().err
    assert wanted in said and "Add videos: each list needs at least 2 clips, and both together have 1" in said


def draw_face(picture: np.ndarray, number: int) -> None:
    picture[4:116, 20 + number % 5 : 132 + number % 5] = face(112)


def test_short_videos_of_few_people_lead_to_a_training(tmp_path, capsys, monkeypatch):
    """README's three lines, and what they say to type instead."""
    monkeypatch.chdir(tmp_path)
    for name in ("ann/1", "ann/2", "bob/1", "bob/2"):
        make_video(f"my_videos/{name}.mp4", np.arange(26) / 25, size=(160, 120), flash=None, draw=draw_face)
    assert makeFaceTracks.main(["--src", "my_videos", "--dst", "my_tracks", "--nWorkers", "1"]) == 1
    line = re.search(r"python makeFaceTracks\.py (.*)", capsys.readouterr().out)[1]
    assert makeFaceTracks.main(shlex.split(line)) == 0
    line = re.search(r"Next: python makeFileList\.py (.*)", capsys.readouterr().out)[1]
    assert main(shlex.split(line)) == 0
    line = re.search(r"Next: python trainSyncNet\.py (.*)", capsys.readouterr().out)[1]
    tiny = "--model tinyModel --nOut 8 --device cpu --max_epoch 1 --nDataLoaderThread 1"
    assert trainSyncNet.main([*shlex.split(line), *tiny.split()]) == 0
    assert Path("data/mine/model/model000000001.model").exists()


def test_one_person_cannot_be_split(master, tmp_path, capsys):
    add_clip(tmp_path, master, "id00001/a")
    add_clip(tmp_path, master, "id00001/b")
    assert main(flags(tmp_path, tmp_path / "train.txt", f"--val_output={tmp_path}/val.txt")) == 1
    assert "one person's" in capsys.readouterr().err and not (tmp_path / "val.txt").exists()
    assert not (tmp_path / "train.txt.journal").exists()  # refused before a clip is checked
    add_clip(tmp_path, master, "id00002/c")["wav"].unlink()
    assert main(flags(tmp_path, tmp_path / "train.txt", f"--val_output={tmp_path}/val.txt")) == 1
    assert "one person's" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(flags(tmp_path, tmp_path / "x.txt", f"--val_output={tmp_path}/x.txt"))


def test_a_clip_without_wav_because_of_its_video(tmp_path, capsys):
    """convertAudio.py is advised only where it can make the wav."""
    (tmp_path / "wav").mkdir()
    make_clip(str(tmp_path / "mp4/whole.mp4"), 20, sound=noise(0.8))
    make_clip(str(tmp_path / "mp4/mute.mp4"), 20)
    (tmp_path / "mp4/empty.mp4").touch()
    (tmp_path / "mp4/text.mp4").write_text("<html>404</html>")
    folders = [f"--mp4_dir={tmp_path / 'mp4'}", f"--wav_dir={tmp_path / 'wav'}", "--no_txt", "--nWorkers=1"]
    assert main([f"--output={tmp_path / 'list'}", *folders]) == 1
    printed = (tmp_path / "list.skipped.txt").read_text()
    assert reasons(tmp_path / "list") == {
        f"{tmp_path}/mp4/empty.mp4": "mp4 empty",
        f"{tmp_path}/mp4/text.mp4": "mp4 cannot be opened",
        f"{tmp_path}/wav/mute.wav": "wav missing",
        f"{tmp_path}/wav/whole.wav": "wav missing",
    }
    assert (
        "mute.wav: no such file, and no sound in the video" in printed
        and "whole.wav: no such file\n" in printed
    )
    assert "2 wav missing: make the wavs with convertAudio.py" in capsys.readouterr().out


def test_a_folder_that_cannot_be_read_is_reported_and_skipped(tmp_path, master, closed, capsys):
    names = make_corpus(tmp_path, master, 8)
    closed(tmp_path / "mp4/id00003")
    assert main(flags(tmp_path, tmp_path / "list.txt")) == 0
    listed = {Path(clip.video).parts[-3] for clip in read_list(str(tmp_path / "list.txt"))}
    assert len(names) == 8 and listed == {f"id{k:05d}" for k in (0, 1, 2, 4, 5, 6)}
    printed = f"{tmp_path}/mp4/id00003: this folder and its contents cannot be read (Permission denied)"
    out = capsys.readouterr().out
    assert "Folders that cannot be read: 1\n" in out and f"  {printed}\n" in out
    assert (tmp_path / "list.txt.skipped.txt").read_text() == f"{printed}\n"
    for k in range(7):
        closed(tmp_path / f"mp4/id{k:05d}")
    assert main(flags(tmp_path, tmp_path / "list.txt")) == 1
    assert printed in capsys.readouterr().err
    closed(tmp_path / "mp4")
    assert main(flags(tmp_path, tmp_path / "list.txt")) == 1
    assert capsys.readouterr().err == f"makeFileList.py: {tmp_path}/mp4: Permission denied\n"


@pytest.mark.parametrize(("fraction", "validating"), [(0.01, 1), (0.5, 2), (0.9, 2)])
def test_each_list_has_a_person_with_any_fraction(fraction, validating):
    clips = [f"{person}/{k}.mp4" for person in "abc" for k in range(2)]
    lists = split_people(clips, "train", "val", fraction)
    assert [len(lists[name]) // 2 for name in ("train", "val")] == [3 - validating, validating]
