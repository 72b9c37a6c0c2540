"""Progress bars: live on a terminal, a line now and then in a log file."""

import sys

from tqdm import tqdm

LOG_INTERVAL = 30.0  # seconds between two updates where nobody watches


def progress_bar(**settings) -> tqdm:
    """A tqdm bar on stderr with a rate and an ETA; takes tqdm's arguments."""
    return tqdm(**({} if sys.stderr.isatty() else {"mininterval": LOG_INTERVAL}), **settings)
