"""The inputs and outputs of inferSyncNet.py: files, folders, lists, and errors in one line."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from clipMaker import make_clip, make_txt, make_wav, noise
from inferring import T, files_in, run
from scipy.io import wavfile

import inferSyncNet
from DatasetLoader import DatasetLoader
from inferSyncNet import verify
from syncnet.inference.sources import find_sources, with_wavs
from syncnet.media.clips import MediaError
from syncnet.media.file_type import SOUND_FILES, VIDEO_FILES


def test_a_list_used_in_another_folder_names_its_folder(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inferSyncNet, "load_network", None)
    (tmp_path / "home/data").mkdir(parents=True)
    (tmp_path / "away").mkdir()
    (tmp_path / "home/clips").symlink_to(clips)
    names = [f"clips/mp4/id{k}/video/{2 * k}.mp4" for k in range(2)]
    lines = [f"{name} {name.replace('mp4', 'wav')} 0 30\n" for name in names]
    text = tmp_path / "home/data/list.txt"
    text.write_text("".join(lines))
    monkeypatch.chdir(tmp_path / "away")
    for command in (
        ["embed", "--output", "x.npz"],
        ["embed", "--face", "--output", "x.npz"],
        ["offset"],
        ["match"],
    ):
        status, _, (line,) = run(capsys, *command, text, "--initial_model", "x")
        assert status == 1 and "The paths in a list are relative to the folder in which it was made" in line
        assert line.endswith(f"cd {tmp_path}/home.") and f"{text}: its files are not here (clips/" in line
    with pytest.raises(MediaError, match=f"cd {tmp_path}/home"):
        next(iter(DatasetLoader(str(text), 2, 2, 16, 1)))
    text.rename(tmp_path / "away/list.txt")
    assert "Run the command there, or" in run(capsys, "offset", "list.txt", "--initial_model", "x")[2][0]
    monkeypatch.chdir(tmp_path / "home")
    assert len(find_sources(["../away/list.txt"], (".mp4",))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("embed {clips}/wav --output {there}/folder.npz", "--output {there}/folder.npz: is a folder"),
        ("embed {clips}/wav --output {there}/file", "--output {there}/file: is a file, needs a folder"),
        ("embed {clips}/wav --output {there}/file/x.npz", "--output {there}/file/x.npz: cannot be created"),
        ("offset {clips}/list.txt --plot {there}/folder", "--plot {there}/folder: is a folder"),
        ("offset {clips}/list.txt --csv {there}/file/x.csv", "--csv {there}/file/x.csv: cannot be created"),
        (
            "offset {clips}/list.txt --write_list {there}/closed/x",
            "--write_list {there}/closed/x: no permission",
        ),
        ("offset {clips}/list.txt --csv /dev/null", "--csv /dev/null: is not a regular file"),
    ],
)
def test_outputs_are_checked_before_anything_is_computed(
    clips, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.setattr(inferSyncNet, "load_network", None)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("closed") and access(path, mode)
    )
    for folder in ("folder", "folder.npz", "closed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").write_text("kept")
    given = arguments.format(clips=clips, there=tmp_path).split()
    before = files_in(tmp_path)
    status, out, errors = run(capsys, *given, "--initial_model", "x")
    assert status == 1 and out == "" and len(errors) == 1
    assert errors[0].startswith("inferSyncNet.py: " + message.format(there=tmp_path))
    assert files_in(tmp_path) == before


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    wavfile.write(folder / "silent.wav", 16000, np.zeros(32000, np.int16))
    make_wav(str(folder / "short.wav"), T * 640)
    make_wav(str(folder / "good.wav"), 40 * 640)
    make_clip(str(folder / "small.mp4"), 40, size=160)
    make_clip(str(folder / "mute.mp4"), 40)
    make_clip(str(folder / "fast.mp4"), 40, fps=30)
    make_clip(str(folder / "brief.mp4"), 12)
    make_txt(str(folder / "clip.txt"))
    (folder / "broken.mp4").write_bytes(b"nothing")
    (folder / "broken.m4a").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("verify {bad}/silent.wav {bad}/good.wav", "silent.wav: silent, all 32000 samples are the same"),
        ("verify {bad}/good.wav {bad}/short.wav", "short.wav: Audio clip is too short: 5120 samples"),
        ("verify {bad}/none.wav {bad}/good.wav", "none.wav: no such file"),
        ("verify {bad}/good.wav {bad}/broken.m4a", "broken.m4a: a text file, neither sound nor video"),
        ("verify {bad}/good.wav {bad}/good.wav --nOut 16", "weights of the network do not fit"),
        ("verify {bad}/good.wav {bad}/good.wav --model models.None", "has no SyncNetModel"),
        ("verify {bad}/good.wav {bad}/good.wav --initial_model {bad}/none", "none: no such"),
        ("verify {bad}/good.wav {bad}/good.wav --initial_model {bad}/good.wav", "good.wav: not loaded"),
        ("offset {bad}/mute.mp4", "mute.mp4: no sound track (--wav gives a clip its sound)"),
        ("offset {bad}/mute.mp4 --wav {bad}/silent.wav", "silent.wav: silent"),
        (
            "offset {bad}/fast.mp4 --wav {bad}/good.wav --allow_resize",
            "fast.mp4: 30 frames per second, expected 25",
        ),
        ("offset {bad}/brief.mp4 --wav {bad}/good.wav", "brief.mp4: 12 frames of picture and sound"),
        ("offset {bad}/broken.mp4 --wav {bad}/good.wav", "broken.mp4: a text file, neither sound nor video"),
        ("offset {bad}/mute.mp4 --write_list x.txt", "--write_list: a list names a wav for every clip"),
        (
            "offset {bad}/mute.mp4 {bad}/fast.mp4 --wav {bad}/good.wav",
            "2 clips need a folder with their wavs",
        ),
        ("embed {bad}/small.mp4 --face --output {bad}/x.npz", "small.mp4: frames are 160x160"),
        ("embed {bad}/silent.wav --output {bad}/x.npz", "silent.wav: silent"),
        ("embed {bad}/nothing --output {bad}/x.npz", "nothing: no such file. Give folders, lists, or files"),
        ("embed {bad}/clip.txt --output {bad}/x.npz", "clip.txt, line 1: found 2 fields, expected 4"),
        ("match {bad}/nothing", "nothing: no such file. Give folders, lists, or files"),
    ],
)
def test_bad_input_is_reported_in_one_line(bad, checkpoint, capsys, arguments, message):
    given = [argument.format(bad=bad) for argument in arguments.split()]
    if "--initial_model" not in given:
        given += ["--initial_model", str(checkpoint)]
    status, out, errors = run(capsys, *given, "--device", "cpu")
    assert status == 1 and out == "" and len(errors) == 1 and message in errors[0], errors
    assert not (bad / "x.npz").exists()


def test_the_suggested_wav_works(checkpoint, tmp_path, capsys):
    """A clip without sound in it, in VoxCeleb2's folders: what is printed can be typed."""
    video = str(tmp_path / "mp4/a/b.mp4")
    make_clip(video, 40)
    make_wav(str(tmp_path / "wav/a/b.wav"), 40 * 640)
    flags = ("--initial_model", checkpoint, "--max_offset", 1)
    for given in (video, tmp_path):
        status, _, errors = run(capsys, "offset", given, *flags)
        wav, videos, wavs = re.search(
            r"sound: --wav (\S+), or of all (\S+) --wav (\S+)\)", errors[0]
        ).groups()
        assert status == 1
    assert run(capsys, "offset", video, *flags, "--wav", wav)[0] == 0
    assert run(capsys, "offset", videos, *flags, "--wav", wavs)[0] == 0


