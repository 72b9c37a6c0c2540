"""The number of processes changes the speed, not the result."""

import csv
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
from processes import PATHS, ROOT, free_port, run, start
from scipy.io import wavfile

from syncnet.compute import distributed
from syncnet.support.errors import UserError

TRAIN = ROOT / "trainSyncNet.py"
FLAGS = ["--maxFrames", 6, "--nBatchSize", 6, "--nOut", 8, "--model", "plainModel", "--device", "cpu"]
FLAGS += ["--nDataLoaderThread", 1, "--lr", 0.01, "--max_epoch", 2, "--save_steps", 1]


def torchrun(*arguments, rendezvous=("--standalone",), **environment) -> subprocess.CompletedProcess:
    """A run of two processes under torchrun itself."""
    launcher = [sys.executable, "-m", "torch.distributed.run", *rendezvous, "--nproc_per_node", 2, TRAIN]
    paths = {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    command = [str(part) for part in (*launcher, *arguments)]
    return subprocess.run(
        command, env=os.environ | paths | environment, capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def trials(tmp_path_factory) -> list:
    """Flags that score a small trial list after each epoch."""
    folder = tmp_path_factory.mktemp("speech")
    draws = np.random.RandomState(0)
    for k in range(7):
        wavfile.write(folder / f"{k}.wav", 16000, (3000 * draws.randn(8000 + 700 * k)).astype(np.int16))
    lines = [f"{(i + j) % 2} {i}.wav {j}.wav\n" for i in range(7) for j in range(i)]
    (folder / "trials.txt").write_text("".join(lines))
    listed = ["--test_list", folder / "trials.txt", "--test_path", folder]
    return [*listed, "--test_interval", 1, "--num_eval", 2]


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 19, 12)


def flags(clip_list: Path, save_path: Path) -> list:
    return [*FLAGS, "--train_list", clip_list, "--verify_list", clip_list, "--save_path", save_path]


def test_one_two_and_three_processes_give_the_same_numbers(trials, tmp_path):
    found = {}
    for processes in (0, 2, 3):
        output = tmp_path / f"{processes}.pt"
        done = run(ROOT / "tests/makers/distributedCase.py", output, trials[1], trials[3], ranks=processes)
        assert done.returncode == 0, done.stderr
        found[processes] = torch.load(output, weights_only=True)
    one = found.pop(0)
    for several in found.values():
        assert torch.equal(several["scores"], one["scores"])
        for rows in ("rows", "checked", "means"):
            torch.testing.assert_close(several[rows], one[rows], rtol=1e-5, atol=1e-6, equal_nan=True)
        size = max(g.norm() for g in one["gradients"].values())
        for name, gradient in one["gradients"].items():
            difference = (several["gradients"][name] - gradient).norm()
            assert difference <= 1e-5 * max(gradient.norm(), 1e-2 * size), name
        for name, weight in one["weights"].items():
            torch.testing.assert_close(several["weights"][name], weight, rtol=1e-6, atol=1e-6)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model/model000000002.model", weights_only=True)


def metrics(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "result/metrics.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def alone(clip_list, trials, tmp_path_factory) -> Path:
    """A run of one process that scores trials after each epoch."""
    folder = tmp_path_factory.mktemp("alone")
    done = run(TRAIN, *flags(clip_list, folder), *trials)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_process_that_fails_ends_a_run_that_resumes_with_one_process(clip_list, alone, tmp_path):
    failed = run(TRAIN, *flags(clip_list, tmp_path), ranks=2, FAIL_IN="1:5")
    assert failed.returncode != 0 and failed.stderr.count("broken on purpose") == 1
    resumed = run(TRAIN, *flags(clip_list, tmp_path))
    assert "Resuming in epoch 2 after step 1 from" in resumed.stdout, resumed.stderr
    found = weights(tmp_path)
    for name, weight in weights(alone).items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)
    assert [row["epoch"] for row in metrics(tmp_path)] == ["1", "2"]


def test_rank_zero_decides_and_the_others_follow(clip_list, trials, tmp_path):
    """A resumed run whose second process cannot read the run's files equals an uninterrupted one bit by bit.

    With batch norms, whose running statistics each process has to itself until they are averaged.
    """
    more = [*trials, "--model", "blindModel", "--test_interval", 2]
    whole = run(TRAIN, *flags(clip_list, tmp_path / "whole"), *more, ranks=2)
    assert whole.returncode == 0, whole.stderr

    command = [*flags(clip_list, tmp_path / "run"), *more]
    assert run(TRAIN, *command, ranks=2, FAIL_IN="1:5").returncode != 0
    done = run(TRAIN, *command, ranks=2, UNREADABLE=str(tmp_path / "run/"))
    assert "Resuming in epoch 2 after step 1 from" in done.stdout, done.stderr
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert a["__S__.norm.num_batches_tracked"] == 2 * 2 * 3  # both streams, two epochs of three batches

    command += ["--eval", "--initial_model", tmp_path / "whole/model/model000000002.model"]
    done = run(TRAIN, *command, ranks=2, UNREADABLE=str(tmp_path / "whole/"))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) == pytest.approx(
        float(metrics(tmp_path / "whole")[1]["eer"]), abs=0.01
    )


def test_two_processes_score_trials_as_one(clip_list, trials, alone, tmp_path):
    done = run(TRAIN, *flags(clip_list, tmp_path), *trials, ranks=2)
    assert done.stdout.count("  test       EER") == 2, done.stderr  # once an epoch, not once a process
    for found, expected in zip(metrics(tmp_path), metrics(alone), strict=True):
        for name in (
            "eer",
            "min_dcf_0.05",
            "train_loss",
            "val_loss",
            "val_content_top1",
            "val_identity_top1",
        ):
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
    assert (tmp_path / "result/best.json").read_text() == (alone / "result/best.json").read_text()


def test_an_error_of_all_processes_is_shown_once(clip_list, tmp_path):
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
    done = torchrun(*command, rendezvous=[*where, "--max_restarts", 2], KILL_IN="1:5")
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
    two = start(TRAIN, *flags(clip_list, tmp_path / "run"), "--max_epoch", 1000, ranks=2)
    while not (tmp_path / "run/training_state.pt").exists() and two.running:
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


def test_the_device_and_backend_of_a_process(monkeypatch):
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
    """Several starts in one store, as torchrun makes them."""
    store = dist.HashStore()
    for backends in (["nccl", "nccl", "nccl"], ["nccl", "gloo", "nccl"], ["gloo", "gloo", "gloo"]):
        found: dict[int, tuple] = {}

        def agree(rank: int, backends: list[str] = backends, found: dict = found) -> None:
            found[rank] = distributed.agree_on_start(store, rank, len(backends), backends[rank])

        threads = [threading.Thread(target=agree, args=(rank,)) for rank in (2, 0, 1)]
        for thread in threads:
            thread.start()
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
def test_several_processes_without_torchrun_are_reported(monkeypatch, environment, found):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_")) or name == "WORLD_SIZE"]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "isatty", lambda _: False)
    line = distributed.several_without_torchrun()
    assert line.startswith(found) if found else line == ""


def test_a_shell_in_an_allocation_is_not_reported(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setattr(os, "isatty", lambda number: number == 0)
    assert distributed.several_without_torchrun() == ""


def test_one_process_needs_no_group():
    x = torch.ones(2, requires_grad=True)
    assert distributed.gather(x) is x and distributed.total(x) is x
    assert distributed.processes() == 1 and distributed.is_main() and not distributed.any_of(False, x.device)
