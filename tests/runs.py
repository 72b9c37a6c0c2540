"""Training runs as children of a process that has torch loaded: started, killed and gone on with quickly.

Usage: python runs.py COMMANDS.json, a list of [flags, when, signal]; prints exit statuses and, of each run, how many
times it turned to a file of its --save_path, as JSON. When: a text in the run's output at which the signal is sent;
or [n, seconds]: so long after the run turns to a file of its --save_path for the nth time; or null for no signal.
Each run starts when the one before has ended; its output goes to <save_path>.log.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import trainSyncNet

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir")


def run(flags: list[str], when: str | list | None, number: int) -> tuple[int, int]:
    folder = flags[flags.index("--save_path") + 1]
    path = folder + ".log"
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        turn, seconds = when if isinstance(when, list) else (0, 0.0)
        count = 0

        def turned_to_a_file(event: str, args: tuple) -> None:
            nonlocal count
            if event in FILE_EVENTS and str(args[0]).startswith(folder):
                count += 1
                if count == turn:
                    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()

        sys.addaudithook(turned_to_a_file)
        try:
            status = trainSyncNet.main(flags)
            sys.stdout.flush()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            status = 99
        os.write(theirs, str(count).encode())
        os._exit(status)
    os.close(theirs)
    if isinstance(when, str):
        while not (os.path.exists(path) and when in Path(path).read_text()):
            time.sleep(0.01)
        os.kill(child, number)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(ours) as counted:
        return status, int(counted.read() or 0)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        commands = json.load(file)
    print(json.dumps(list(zip(*(run(*command) for command in commands), strict=True))))