def test_a_trial_list_is_not_a_list_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("trials.txt").write_text("1 a/x.wav b/y.wav\n0 a/x.wav c/z.wav\n")
    with pytest.raises(MediaError, match=r"trials.txt, line 1: is a trial .*--test_list"):
        find_sources(["trials.txt"], (".wav",))
    Path("1 my own.wav").write_text("")
    Path("files.txt").write_text("1 my own.wav\n")
    assert [source.path for source in find_sources(["files.txt"], (".wav",))] == ["1 my own.wav"]


def test_the_voices_of_a_folder_of_videos(tmp_path, monkeypatch):
    for name in ("a.mp4", "b/c.MP4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [source.path for source in find_sources(["."], SOUND_FILES)] == ["./a.mp4", "./b/c.MP4"]
    (tmp_path / "d.wav").touch()
    assert [source.path for source in find_sources(["."], SOUND_FILES)] == ["./d.wav"]


def test_a_video_beside_several_sounds(tmp_path):
    """A list may give a video another's sound, to see how they do not fit; the same pair counts once."""
    pairs = [("a.mp4", "a.wav"), ("a.mp4", "b.wav"), ("b.mp4", "b.wav"), ("a.mp4", "a.wav")]
    path = tmp_path / "pairs.txt"
    path.write_text("".join(f"{tmp_path / video} {tmp_path / wav} 0 30\n" for video, wav in pairs))
    for video, _ in pairs:
        (tmp_path / video).touch()
    found = with_wavs(find_sources([str(path)], VIDEO_FILES, with_sound=True), None)
    named = [(Path(source.path).name, Path(wav).name) for source, wav in found]
    assert named == pairs[:3]
    assert [Path(source.path).name for source in find_sources([str(path)], VIDEO_FILES)] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("command", ["embed", "offset", "lse", "accuracy"])
def test_an_unreadable_folder_is_reported_and_the_others_are_used(
    checkpoint, tmp_path, closed, capsys, command
):
    make_clip(str(tmp_path / "mp4/a/1.mp4"), 20, sound=noise(0.8))
    make_wav(str(tmp_path / "wav/a/1.wav"), 20 * 640)
    (tmp_path / "mp4/b").mkdir()
    closed(tmp_path / "mp4/b")
    flags = {
        "embed": ("--output", tmp_path / "v.npz"),
        "offset": ("--wav", tmp_path / "wav", "--max_offset", 1),
    }.get(command, ("--wav", tmp_path / "wav"))
    status, out, errors = run(capsys, command, tmp_path / "mp4", "--initial_model", checkpoint, *flags)
    assert status == 1 and len(errors) == 1 and "mp4/b: this folder and its contents cannot be" in errors[0]
    used = {"embed": "of 1 file", "offset": "a/1.mp4: ", "lse": "1 track: LSE-D", "accuracy": "of 1 clip,"}
    assert used[command] in out


@pytest.mark.parametrize(
    ("command", "said"), [("offset", "of 2 clips"), ("lse", "mean of 2 tracks"), ("accuracy", "of 2 clips")]
)
def test_a_video_is_measured_with_each_sound_of_a_list(checkpoint, tmp_path, capsys, command, said):
    make_clip(str(tmp_path / "a.mp4"), 20)
    for name in ("a.wav", "b.wav", "a.wav"):
        make_wav(str(tmp_path / name), 20 * 640)
        with (tmp_path / "list.txt").open("a") as file:
            file.write(f"{tmp_path}/a.mp4 {tmp_path}/{name} 0 20\n")
    flags = ("--max_offset", 1, "--initial_model", checkpoint)[2 * (command == "accuracy") :]
    status, out, _ = run(capsys, command, tmp_path / "list.txt", *flags)
    assert status == 0 and said in out


@pytest.mark.parametrize("form", ["{root}/mp4/{clip}.mp4", "mp4/{clip}.mp4", "{root}/./x/../mp4/{clip}.mp4"])
@pytest.mark.parametrize("line", ["{video}", "{video} nowhere.wav 0 30"])
def test_a_folder_of_wavs_for_a_list(tmp_path, monkeypatch, form, line):
    """Whether its paths are absolute or start in the current folder."""
    clips = ["id1/r/1", "id1/r/2", "id2/r/1"]
    (tmp_path / "x").mkdir()
    for clip in clips:
        for kind in ("mp4", "wav"):
            (tmp_path / kind / clip).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{kind}/{clip}.{kind}").touch()
    videos = [form.format(root=tmp_path, clip=clip) for clip in clips]
    (tmp_path / "list.txt").write_text("".join(line.format(video=video) + "\n" for video in videos))
    monkeypatch.chdir(tmp_path)
    for folder in ("wav", str(tmp_path / "wav")):
        found = with_wavs(find_sources(["list.txt"], VIDEO_FILES), folder)
        assert [(source.path, wav) for source, wav in found] == [
            (video, f"{folder}/{clip}.wav") for video, clip in zip(videos, clips, strict=True)
        ]
    # Of a folder that is given, paths are taken from there, as before; a list beside it changes nothing in that.
    found = with_wavs(find_sources(["mp4", "list.txt"], VIDEO_FILES), "wav")
    assert {wav for _, wav in found} == {f"wav/{clip}.wav" for clip in clips}


def test_two_clips_of_a_list_do_not_share_a_wav(tmp_path):
    """They are alike from some folder on, where the wavs of one of them are."""
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav/1.wav").touch()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.mp4").touch()
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a/1.mp4\n{tmp_path}/b/1.mp4\n")
    with pytest.raises(MediaError, match=r"wav/1.wav would be the sound of both .*a/1.mp4 and .*b/1.mp4"):
        with_wavs(find_sources([str(tmp_path / "list.txt")], VIDEO_FILES), str(tmp_path / "wav"))


