"""Training runs as children of a process that has torch loaded: started, killed and gone on with quickly.

Usage: python runs.py COMMANDS.json, a list of [flags, when, signal]; prints exit statuses and times as JSON.
When: seconds after which the signal is sent, or a text in the run's output that it waits for, or null for no
signal. Each run starts when the one before has ended; its output goes to <save_path>.log.
"""

import json
import os
import sys
import time
from pathlib import Path

import trainSyncNet


def run(flags: list[str], when: float | str | None, number: int) -> int:
    path = flags[flags.index("--save_path") + 1] + ".log"
    child = os.fork()
    if child == 0:
        log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            status = trainSyncNet.main(flags)
            sys.stdout.flush()
            os._exit(status)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(99)
    if isinstance(when, str):
        while not (os.path.exists(path) and when in Path(path).read_text()):
            time.sleep(0.01)
    elif when is not None:
        time.sleep(when)
    if when is not None:
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        commands = json.load(file)
    statuses, times = [], []
    for command in commands:
        started = time.perf_counter()
        statuses.append(run(*command))
        times.append(time.perf_counter() - started)
    print(json.dumps([statuses, times]))
