"""Training runs as children of a process that has torch loaded: started, stopped and resumed quickly.

Usage: python runs.py COMMANDS.json, a list of [flags, when, signal]; prints exit statuses as JSON. When: a text in
the run's output at which the signal is sent, or null for no signal. Each run starts when the one before has ended;
its output goes to <save_path>.log.
"""

import json
import os
import sys
import time
from pathlib import Path

import trainSyncNet


def run(flags: list[str], when: str | None, number: int) -> int:
    path = flags[flags.index("--save_path") + 1] + ".log"
    child = os.fork()
    if child == 0:
        log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            status = trainSyncNet.main(flags)
            sys.stdout.flush()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            status = 99
        os._exit(status)
    if when:
        while not (os.path.exists(path) and when in Path(path).read_text()):
            time.sleep(0.01)
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        commands = json.load(file)
    print(json.dumps([run(*command) for command in commands]))