def test_a_wav_scp_is_a_list_of_sounds(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "wav.scp").write_text(f"id1-a {tmp_path}/a.wav\nid1-b a.flac\n")
    found = find_sources([str(tmp_path / "wav.scp")], SOUND_FILES)
    assert [(source.path, source.name) for source in found] == [(f"{tmp_path}/a.wav", "id1-a")]
    (tmp_path / "wav.scp").write_text("id1-a sox a.flac -t wav - |\n")
    with pytest.raises(MediaError, match=r"wav.scp, line 1: id1-a is the output of a command"):
        find_sources([str(tmp_path / "wav.scp")], SOUND_FILES)


def test_a_list_of_sounds_finds_converted_files(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.flac\n")
    found = find_sources([str(tmp_path / "list.txt")], SOUND_FILES)
    assert [source.path for source in found] == [f"{tmp_path}/a.wav"]


def test_a_file_that_is_given_twice_counts_once(tmp_path, monkeypatch):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("b.wav\n")
    monkeypatch.chdir(tmp_path)
    given = ["a.wav", "./a.wav", ".", str(tmp_path), "list.txt"]
    assert [source.path for source in find_sources(given, SOUND_FILES)] == ["a.wav", "./b.wav"]


def test_a_folder_given_as_a_file(network, tmp_path):
    with pytest.raises(MediaError, match="is a folder, needs a file"):
        verify(network, str(tmp_path), str(tmp_path))
