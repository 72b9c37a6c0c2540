"""The journal of makeFileList.py: what an interrupted run has found out about videos.

A result depends on the video and on how it was checked, and on nothing else: not on how its folder was typed, not on
its sound or txt file, and not on the other flags. Each line therefore holds the real path, size and time of change of
one video, the kind of check, and the result; sound and txt files are cheap to read and are read again.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator

from syncnet.support.files import journal_at

JOURNAL_VERSION = 5

Key = tuple[str, str]  # real path of a video, kind of check
Stamp = tuple[int, int]  # size in bytes, time of change in ns
# [frames, width, height] of a video whose pictures can be used, else [reason, detail]; see clip_check.py.
Result = list


def file_stamp(path: str) -> Stamp | None:
    """Size and time of change of a file; None where it cannot be looked at."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


class CheckJournal:
    """Results by video and kind of check; those of earlier runs, and those that this one adds.

    check: the kind of check of this run. path: the file, which need not exist. Lines that are damaged or of another
    version do not count, and stay in the file; one that was cut off is removed. Raises OSError.
    """

    def __init__(self, path: str, check: str) -> None:
        self.path, self.check = path, check
        self.unused_lines = 0
        self._results: dict[Key, tuple[Stamp, Result]] = {}
        self._real_folders: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
            file.truncate(self._read(file))

    def _read(self, lines: Iterator[bytes]) -> int:
        """Take the results of a file; returns the bytes of its whole lines."""
        whole = 0
        for line in lines:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                found = json.loads(line)
                if found == [JOURNAL_VERSION]:
                    continue
                video, check, size, changed, result = found
                self._results[video, check] = (size, changed), list(result)
            except (ValueError, TypeError):
                self.unused_lines += 1
        return whole

    def count(self, check: str | None = None) -> int:
        """The videos with a result: of this run's kind of check, or of another one."""
        return sum(kind == (check or self.check) for _, kind in self._results)

    def other_checks(self) -> set[str]:
        return {kind for _, kind in self._results} - {self.check}

    def take(self, video: str) -> tuple[str, tuple[Stamp, Result] | None]:
        """The real path of a video, and what earlier runs found out about it; that is handed out once."""
        real = self._real_path(video)
        return real, self._results.pop((real, self.check), None)

    def _real_path(self, path: str) -> str:
        """os.path.realpath; the folder of many files is looked up once."""
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        return os.path.join(self._real_folders[folder], name)

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[str, Stamp, Result], None]]:
        """Open the file to append to it; yields what adds the result of a video, by its real path. Raises OSError."""
        is_new = not os.path.exists(self.path) or not os.path.getsize(self.path)
        with journal_at(self.path) as add:
            if is_new:
                add(json.dumps([JOURNAL_VERSION]))
            yield lambda video, stamp, result: add(json.dumps([video, self.check, *stamp, result]))

    def close(self) -> int:
        """Remove the file, for when the list is made; keep it where it has results that nobody has taken.

        Returns the number of those.
        """
        if not self._results:
            with contextlib.suppress(FileNotFoundError):  # another run with this --output was done first
                os.remove(self.path)
        return len(self._results)
