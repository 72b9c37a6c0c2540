"""Output paths are checked before anything is computed."""

import errno
import os
import stat
from pathlib import Path

import pytest

import convertAudio
import makeDemoData
import makeFaceTracks
import makeFileList
import trainSyncNet
import tuneThreshold
from syncnet.support.errors import UserError
from syncnet.support.files import check_output, file_hash, journal_at, replace_file


def test_paths_that_can_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("old")
    for path in ("file", "new", "deep/er/new", str(tmp_path / "a/b")):
        check_output("--x", path)
    for path in (".", str(tmp_path), "new", "deep/er/", "new/"):
        check_output("--x", path, folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing is made


def test_paths_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for path, folder, reason in (
        ("", False, "is empty, needs the name of a file"),
        (tmp_path, False, "is a folder, needs the name of a file"),
        (tmp_path / "file", True, "is a file, needs a folder"),
        (tmp_path / "file/x", False, "cannot be created"),
        (tmp_path / "file/x", True, "cannot be created"),
        (tmp_path / "pipe", False, "is not a regular file"),
        (tmp_path / ("x" * 300), False, "File name too long"),
        (tmp_path / "loop", False, "symbolic links"),
    ):
        with pytest.raises(UserError, match=reason):
            check_output("--x", str(path), folder)
    monkeypatch.setattr(os, "access", lambda *_: False)
    for folder in (True, False):
        with pytest.raises(UserError, match=f"--x {tmp_path}/deep/er: no permission to write in {tmp_path}$"):
            check_output("--x", str(tmp_path / "deep/er"), folder)


def test_write_errors_name_the_requested_file(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir(mode=0o500)
    path = str(tmp_path / "sub/x")
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: real(a + ".gone", b))
    with pytest.raises(FileNotFoundError) as told, replace_file(str(tmp_path / "y")) as file:
        file.write("text")
    assert ".part" in str(told.value)  # another file's error keeps its name
    monkeypatch.setattr(os, "replace", lambda part, _: real(part, tmp_path))
    with pytest.raises(OSError) as told, replace_file(path) as file:
        file.write("text")
    assert told.value.filename == path and told.value.filename2 is None
    assert stat.S_ISDIR(os.stat(tmp_path / "sub").st_mode) and not os.listdir(tmp_path / "sub")


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_file_is_flushed_to_disk_before_it_is_renamed(tmp_path, monkeypatch, mode):
    """Otherwise a power failure could leave the name without its content."""
    sizes, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            sizes.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with replace_file(str(tmp_path / "x"), mode) as file:
        file.write("text" if mode == "w" else b"text")
    assert sizes == [4] and (tmp_path / "x").read_text() == "text"
    with replace_file(str(tmp_path / "y"), mode, flush=False) as file:
        file.write("text" if mode == "w" else b"text")
    assert sizes == [4] and (tmp_path / "y").read_text() == "text"


def test_a_journal_has_whole_lines_and_reports_a_full_disk(tmp_path):
    path = str(tmp_path / "j")
    for mode, kept in (("w", "1\n"), ("a", "1\n1\n"), ("w", "1\n")):
        with journal_at(path, mode) as add:
            add("1")
            assert Path(path).read_text() == kept  # at once
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError) as told, journal_at("/dev/full") as add:
            add("1")
        assert (told.value.errno, told.value.filename) == (errno.ENOSPC, "/dev/full")


@pytest.mark.parametrize(
    ("main", "flags", "wrong"),
    [
        (convertAudio.main, "--src {there} --dst {there}/file", "--dst {there}/file: is a file"),
        (
            makeFileList.main,
            "--output {there} --mp4_dir {there} --wav_dir {there} --no_txt",
            "--output {there}: is",
        ),
        (
            makeFaceTracks.main,
            "--src {there} --dst {there}/file/x",
            "--dst {there}/file/x: cannot be created",
        ),
        (makeDemoData.main, "--out {there}/file", "--out {there}/file: is a file"),
        (tuneThreshold.main, "{there}/none --plot {there}", "--plot {there}: is a folder"),
        (
            trainSyncNet.main,
            "--model tinyModel --save_path {there}/new --train_list {there}",
            "{there}: is a folder",
        ),
        (trainSyncNet.main, "--save_path {there}/file", "--save_path {there}/file: is a file"),
        (
            trainSyncNet.main,
            "--eval --save_embeddings {there}/file/x",
            "{there}/file/x: cannot be created",
        ),
    ],
)
def test_commands_check_output_paths_first(tmp_path, capsys, main, flags, wrong):
    (tmp_path / "file").write_text("kept")
    assert main(flags.format(there=tmp_path).split()) == 1
    said = capsys.readouterr().err
    assert wrong.format(there=tmp_path) in said and len(said.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")  # of which FIPS 180-2 has the hash
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_hash(str(tmp_path / "x")) == expected


def test_text_that_is_not_utf8_is_escaped(tmp_path):
    with replace_file(str(tmp_path / "x.csv")) as file:
        file.write(f"ü,{os.fsdecode(bytes([255]))}\n")
    assert (tmp_path / "x.csv").read_text(encoding="utf-8") == "ü,\\udcff\n"
