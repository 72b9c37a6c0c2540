"""Files that are either complete or not there: written aside, flushed to disk, then renamed."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def replace_file(path: str, mode: str = "w") -> Iterator[IO]:
    """Open a file beside `path` for writing; on success it becomes `path`, on an error it is removed.

    mode: "w" (UTF-8 text) or "wb". A reader sees the old file or the whole new one, never a part.
    Raises OSError (no room, no permission) with `path` untouched.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    aside = f"{path}.{os.getpid()}.part"
    try:
        with open(aside, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.remove(aside)
        raise
    # The rename itself reaches the disk with the folder.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(paths: Iterable[str]) -> None:
    """Remove those of `paths` that replace_file() left behind in a process that was killed since."""
    for path in paths:
        stamp = re.search(r"\.(\d+)\.part$", path)
        if stamp and not _is_running(int(stamp[1])):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks only whether the process is there
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stat:
            return (
                stat.read().rpartition(")")[2].split()[0] != "Z"
            )  # ended, but not cleared away by its parent
    except (ProcessLookupError, IndexError):
        return False
    except OSError:  # it is there and belongs to someone else, or the system has no /proc
        return True
