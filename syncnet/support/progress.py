"""Progress bars: live on a terminal, occasional lines in a log file."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

from syncnet.support.processes import is_first_process

LOG_INTERVAL = 30.0  # seconds between lines in a log file


class LogLines:
    """A text stream that turns each redraw of a progress bar into a separate line."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self.stream.write(line + "\n")

    def flush(self) -> None:
        self.stream.flush()


class LogBar(tqdm):
    """A progress bar for a log file; setting the postfix does not redraw it."""

    def __init__(self, *items: Any, **settings: Any):
        settings |= {"mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL, "file": LogLines(sys.stderr)}
        super().__init__(*items, **settings)

    def set_postfix(self, *args: Any, refresh: bool = False, **kwargs: Any) -> None:  # noqa: ARG002
        super().set_postfix(*args, refresh=False, **kwargs)

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:  # noqa: ARG002
        super().set_postfix_str(s, refresh=False)


def progress_bar(*items: Any, disable: bool = False, **settings: Any) -> tqdm:
    """A tqdm bar on stderr with rate and ETA; takes tqdm's arguments. Shown only on rank 0.

    If stderr is not a terminal, prints one line at the start, one every LOG_INTERVAL seconds, and one at the end.
    """
    kind = tqdm if sys.stderr.isatty() else LogBar
    return kind(*items, disable=disable or not is_first_process(), **settings)
