"""Clips that cannot be read: remembered, noted in a file, and too many of them stop an epoch."""

import os

from media.clips import Clip, MediaError


class BadClips:
    """The clips that could not be read so far, with the `reasons`.

    log: file that gets a line for each, where nobody has noted its video yet; None for none. clips: of an epoch.
    max_bad: the fraction of them that may be replaced by other draws; 0: the first one stops the epoch.
    """

    def __init__(self, log: str | None, clips: float, max_bad: float):
        self.log = log
        self.clips = clips
        self.max_bad = max_bad
        self.reasons: dict[Clip, str] = {}
        self._logged: set[str] = set()

    def reject(self, replaced: list[str], clip: Clip, reason: str) -> None:
        """Add a clip that has to be replaced. Raises MediaError when these are more than max_bad allows.

        replaced: the reasons of this epoch so far, one for each draw that was replaced.
        """
        self.note(clip, reason)
        replaced.append(reason)
        allowed = self.max_bad * self.clips
        if len(replaced) <= allowed:
            return
        if allowed == 0:
            raise MediaError(reason)
        where = f"; all are in {self.log}" if self.log else ""
        raise MediaError(
            f"{len(replaced)} clips of this epoch of {int(self.clips)} cannot be read, more than --max_bad "
            f"{self.max_bad:g} allows{where}. The last of them:\n  " + "\n  ".join(replaced[-3:])
        )

    def note(self, clip: Clip, reason: str) -> None:
        """Remember a clip, and write it to the log unless this or another process has."""
        self.reasons[clip] = reason
        if self.log and clip.video not in self._logged:
            self._logged |= read_log(self.log)
            if clip.video not in self._logged:
                self._logged.add(clip.video)
                with open(self.log, "a", encoding="utf-8") as log:
                    log.write(f"{clip.video}\t{clip.audio}\t{' '.join(reason.split())}\n")


def read_log(path: str) -> set[str]:
    """The videos that are noted."""
    if not os.path.exists(path):
        return set()
    with open(path, encoding="utf-8", errors="replace") as log:
        return {line.split("\t")[0] for line in log}
