"""The number of processes changes the speed, not the result."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from clipMaker import make_list
from processes import PATHS, ROOT, Started, free_port, run, start
from scipy.io import wavfile

from syncnet.compute import distributed
from syncnet.support.errors import UserError

TRAIN = ROOT / "trainSyncNet.py"
FLAGS = ["--maxFrames", 6, "--nBatchSize", 6, "--nOut", 8, "--model", "plainModel", "--device", "cpu"]
FLAGS += ["--nDataLoaderThread", 1, "--lr", 0.01, "--max_epoch", 3, "--save_steps", 1]


def torchrun(*arguments, rendezvous=("--standalone",), **environment) -> subprocess.CompletedProcess:
    """A run of two processes under torchrun itself."""
    launcher = [sys.executable, "-m", "torch.distributed.run", *rendezvous, "--nproc_per_node", 2, TRAIN]
    paths = {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    command = [str(part) for part in (*launcher, *arguments)]
    return subprocess.run(
        command, env=os.environ | paths | environment, capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def trials(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("speech")
    draws = np.random.RandomState(0)
    for k in range(11):
        wavfile.write(folder / f"{k}.wav", 16000, (3000 * draws.randn(8000 + 700 * k)).astype(np.int16))
    lines = [f"{(i + j) % 2} {i}.wav {j}.wav\n" for i in range(11) for j in range(i)]
    (folder / "trials.txt").write_text("".join(lines))
    return folder / "trials.txt", folder


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 31, 12)


def flags(clip_list: Path, save_path: Path) -> list:
    return [*FLAGS, "--train_list", clip_list, "--verify_list", clip_list, "--save_path", save_path]


def test_same_numbers_with_one_two_and_three_processes(trials, tmp_path):
    found = {}
    for processes in (0, 2, 3):
        output = tmp_path / f"{processes}.pt"
        done = run(ROOT / "tests/makers/distributedCase.py", output, *trials, ranks=processes)
        assert done.returncode == 0, done.stderr
        found[processes] = torch.load(output, weights_only=True)
    one = found.pop(0)
    for several in found.values():
        assert torch.equal(several["scores"], one["scores"])
        for rows in ("rows", "checked"):
            torch.testing.assert_close(several[rows], one[rows], rtol=1e-5, atol=1e-6, equal_nan=True)
        size = max(g.norm() for g in one["gradients"].values())
        for name, gradient in one["gradients"].items():
            difference = (several["gradients"][name] - gradient).norm()
            assert difference <= 1e-5 * max(gradient.norm(), 1e-2 * size), name
        for name, weight in one["weights"].items():
            torch.testing.assert_close(several["weights"][name], weight, rtol=1e-6, atol=1e-6)


def stop_when(process: Started, file: Path) -> None:
    """Stop a run when it has written a file."""
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline and process.running:
        time.sleep(0.02)
    assert file.exists(), process.read("err")
    process.signal(signal.SIGTERM)
    process.wait()


def test_killed_with_two_processes_goes_on_with_one(clip_list, tmp_path):
    assert run(TRAIN, *flags(clip_list, tmp_path / "whole")).returncode == 0
    two = start(TRAIN, *flags(clip_list, tmp_path / "run"), ranks=2)
    stop_when(two, tmp_path / "run/model/model000000001.model")
    done = run(TRAIN, *flags(clip_list, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"Resuming in epoch [23] after step \d+ from", done.stdout)
    last = "model/model000000003.model"
    a, b = (torch.load(tmp_path / run / last, weights_only=True) for run in ("whole", "run"))
    for name, weight in a.items():
        torch.testing.assert_close(b[name], weight, rtol=1e-5, atol=1e-6)
    scores = [
        [line for line in (tmp_path / run / "result/scores.txt").read_text().splitlines() if line[:2] == "IT"]
        for run in ("whole", "run")
    ]
    assert len(scores[0]) == 3 and len(scores[1]) == 3


def test_the_first_process_decides_and_all_are_alike(clip_list, trials, tmp_path):
    """Stopped with two and gone on with two, of which one cannot read the run's files: the same to the bit.

    With batch norms, whose running statistics are each process's own until they are averaged.
    """
    last = "model/model000000003.model"
    more = ["--model", "blindModel", "--test_interval", 3, "--test_list", trials[0], "--test_path", trials[1]]
    done = run(TRAIN, *flags(clip_list, tmp_path / "whole"), *more, ranks=2)
    assert done.returncode == 0, done.stderr
    tested = re.search(r"test +EER ([\d.]+)", done.stdout)

    command = [*flags(clip_list, tmp_path / "run"), *more]
    stop_when(start(TRAIN, *command, ranks=2), tmp_path / "run/training_state.pt")
    done = run(TRAIN, *command, ranks=2, UNREADABLE=str(tmp_path / "run/"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"Resuming in epoch [123] after step \d+ from", done.stdout)
    a, b = (torch.load(tmp_path / run / last, weights_only=True) for run in ("whole", "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert a["__S__.norm.num_batches_tracked"] == 2 * 3 * 5  # both streams, three epochs of five batches

    command += ["--eval", "--initial_model", tmp_path / "whole" / last]
    done = run(TRAIN, *command, ranks=2, UNREADABLE=str(tmp_path / "whole/"))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) == pytest.approx(float(tested[1]), abs=0.01)


def test_evaluation_during_training_with_two_processes(clip_list, trials, tmp_path):
    found = []
    for processes in (0, 2):
        command = flags(clip_list, tmp_path / f"run{processes}") + ["--max_epoch", 2, "--test_interval", 1]
        command += ["--test_list", trials[0], "--test_path", trials[1]]
        done = run(TRAIN, *command, ranks=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("  test       EER") == 2  # once an epoch, not once a process
        metrics = (tmp_path / f"run{processes}/result/metrics.csv").read_text().splitlines()
        found.append([(float(row["eer"]), float(row["min_dcf_0.05"])) for row in csv.DictReader(metrics)])
        assert json.loads((tmp_path / f"run{processes}/result/best.json").read_text())["epoch"] in (1, 2)
    assert len(found[0]) == 2 and found[0] == pytest.approx(np.array(found[1]), abs=1e-6)


def test_a_process_that_fails_ends_the_run(clip_list, tmp_path):
    done = run(TRAIN, *flags(clip_list, tmp_path / "run"), ranks=2, FAIL_IN="1:3")
    assert done.returncode != 0 and done.stderr.count("broken on purpose") == 1


def test_an_error_that_all_processes_meet_is_shown_once(clip_list, tmp_path):
    for wrong, message in (
        (["--nBatchSize", 7], "the nearest sizes that fit: 6 or 8"),
        (["--nonsense"], "unrecognized flag --nonsense"),
    ):
        done = run(TRAIN, *flags(clip_list, tmp_path / "run"), *wrong, ranks=2)
        assert done.returncode != 0 and done.stderr.count(message) == 1


def test_a_save_path_that_is_not_shared(clip_list, tmp_path):
    one_epoch = [*flags(clip_list, tmp_path / "run"), "--max_epoch", 1]
    done = run(ROOT / "tests/makers/ownFolders.py", *one_epoch, ranks=2)
    assert done.returncode == 0 and (tmp_path / "run0/training_state.pt").exists(), done.stderr
    assert not (tmp_path / "run1/training_state.pt").exists()
    shutil.rmtree(tmp_path / "run1", ignore_errors=True)
    (tmp_path / "run0").rename(tmp_path / "run1")  # process 0 is now on the other machine
    done = run(ROOT / "tests/makers/ownFolders.py", *one_epoch, ranks=2)
    assert done.returncode == 1 and "--save_path must be a folder that all machines share" in done.stderr
    assert "is in epoch 2 after step 0 on" in done.stderr and "has no state on" in done.stderr
    assert not list((tmp_path / "run0").rglob("*.model"))


@pytest.mark.slow
@pytest.mark.parametrize("rendezvous", ["c10d", "static"])
def test_torchrun_restarts_a_run_whose_process_was_killed(clip_list, tmp_path, rendezvous):
    where = ["--standalone"] if rendezvous == "c10d" else ["--master_port", free_port()]
    command = flags(clip_list, tmp_path / "run")
    done = torchrun(*command, rendezvous=[*where, "--max_restarts", 2], KILL_IN="1:8")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Resuming in epoch [12] after step \d+ from", done.stdout) and "Done" in done.stdout
    assert done.stderr.count("the connection to another process is lost") == 1
    assert 'trainSyncNet.py", line' not in done.stderr


@pytest.mark.slow
def test_what_torchrun_reports_ends_with_the_message(clip_list, tmp_path):
    done = torchrun(*flags(clip_list, tmp_path / "run"), "--nBatchSize", 7)
    said, err = "trainSyncNet.py: --nBatchSize 7 is the batch of all 2 processes together", done.stderr
    assert done.returncode != 0 and err.count(f"\n{said}") + err.startswith(said) == 1
    assert err.rindex(f"traceback : {said}") > err.rindex("Traceback")


def test_a_signal_from_the_scheduler_and_from_torchrun_is_one_request(clip_list, tmp_path):
    """Slurm sends its signal to all processes, and torchrun sends it to its own again."""
    two = start(TRAIN, *flags(clip_list, tmp_path / "run"), ranks=2)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/training_state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for _ in range(2):
        two.signal(signal.SIGTERM)
    done = two.wait()
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout.count("Stopped by SIGTERM; the state is saved") == 1
    assert not list((tmp_path / "run").rglob("*.part"))


def setup_alone(monkeypatch, device: str | None, gpus: int, **environment) -> tuple[str | None, str]:
    """distributed.setup on a machine with so many GPUs. Returns the device, and the backend that is used."""
    joined = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, **_: joined.append(backend))
    values = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1} | environment
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    return distributed.setup(device), joined[0]


def test_a_device_that_is_asked_for_by_number(monkeypatch):
    assert setup_alone(monkeypatch, "cuda:3", 4) == ("cuda:3", "nccl")
    assert setup_alone(monkeypatch, "cuda:7", 4) == ("cuda:7", "gloo")  # which SyncNet refuses
    assert setup_alone(monkeypatch, None, 4) == ("cuda:0", "nccl")
    assert setup_alone(monkeypatch, "cuda", 4, LOCAL_RANK=2, LOCAL_WORLD_SIZE=4) == ("cuda:2", "nccl")
    assert setup_alone(monkeypatch, None, 4, LOCAL_RANK=6, LOCAL_WORLD_SIZE=8) == ("cuda:2", "gloo")
    assert setup_alone(monkeypatch, "cpu", 4) == ("cpu", "gloo")
    assert setup_alone(monkeypatch, None, 0) == (None, "gloo")
    with pytest.raises(UserError, match="--device cuda:3: 4 processes on this machine would share that GPU"):
        setup_alone(monkeypatch, "cuda:3", 4, LOCAL_WORLD_SIZE=4)


def test_processes_agree_on_a_backend_and_ignore_an_earlier_start():
    """Two starts in one store, as torchrun makes them; the second one's rank 0 comes first or last."""
    store = dist.HashStore()
    for backends in (["nccl", "nccl", "nccl"], ["nccl", "gloo", "nccl"], ["gloo", "gloo", "gloo"]):
        found: dict[int, tuple] = {}

        def agree(rank: int, backends: list[str] = backends, found: dict = found) -> None:
            found[rank] = distributed._agree(store, rank, len(backends), backends[rank])

        threads = [threading.Thread(target=agree, args=(rank,)) for rank in (2, 0, 1)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join(60)
        agreed = "nccl" if set(backends) == {"nccl"} else "gloo"
        assert [found[rank][1] for rank in range(3)] == [agreed] * 3
        assert not found[0][0].check(["failed"])
        found[1][0].set("failed", "1")
        assert found[2][0].check(["failed"])


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1", "RANK": "0"}, None),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE is 2, but this was not started by torchrun"),
        ({"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}, None),
        ({"SLURM_NTASKS": "1"}, None),
        ({"SLURM_NTASKS": "4"}, "SLURM_NTASKS is 4"),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, None),  # one process, in a larger allocation
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "2"}, "SLURM_STEP_NUM_TASKS is 2"),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "8"}, "OMPI_COMM_WORLD_SIZE is 8"),
        ({"WORLD_SIZE": "many"}, None),
    ],
)
def test_an_environment_of_several_processes_without_torchrun(monkeypatch, environment, found):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_")) or name == "WORLD_SIZE"]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "isatty", lambda _: False)
    line = distributed.several_without_torchrun()
    assert line.startswith(found) if found else line == ""


def test_in_a_shell_of_an_allocation_nothing_is_said(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setattr(os, "isatty", lambda number: number == 0)
    assert distributed.several_without_torchrun() == ""


def test_one_process_needs_no_group():
    x = torch.ones(2, requires_grad=True)
    assert distributed.gather(x) is x and distributed.total(x) is x
    assert distributed.processes() == 1 and distributed.is_main() and not distributed.any_of(False, x.device)
