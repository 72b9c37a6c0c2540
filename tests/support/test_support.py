"""Unusual file systems, leftovers of other machines, progress bars in log files."""

import errno
import fcntl
import io
import multiprocessing
import os
import resource
import stat
import subprocess
import sys

import pytest
import torch

from syncnet.support import files, progress
from syncnet.support.files import lock_file, partial_path, remove_leftovers, replace_file
from syncnet.support.names import repeated
from syncnet.support.processes import WorkerError, map_in_processes
from syncnet.support.progress import progress_bar

UNSUPPORTED = [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.fixture(autouse=True)
def warned(monkeypatch):
    monkeypatch.setattr(files, "_warned", set())


def fails_for(monkeypatch, kind, number: int) -> None:
    """fsync fails with this errno for what `kind` (stat.S_ISDIR, stat.S_ISREG) says."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if kind(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_write_errors_are_not_hidden_by_a_library(tmp_path):
    """torch.save replaces the error of a failed write by a RuntimeError about positions."""
    path = tmp_path / "x.model"
    path.write_bytes(b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # as a full disk or a quota
    try:
        with pytest.raises(OSError) as refused, replace_file(str(path), "wb") as file:
            torch.save({"weights": torch.zeros(100_000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (refused.value.errno, refused.value.filename) == (errno.EFBIG, str(path))
    assert os.listdir(tmp_path) == ["x.model"] and path.read_bytes() == b"before"


@pytest.mark.parametrize("kind", [stat.S_ISDIR, stat.S_ISREG])
@pytest.mark.parametrize("number", UNSUPPORTED)
def test_a_file_system_without_fsync_loses_nothing(tmp_path, monkeypatch, kind, number):
    fails_for(monkeypatch, kind, number)
    for text in ("one", "two"):
        with replace_file(str(tmp_path / "list.txt")) as file:
            file.write(text)
        assert (tmp_path / "list.txt").read_text() == text
    assert os.listdir(tmp_path) == ["list.txt"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_an_error(tmp_path, monkeypatch, number):
    (tmp_path / "x").write_text("old")
    fails_for(monkeypatch, stat.S_ISREG, number)
    with pytest.raises(OSError, match=os.strerror(number)), replace_file(str(tmp_path / "x")) as file:
        file.write("new")
    assert (tmp_path / "x").read_text() == "old" and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [*UNSUPPORTED, errno.ENOLCK])
def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with lock_file(str(tmp_path / "lock"), "taken"):
            pass
    assert capsys.readouterr().err.count("make sure that no second run") == 1


def test_a_lock_held_by_another_process(tmp_path):
    with (
        lock_file(str(tmp_path / "lock"), ""),
        pytest.raises(OSError, match="in use"),
        lock_file(str(tmp_path / "lock"), "in use"),
    ):
        pass
    with lock_file(str(tmp_path / "lock"), "in use"):
        pass


KILLED = """
import os, signal, sys
from syncnet.support.files import replace_file
with replace_file(sys.argv[1]) as file:
    file.write("half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    """Even if nobody has asked for its exit status: in a container without an init, its number lives on."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "a.wav"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    earlier, others = tmp_path / f"b.wav.{process.pid}.part", tmp_path / "mine.part"
    earlier.write_text("half")
    others.write_text("whole")
    (left,) = tmp_path.glob("a.wav.*")
    left.rename(left.with_name(f"a.wav.{process.pid}@another-node.cluster.part"))
    with replace_file(str(tmp_path / "c.wav")) as file:
        remove_leftovers(str(path) for path in tmp_path.iterdir())
        file.write("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.wav", "mine.part"]
    process.wait()


def test_a_file_is_no_leftover_until_it_has_its_name(tmp_path, monkeypatch):
    real = os.replace

    def replace(part, path):
        remove_leftovers(str(path) for path in tmp_path.iterdir())  # as another command does at its start
        real(part, path)

    monkeypatch.setattr(os, "replace", replace)
    with replace_file(str(tmp_path / "a.wav")) as file:
        file.write("whole")
    assert (tmp_path / "a.wav").read_text() == "whole"


def test_leftovers_stay_where_locks_are_not_supported(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with replace_file(str(tmp_path / "a.wav")) as file:
        remove_leftovers(str(path) for path in tmp_path.iterdir())
        file.write("whole")
    assert os.listdir(tmp_path) == ["a.wav"]


def test_a_bar_in_a_log_writes_occasional_lines(monkeypatch):
    log, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress.tqdm, "monitor_interval", 0)
    with progress_bar(total=1000, desc="making", unit="clip") as bar:
        bar._time = lambda: now[0]
        bar.start_t = bar.last_print_t = 0.0
        for clip in range(1000):
            now[0] += 0.1  # 100 seconds
            bar.set_postfix(failed=clip)
            bar.update()
    lines = log.getvalue().splitlines()
    assert [line.split("|")[0] for line in lines] == [
        "making:   0%",
        "making:  30%",
        "making:  60%",
        "making:  90%",
        "making: 100%",
    ]
    assert "\r" not in log.getvalue()


def test_a_bar_with_leave_false_ends_without_a_line(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert list(progress_bar(range(3), leave=False)) == [0, 1, 2]
    assert len(log.getvalue().splitlines()) == 1


def test_only_the_first_process_shows_a_bar(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "1")
    assert list(progress_bar(range(3))) == [0, 1, 2] and log.getvalue() == ""


def test_leftovers_with_long_names_are_removed(tmp_path):
    one, other = (str(tmp_path / (letter * 250)) for letter in "ab")
    assert len({partial_path(one), partial_path(other), one, other}) == 4
    with replace_file(one) as file:
        file.write("whole")
    open(partial_path(other), "w").close()
    remove_leftovers(str(path) for path in tmp_path.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["a" * 250]


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), ImportError("no sem_open")])
def test_missing_shared_memory_has_a_remedy(monkeypatch, error):
    """As in some containers: the message must not suggest that the user's own folders are read-only."""

    def refuse(*_):
        raise error

    monkeypatch.setattr(multiprocessing.context.SpawnContext, "Event", refuse)
    with pytest.raises(WorkerError, match=r"shared memory.* \(/dev/shm: (Read-only|no sem).*--nWorkers 1"):
        list(map_in_processes(abs, [-1, 2], 2))
    assert list(map_in_processes(abs, [-1, 2], 1)) == [1, 2]


def test_repeated_names():
    assert repeated(["a/b.wav", "c.wav", "A/b.wav", "c.wav", "c.wav"]) == {3: 1, 4: 1}
