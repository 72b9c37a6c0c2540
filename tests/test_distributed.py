"""The number of processes changes the speed, not the result."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from clipMaker import make_list
from scipy.io import wavfile

from support import distributed

TESTS = Path(__file__).parent
FLAGS = ["--maxFrames", 6, "--nBatchSize", 6, "--nOut", 8, "--model", "plainModel", "--device", "cpu"]
FLAGS += ["--nDataLoaderThread", 1, "--lr", 0.01, "--max_epoch", 3, "--save_steps", 1]


def start(processes: int, script: str, *args, **environment) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    command = [sys.executable, *(launcher if processes else ()), script, *args]
    return subprocess.Popen(
        [str(part) for part in command],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


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
        status, _, err = finish(start(processes, TESTS / "distributedCase.py", output, *trials))
        assert status == 0, err
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


def test_killed_with_two_processes_goes_on_with_one(clip_list, tmp_path):
    whole = start(0, TESTS.parent / "trainSyncNet.py", *flags(clip_list, tmp_path / "whole"))
    assert finish(whole)[0] == 0
    two = start(2, TESTS.parent / "trainSyncNet.py", *flags(clip_list, tmp_path / "run"))
    state = tmp_path / "run/training_state.pt"
    deadline = time.monotonic() + 60
    while not (tmp_path / "run/model/model000000001.model").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert state.exists()
    two.send_signal(signal.SIGTERM)
    finish(two)
    status, out, err = finish(start(0, TESTS.parent / "trainSyncNet.py", *flags(clip_list, tmp_path / "run")))
    assert status == 0, err
    assert re.search(r"Going on in epoch [23] after step \d+ from", out)
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
    script, last = TESTS.parent / "trainSyncNet.py", "model/model000000003.model"
    more = ["--model", "blindModel", "--test_interval", 3, "--test_list", trials[0], "--test_path", trials[1]]
    status, out, err = finish(start(2, script, *flags(clip_list, tmp_path / "whole"), *more))
    assert status == 0, err
    tested = re.search(r"test +EER ([\d.]+)", out)

    command = [*flags(clip_list, tmp_path / "run"), *more]
    two = start(2, script, *command)
    state = tmp_path / "run/training_state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    two.send_signal(signal.SIGTERM)
    finish(two)
    status, out, err = finish(start(2, script, *command, UNREADABLE=str(tmp_path / "run/")))
    assert status == 0 and re.search(r"Going on in epoch [123] after step \d+ from", out), err
    a, b = (torch.load(tmp_path / run / last, weights_only=True) for run in ("whole", "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert a["__S__.norm.num_batches_tracked"] == 2 * 3 * 5  # both streams, three epochs of five batches

    command += ["--eval", "--initial_model", tmp_path / "whole" / last]
    status, out, err = finish(start(2, script, *command, UNREADABLE=str(tmp_path / "whole/")))
    assert status == 0, err
    assert float(out.split()[-1]) == pytest.approx(float(tested[1]), abs=0.01)


def test_evaluation_during_training_with_two_processes(clip_list, trials, tmp_path):
    found = []
    for processes in (0, 2):
        command = flags(clip_list, tmp_path / f"run{processes}") + ["--max_epoch", 2, "--test_interval", 1]
        command += ["--test_list", trials[0], "--test_path", trials[1]]
        status, out, err = finish(start(processes, TESTS.parent / "trainSyncNet.py", *command))
        assert status == 0, err
        assert out.count("  test       EER") == 2  # once an epoch, not once a process
        metrics = (tmp_path / f"run{processes}/result/metrics.csv").read_text().splitlines()
        found.append([(float(row["eer"]), float(row["min_dcf_0.05"])) for row in csv.DictReader(metrics)])
        assert json.loads((tmp_path / f"run{processes}/result/best.json").read_text())["epoch"] in (1, 2)
    assert len(found[0]) == 2 and found[0] == pytest.approx(np.array(found[1]), abs=1e-6)


def test_a_process_that_fails_ends_the_run(clip_list, tmp_path):
    process = start(2, TESTS.parent / "trainSyncNet.py", *flags(clip_list, tmp_path / "run"), FAIL_IN="1:3")
    status, _, err = finish(process)
    assert status != 0
    assert err.count("broken on purpose") == 1


def test_an_error_that_all_processes_meet_is_shown_once(clip_list, tmp_path):
    command = [*flags(clip_list, tmp_path / "run"), "--nBatchSize", 7]
    status, _, err = finish(start(2, TESTS.parent / "trainSyncNet.py", *command))
    assert status != 0
    assert err.count("the nearest sizes that fit: 6 or 8") == 1


def test_one_process_needs_no_group():
    x = torch.ones(2, requires_grad=True)
    assert distributed.gather(x) is x and distributed.total(x) is x
    assert distributed.processes() == 1 and distributed.is_main() and not distributed.any_of(False, x.device)
