"""Files that are either complete or not there: written aside, flushed to disk, then renamed."""

import os
from collections.abc import Iterator
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
