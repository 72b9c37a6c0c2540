"""Commands in processes of their own, forked from one that has the imports: started in 0.1 s instead of 4.

run("trainSyncNet.py", "--lr", 0.1).stdout               # to its end, as subprocess.run gives it
two = start("trainSyncNet.py", *flags, ranks=2)           # as torchrun starts it, without torchrun
two.signal(signal.SIGTERM); two.wait().returncode
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from undrawn import Undrawn

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join((str(ROOT / "tests/makers"), str(ROOT)))
IMPORTS = [
    "trainSyncNet",
    "tuneThreshold",
    "scipy.io.wavfile",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "torch._dynamo",  # which PyTorch's optimizers import
]
TIMEOUT = 400  # seconds, on a machine that is busy with other work

context = multiprocessing.get_context("forkserver")


def start_server() -> None:
    """Let the server import what it is to have, with one thread and this project's paths."""
    context.set_forkserver_preload(IMPORTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", PATHS)
        forkserver.ensure_running()


def _main(
    script: str, arguments: list[str], cwd: str, environment: dict[str, str], out: str, err: str
) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv[:] = [script, *arguments]
    _take_modules_from(environment["PYTHONPATH"].split(os.pathsep))
    if log := sys.modules.get("syncnet.training.log"):
        log.TrainingLog.drawn = lambda _: Undrawn
    runpy.run_path(script, run_name="__main__")


def _take_modules_from(folders: list[str]) -> None:
    """Put these folders ahead, and forget this project's modules where another copy of it is to be imported."""
    sys.path[:] = [*folders, *(path for path in sys.path if path not in folders)]
    if str(ROOT) not in folders:
        sys.path.remove(str(ROOT))
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None) or ""
            if os.path.dirname(path) == str(ROOT) or path.startswith((f"{ROOT}/syncnet", f"{ROOT}/models")):
                del sys.modules[name]


class Started:
    """Processes of one command."""

    def __init__(self, processes: list[BaseProcess], folder: tempfile.TemporaryDirectory):
        self.processes, self.folder = processes, folder

    @property
    def pids(self) -> list[int]:
        return [process.pid or 0 for process in self.processes]

    @property
    def running(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def signal(self, number: int, group: bool = False) -> None:
        """Send a signal to all processes, with `group` to their own children too, as a terminal does."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(pid, number)

    def wait(self) -> subprocess.CompletedProcess:
        """The end of all: the first status that is not 0, and what they printed."""
        for process in self.processes:
            process.join(TIMEOUT)
            if process.is_alive():
                self.signal(signal.SIGKILL, group=True)
                raise TimeoutError(f"still running after {TIMEOUT} s: {self.read('err')}")
        statuses = [process.exitcode or 0 for process in self.processes]
        with self.folder:
            return subprocess.CompletedProcess(
                [], next((status for status in statuses if status), 0), self.read("out"), self.read("err")
            )

    def read(self, name: str) -> str:
        """What was printed until now."""
        path = Path(self.folder.name) / name
        return path.read_text(errors="replace") if path.exists() else ""


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def start(
    script: str | Path, *arguments: object, ranks: int = 0, cwd: Path = ROOT, **environment: str
) -> Started:
    """Start a script of this project; with `ranks` that many processes, with torchrun's environment."""
    folder = tempfile.TemporaryDirectory()
    start_server()
    shared = os.environ | {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"} | environment
    if ranks:
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "test"}
        shared |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    processes = []
    for rank in range(max(1, ranks)):
        own = shared | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks else {})
        outputs = [os.path.join(folder.name, name) for name in ("out", "err")]
        process = context.Process(
            target=_main, args=(str(ROOT / script), [*map(str, arguments)], str(cwd), own, *outputs)
        )
        process.start()
        processes.append(process)
    return Started(processes, folder)


def run(script: str | Path, *arguments: object, **settings) -> subprocess.CompletedProcess:
    return start(script, *arguments, **settings).wait()
