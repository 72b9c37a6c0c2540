"""Two launchers of torchrun, as on two nodes, of which one loses a process, or is lost itself."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from clipMaker import make_list
from processes import PATHS, free_port, run
from test_distributed import TRAIN, flags

pytestmark = pytest.mark.slow
EPOCHS = 6


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 31, 12)


@pytest.fixture(scope="module")
def weights(clip_list, tmp_path_factory) -> dict[str, torch.Tensor]:
    """Of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(TRAIN, *flags(clip_list, folder), "--max_epoch", EPOCHS).returncode == 0
    return final_weights(folder)


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"model/model{EPOCHS:09d}.model", weights_only=True)


class Nodes:
    """Starts and kills the launchers of two nodes."""

    def __init__(self, kind: str, clip_list: Path, folder: Path):
        self.folder, self.port = folder, free_port()
        self.kind, self.command = kind, [TRAIN, *flags(clip_list, folder / "run"), "--max_epoch", EPOCHS]
        self.running: dict[int, subprocess.Popen] = {}

    def start(self, node: int) -> None:
        where = {
            "c10d": [
                "--rdzv_backend",
                "c10d",
                "--rdzv_endpoint",
                f"127.0.0.1:{self.port}",
                "--rdzv_id",
                "run",
            ],
            "static": ["--node_rank", node, "--master_addr", "127.0.0.1", "--master_port", self.port],
        }[self.kind]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc_per_node", 1]
        command = [*launcher, "--max_restarts", 3, *where, *self.command]
        with open(self.folder / f"{node}.log", "a") as log:
            self.running[node] = subprocess.Popen(
                list(map(str, command)),
                env=os.environ | {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )

    def wait_for_epoch(self, epoch: int) -> None:
        deadline = time.monotonic() + 300
        while not (self.folder / f"run/model/model{epoch:09d}.model").exists():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def kill_process(self, node: int) -> None:
        pid = self.running[node].pid
        os.kill(int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]), signal.SIGKILL)

    def kill(self, node: int) -> None:
        """Kill a launcher and its process at once."""
        lost = self.running.pop(node)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            workers = Path(f"/proc/{lost.pid}/task/{lost.pid}/children").read_text().split()
            for pid in (lost.pid, *map(int, workers)):
                os.kill(pid, signal.SIGKILL)
        lost.wait()

    def wait(self) -> list[int]:
        return [node.wait(timeout=400) for node in self.running.values()]

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


@pytest.fixture
def nodes(clip_list, tmp_path, request):
    two = Nodes(request.param, clip_list, tmp_path)
    for node in (0, 1):
        two.start(node)
    two.wait_for_epoch(1)
    yield two
    for node in two.running.values():
        node.kill()


def check(nodes: Nodes, weights: dict[str, torch.Tensor]) -> None:
    assert "Resuming in epoch" in nodes.log()
    found = final_weights(nodes.folder / "run")
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nodes", ["static", "c10d"], indirect=True)
def test_a_killed_process(nodes, weights):
    nodes.kill_process(1)
    assert nodes.wait() == [0, 0], nodes.log()
    check(nodes, weights)


@pytest.mark.parametrize("nodes", ["static"], indirect=True)
def test_a_lost_node_that_starts_again(nodes, weights):
    nodes.kill(1)
    time.sleep(3)
    nodes.start(1)
    assert nodes.wait() == [0, 0], nodes.log()
    check(nodes, weights)


@pytest.mark.parametrize("nodes", ["static", "c10d"], indirect=True)
def test_a_job_that_starts_again_when_its_first_node_is_lost(nodes, weights):
    nodes.kill(0)
    nodes.kill(1)  # as Slurm does; on its own it ends within seconds, or tries to reach the other for minutes
    nodes.port = free_port()
    for node in (0, 1):
        nodes.start(node)
    assert nodes.wait() == [0, 0], nodes.log()
    check(nodes, weights)
