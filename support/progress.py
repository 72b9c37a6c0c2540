"""Progress bars: live on a terminal, a line now and then in a log file."""

import os
import sys

from tqdm import tqdm

LOG_INTERVAL = 30.0  # seconds between two updates where nobody watches


def progress_bar(**settings) -> tqdm:
    """A tqdm bar on stderr with a rate and an ETA; takes tqdm's arguments. Only the first process shows it."""
    if not sys.stderr.isatty():
        settings["mininterval"] = LOG_INTERVAL
    return tqdm(disable=int(os.environ.get("RANK", 0)) > 0, **settings)
