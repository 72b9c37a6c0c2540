"""Count and log clips that cannot be read, and stop the epoch if there are too many."""

import itertools
import os

from syncnet.compute import distributed
from syncnet.media.clips import Clip, MediaError
from syncnet.support.files import warn_once

_loaders = itertools.count()


class BadClips:
    """The clips that could not be read so far, with the `reasons`.

    log: file with one line per video; None for no log. clips: clips per epoch, over all processes. max_bad: the
    fraction of them that may be replaced by other clips, over all processes; 0: the first one stops the epoch. All
    processes must create these objects, and begin epochs, in the same order.
    """

    def __init__(self, log: str | None, clips: int, max_bad: float):
        self.log = log
        self.clips = clips
        self.max_bad = max_bad
        self.reasons: dict[Clip, str] = {}
        self._logged: set[str] = set()
        self._loader, self._epoch = next(_loaders), 0
        self._replaced: list[str] = []

    def begin_epoch(self) -> None:
        """Reset the count of replaced clips."""
        self._epoch += 1
        self._replaced = []

    def reject(self, clip: Clip, reason: str) -> None:
        """Count a clip that must be replaced. Raises MediaError if there are more than max_bad allows."""
        self.note(clip, reason)
        self._replaced.append(reason)
        allowed = self.max_bad * self.clips
        count = distributed.add_one(f"bad clips {self._loader} {self._epoch}", len(self._replaced))
        if count <= allowed:
            return
        if allowed == 0:
            raise MediaError(reason)
        where = f"; all are in {self.log}" if self.log else ""
        raise MediaError(
            f"{count} clips of this epoch of {self.clips} cannot be read, more than --max_bad "
            f"{self.max_bad:g} allows{where}. The last of them:\n  " + "\n  ".join(self._replaced[-3:])
        )

    def note(self, clip: Clip, reason: str) -> None:
        """Record a clip, and log it unless this or another process has logged it."""
        self.reasons[clip] = reason
        if self.log and clip.video not in self._logged:
            self._logged |= read_log(self.log)
            if clip.video not in self._logged:
                self._logged.add(clip.video)
                self._write(f"{clip.video}\t{clip.audio}\t{' '.join(reason.split())}\n")

    def _write(self, line: str) -> None:
        """Append a line to the log; its folder may not exist on other machines. Warns if it cannot be written."""
        assert self.log
        try:
            os.makedirs(os.path.dirname(self.log) or ".", exist_ok=True)
            with open(self.log, "a", encoding="utf-8") as log:
                log.write(line)
        except OSError as error:
            warn_once(
                "bad clips", f"{self.log}: {error.strerror}; clips that cannot be read are not logged there"
            )


def read_log(path: str) -> set[str]:
    """Return the videos in a log."""
    if not os.path.exists(path):
        return set()
    with open(path, encoding="utf-8", errors="replace") as log:
        return {line.split("\t")[0] for line in log}
