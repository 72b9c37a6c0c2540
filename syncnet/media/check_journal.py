"""The journal of makeFileList.py, which lets an interrupted run resume.

A result depends only on the video and the kind of check, not on how the folder was typed, the audio, the txt or other
flags. Each line therefore holds the real path, size and modification time of one video, the kind of check, and the
result. Audio and txt files are cheap to read and are always read again.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator

from syncnet.support.files import journal_at

JOURNAL_VERSION = 5

Key = tuple[str, str]  # real path of the video, kind of check
Fingerprint = tuple[int, int]  # size in bytes, modification time in ns
# [frames, width, height] if the video can be used, otherwise [reason, detail]; see clip_check.py.
Result = list


def file_fingerprint(path: str) -> Fingerprint | None:
    """Return the size and modification time of a file, or None if it cannot be read."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


class CheckJournal:
    """Results of earlier runs and of this one, by video and kind of check.

    path: the journal file, which need not exist. check: this run's kind of check. Damaged lines are ignored; an
    incomplete last line is removed. Raises OSError.
    """

    def __init__(self, path: str, check: str) -> None:
        self.path, self.check = path, check
        self._results: dict[Key, tuple[Fingerprint, Result]] = {}
        self._real_folders: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
            file.truncate(self._read(file))

    def _read(self, lines: Iterator[bytes]) -> int:
        """Read the results from a file; returns the length of its complete lines in bytes."""
        complete = 0
        for line in lines:
            if not line.endswith(b"\n"):
                break
            complete += len(line)
            with contextlib.suppress(ValueError, TypeError):  # the version line, or a damaged line
                video, check, size, changed, result = json.loads(line)
                self._results[video, check] = (size, changed), list(result)
        return complete

    @property
    def count(self) -> int:
        """The number of videos with a result of this run's kind of check."""
        return sum(kind == self.check for _, kind in self._results)

    def take(self, video: str) -> tuple[str, tuple[Fingerprint, Result] | None]:
        """Return a video's real path, and remove and return its fingerprint and result from an earlier run."""
        real = self._real_path(video)
        return real, self._results.pop((real, self.check), None)

    def _real_path(self, path: str) -> str:
        """os.path.realpath with cached folders."""
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        return os.path.join(self._real_folders[folder], name)

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[str, Fingerprint, Result], None]]:
        """Open the file for appending; yields a function that adds a result by real path. Raises OSError."""
        is_new = not os.path.exists(self.path) or not os.path.getsize(self.path)
        with journal_at(self.path) as add:
            if is_new:
                add(json.dumps([JOURNAL_VERSION]))
            yield lambda video, fingerprint, result: add(
                json.dumps([video, self.check, *fingerprint, result])
            )

    def close(self) -> int:
        """Remove the journal once the list is written, unless it has results that this run did not use.

        Returns the number of unused results.
        """
        if not self._results:
            with contextlib.suppress(FileNotFoundError):  # another run with the same --output removed it
                os.remove(self.path)
        return len(self._results)
