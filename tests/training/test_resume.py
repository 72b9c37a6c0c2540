"""A run that is killed, stopped or out of disk space resumes to exactly the same weights."""

import builtins
import csv
import errno
import itertools
import math
import os
import random
import shutil
import signal
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from clipMaker import make_list
from scipy.io import wavfile

import trainSyncNet
from syncnet.checkpoints.checkpoints import epoch_checkpoints, read_checkpoint
from syncnet.checkpoints.recorded_settings import trained_with
from syncnet.checkpoints.torch_files import CheckpointError
from syncnet.compute import distributed
from syncnet.training import run_folder, signals
from syncnet.training import state as trainingState
from syncnet.training.epoch import PARTS
from syncnet.verification.evaluation import TrialTest
from SyncNetDist import SyncNet

EPOCHS = 3
FLAGS = ["--maxFrames", 6, "--nBatchSize", 2, "--nOut", 8, "--model", "tinyModel", "--device", "cpu"]
FLAGS += ["--nDataLoaderThread", 2, "--lr", 0.01]


def load_state(path: str, network: SyncNet) -> dict:
    return trainingState.fit_state(path, trainingState.read_state(path), network)


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 13, 12)


def flags(clip_list: Path, save_path: Path, *more) -> list[str]:
    lists = ("--train_list", clip_list, "--verify_list", clip_list, "--nTestPerEpoch", 4)
    fixed = [*FLAGS, *lists, "--save_path", save_path, "--max_epoch", EPOCHS, "--save_steps", 2]
    return [str(x) for x in (*fixed, *more)]


def stopped(when: str, number: int, *command: str) -> subprocess.CompletedProcess:
    """A run that gets a signal when it has printed this text."""
    process = processes.start("trainSyncNet.py", *command)
    while process.running and when not in process.read("out"):
        time.sleep(0.01)
    assert process.running, process.read("err")
    process.signal(number)
    return process.wait()


def final_weights(save_path: Path) -> dict[str, torch.Tensor]:
    return torch.load(save_path / f"model/model{EPOCHS:09d}.model", weights_only=True)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def result_lines(save_path: Path) -> list[str]:
    lines = (save_path / "result/scores.txt").read_text().splitlines()
    return [line for line in lines if line.startswith("IT")]


@pytest.fixture(scope="module")
def whole_run(clip_list, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    folder, before = tmp_path_factory.mktemp("whole"), torch.get_num_threads()
    torch.set_num_threads(1)
    assert trainSyncNet.main(flags(clip_list, folder)) == 0
    torch.set_num_threads(before)
    return folder


@pytest.fixture(scope="module")
def trials(tmp_path_factory) -> list:
    """Flags for a small trial list, scored after every epoch."""
    folder = tmp_path_factory.mktemp("speech")
    draws = np.random.RandomState(0)
    for k in range(5):
        wavfile.write(folder / f"{k}.wav", 16000, (3000 * draws.randn(8000 + 700 * k)).astype(np.int16))
    lines = [f"{(i + j) % 2} {i}.wav {j}.wav\n" for i in range(5) for j in range(i)]
    (folder / "trials.txt").write_text("".join(lines))
    listed = ["--test_list", folder / "trials.txt", "--test_path", folder]
    return ["--test_interval", 1, "--num_eval", 2, *listed]


def plain(value: object) -> object:
    """A value whose parts compare by ==, tensors bit by bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def contents(save_path: Path) -> dict[str, object]:
    """What a run has written, by file, except how long it took and how much memory."""
    found = {}
    for path in sorted(path for path in save_path.rglob("*") if path.is_file()):
        name = str(path.relative_to(save_path))
        if path.suffix in (".pt", ".model"):
            found[name] = plain(torch.load(path, weights_only=True))
        elif path.name == "metrics.csv":
            measured = ("clips_per_second", "data_wait_percent", "memory_mib")
            rows = list(csv.DictReader(path.read_text().splitlines()))
            found[name] = [{n: row[n] for n in row if n not in measured} for row in rows]
        else:
            found[name] = path.read_bytes()
    return found


def at_each_write(patch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call act(n) ahead of the nth change on the disk: a file that replaces another, or is removed."""
    count = itertools.count(1)

    def counted(real: Callable) -> Callable:
        def call(*args):
            if not (real is remove and str(args[0]).endswith(".part")):  # the clearing up of a failed write
                act(next(count))
            return real(*args)

        return call

    remove = os.remove
    patch.setattr(os, "replace", counted(os.replace))
    patch.setattr(os, "remove", counted(remove))


def use_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW with warm-up, a separate learning rate for biases."""
    real = SyncNet.__init__

    def init(self, *args, **kwargs) -> None:
        real(self, *args, **kwargs)
        rate = self.__optimizer__.param_groups[0]["lr"]
        weights = [parameter for parameter in self.parameters() if parameter.dim() > 1]
        others = {
            "params": [p for p in self.parameters() if p.dim() <= 1],
            "lr": rate / 10,
            "weight_decay": 0,
        }
        self.__optimizer__ = torch.optim.AdamW([{"params": weights}, others], rate, amsgrad=True)
        self.__scheduler__ = torch.optim.lr_scheduler.LinearLR(self.__optimizer__, 0.1, total_iters=4)

    monkeypatch.setattr(SyncNet, "__init__", init)


@pytest.mark.usefixtures("one_thread")
def test_a_run_killed_before_any_of_its_writes_ends_with_the_same_files(
    clip_list, trials, tmp_path, capsys, monkeypatch
):
    """Also where the disk then is full for a while, at another write; with two parameter groups and a scheduler."""
    use_adam(monkeypatch)
    path = tmp_path / "run"
    short = ("--max_epoch", 2, "--nTrainPerEpoch", 6, "--nTestPerEpoch", 2)
    command = flags(clip_list, path, *short, "--keep", 1, *trials)

    def copy(number: int) -> None:
        shutil.copytree(path, tmp_path / f"killed{number:02d}")

    with pytest.MonkeyPatch.context() as patch:
        at_each_write(patch, copy)
        status, _, err = run(capsys, *command)
        assert status == 0, err
    whole = contents(path)
    written = {"training_state.pt", "result/best.json", "result/curves.png", "model/model000000002.model"}
    assert written < whole.keys()
    killed = sorted(tmp_path.glob("killed*"))
    assert len(killed) > 15

    for number, kept in enumerate(killed[::2]):
        shutil.rmtree(path)
        kept.rename(path)

        def fail(write: int, failing: int = number % 7 + 1) -> None:
            if write == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.MonkeyPatch.context() as patch:
            at_each_write(patch, fail)
            status, _, err = run(capsys, *command)
        assert status == 0 or ("No space left on device" in err and "Traceback" not in err), err
        status, out, err = run(capsys, *command)
        assert status == 0, err
        assert contents(path) == whole, (kept.name, out)


def test_a_signal_saves_the_state(clip_list, whole_run, tmp_path):
    command = flags(clip_list, tmp_path / "run", "--save_steps", 0)
    first = stopped("IT 1,", signal.SIGINT, *command, "--max_epoch", "1000")
    assert first.returncode == 128 + signal.SIGINT and "The same command resumes from here" in first.stdout
    epoch = torch.load(tmp_path / "run/training_state.pt", weights_only=True)["epoch"]
    second = processes.run("trainSyncNet.py", *command, "--max_epoch", max(epoch, EPOCHS))
    assert second.returncode == 0 and f"Resuming in epoch {epoch}" in second.stdout
    assert same(final_weights(tmp_path / "run"), final_weights(whole_run))


def run(capsys, *args) -> tuple[int, str, str]:
    status = trainSyncNet.main([str(a) for a in args])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture(scope="module")
def one_epoch(clip_list, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("short") / "run"
    assert trainSyncNet.main(flags(clip_list, folder, "--max_epoch", 1)) == 0
    return folder


@pytest.fixture
def short_run(one_epoch, tmp_path) -> Path:
    """A run of one epoch of three."""
    return shutil.copytree(one_epoch, tmp_path / "run")


@pytest.mark.usefixtures("one_thread")
def test_a_run_stopped_at_any_step_resumes_exactly(clip_list, tmp_path, capsys, stopped_at):
    """Of a network that draws random numbers itself, and in training as in validation."""
    dropping = ("--model", "dropModel", "--max_epoch", 2, "--save_steps", 1, "--nTrainPerEpoch", 4)
    assert run(capsys, *flags(clip_list, tmp_path / "whole", *dropping))[0] == 0
    whole = contents(tmp_path / "whole")
    for step in range(1, 2 * (2 + 2) + 1):  # two epochs of two steps of training, two of validation
        halves = flags(clip_list, tmp_path / str(step), *dropping)
        with stopped_at(step):
            assert run(capsys, *halves)[0] == 1
        assert run(capsys, *halves)[0] == 0
        found = contents(tmp_path / str(step))
        for settings in (whole, found):  # which name the folder of the run
            settings.pop("result/scores.txt", None)
        assert found == whole, step


@pytest.mark.usefixtures("one_thread")
def test_validation_and_trials_do_not_affect_training(clip_list, trials, tmp_path, capsys, monkeypatch):
    """A longer validation and scored trials train the same; without training, every epoch validates the same."""
    real = TrialTest.run

    def scored(self) -> dict[str, float]:
        random.random()  # as a package that is imported there may do
        return real(self)

    monkeypatch.setattr(TrialTest, "run", scored)
    for clips, more in ((2, ()), (6, trials)):
        short = ("--max_epoch", 2, "--nTrainPerEpoch", 4, "--nTestPerEpoch", clips, "--save_steps", 0)
        assert run(capsys, *flags(clip_list, tmp_path / str(clips), *short, *more))[0] == 0
    a, b = (
        torch.load(tmp_path / name / "model/model000000002.model", weights_only=True) for name in ("2", "6")
    )
    assert same(a, b)
    still = ("--lr", 0, "--model", "plainModel", "--max_epoch", 3, "--maxFrames", 8)
    assert run(capsys, *flags(clip_list, tmp_path / "still", *still))[0] == 0
    lines = result_lines(tmp_path / "still")
    assert len(lines) == 3 and len({line[line.index("VACC") :] for line in lines}) == 1


def as_version_1(path: Path) -> dict:
    """Make a state one of version 1: momenta by name, no learning rate, no kinds of optimizer and scheduler."""
    state = torch.load(path, weights_only=True)
    steps = state.pop("optimizer")["state"]
    names = state.pop("parameters")
    for name in ("scheduler", "hung"):
        del state[name]
    for name in ("optimizer", "scheduler"):
        del state["settings"][name]
    state |= {
        "version": 1,
        "momentum": {names[number]: step["momentum_buffer"] for number, step in steps.items()},
    }
    torch.save(state, path)
    return state


@pytest.mark.usefixtures("one_thread")
def test_a_state_of_an_earlier_version_resumes(clip_list, short_run, tmp_path, capsys):
    """To the same weights; the first ones did not keep where torch's generators were."""
    shutil.copytree(short_run, tmp_path / "old")
    path = tmp_path / "old/training_state.pt"
    state = as_version_1(path)
    del state["torch_random"], state["gpu_random"]
    torch.save(state, path)
    for folder in (short_run, tmp_path / "old"):
        status, out, err = run(capsys, *flags(clip_list, folder))
        assert status == 0 and "Resuming in epoch 2 after step 0" in out, err
    assert same(final_weights(tmp_path / "old"), final_weights(short_run))
    assert result_lines(tmp_path / "old") == result_lines(short_run)


def test_changed_settings_are_named_and_refused(clip_list, short_run, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("".join(reversed(clip_list.read_text().splitlines(keepends=True))))
    changed = flags(clip_list, short_run, "--lr", 0.02, "--train_list", other)
    status, _, err = run(capsys, *changed)
    assert status == 1 and "lr: 0.01 then, 0.02 now" in err and "content of --train_list" in err
    assert "maxFrames" not in err
    status, out, _ = run(capsys, *changed, "--force_resume", "--max_epoch", 2)
    assert status == 0 and "resuming with other settings" in out and "Resuming in epoch 2" in out
    assert "LR 0.019000" in result_lines(short_run)[-1]
    logged = (short_run / "result/scores.txt").read_text().splitlines()
    assert [line for line in logged if line.startswith("lr ")] == ["lr 0.01", "lr 0.02"]
    assert logged.count("maxFrames 6") == 1
    status, _, err = run(capsys, *flags(clip_list, short_run, "--precision", "bf16"))
    assert status == 1 and "precision: fp32 then, bf16 now" in err


def test_the_learning_rate_is_part_of_the_state(clip_list, short_run, capsys):
    """It is not recomputed from --lr. A new --lr counts from the first epoch on, and the rate is printed."""
    path = short_run / "training_state.pt"
    state = torch.load(path, weights_only=True)
    assert state["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.0095)
    state["optimizer"]["param_groups"][0]["lr"] = 0.003  # as by a schedule that has changed since
    torch.save(state, path)
    assert run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))[0] == 0
    assert "LR 0.003000" in result_lines(short_run)[-1]
    status, out, _ = run(capsys, *flags(clip_list, short_run, "--lr", 0.04, "--force_resume"))
    assert status == 0 and "LR 0.011400" in result_lines(short_run)[-1]
    assert "--lr 0.04: the learning rate is 0.0114 in epoch 3, where --lr 0.01 had reached 0.00285" in out


def test_a_learning_rate_of_zero_can_be_raised(clip_list, tmp_path, capsys):
    assert run(capsys, *flags(clip_list, tmp_path, "--max_epoch", 1, "--lr", 0))[0] == 0
    assert run(capsys, *flags(clip_list, tmp_path, "--max_epoch", 2, "--force_resume"))[0] == 0
    assert "LR 0.010000" in result_lines(tmp_path)[-1]


def test_another_learning_rate_reaches_all_groups_and_the_scheduler(clip_list, tmp_path, capsys, monkeypatch):
    """A scheduler that sets the rate from its own base rates: half of them."""
    real = SyncNet.__init__

    def init(self, *args, **kwargs) -> None:
        real(self, *args, **kwargs)
        weights, biases = (
            [p for p in self.parameters() if p.dim() > 1],
            [p for p in self.parameters() if p.dim() <= 1],
        )
        rate = self.learning_rate
        groups = [{"params": biases, "lr": rate / 10}, {"params": weights}]
        self.__optimizer__ = torch.optim.SGD(groups, rate, momentum=0.9)
        self.__scheduler__ = torch.optim.lr_scheduler.LambdaLR(self.__optimizer__, lambda _: 0.5)

    monkeypatch.setattr(SyncNet, "__init__", init)
    for lr, epoch, more in ((0.01, 1, ()), (0.04, 2, ("--force_resume",))):
        done = run(capsys, *flags(clip_list, tmp_path, "--max_epoch", epoch, "--lr", lr, *more))
        assert done[0] == 0, done[2]
        state = torch.load(tmp_path / "training_state.pt", weights_only=True)
        rates = [group["lr"] for group in state["optimizer"]["param_groups"]]
        assert rates == pytest.approx([0.05 * lr * 0.95, 0.5 * lr * 0.95])  # decayed after the epoch
        assert f"LR {0.5 * lr:.6f}" in result_lines(tmp_path)[-1]  # the highest
    assert "--lr 0.04: the learning rate is 0.019 in epoch 2, where --lr 0.01 had reached 0.00475" in done[1]


def test_another_optimizer_is_refused_or_starts_from_scratch(clip_list, short_run, capsys, monkeypatch):
    use_adam(monkeypatch)
    status, _, err = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 1 and "optimizer: SGD then, AdamW now" in err
    status, out, err = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2, "--force_resume"))
    assert status == 0 and "the optimizer and its scheduler start from scratch" in out, err
    assert "epoch 2, learning rate 0.00095\n" in out  # decayed once, and a tenth in the warm-up's first step


CLOSED_TERMINAL = """
import os, pty, sys
import trainSyncNet

pid, terminal = pty.fork()
if not pid:
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
    sys.exit(trainSyncNet.main())
shown = b""
while b"epoch 2," not in shown:
    shown += os.read(terminal, 1000)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_closed_terminal_saves_the_state(clip_list, short_run, tmp_path):
    """SIGHUP comes with a terminal to which nothing can be written any more, and is ignored under nohup."""
    (tmp_path / "program.py").write_text(CLOSED_TERMINAL)
    done = processes.run(tmp_path / "program.py", *flags(clip_list, short_run, "--max_epoch", 1000))
    assert done.stdout == f"{128 + signal.SIGHUP}\n", done.stderr
    state = torch.load(short_run / "training_state.pt", weights_only=True)
    assert state["epoch"] > 2 or len(state["rows"]) > 0

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.stop_signals(torch.device("cpu")) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.signals
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_asks_to_stop(number):
    with signals.stop_signals(torch.device("cpu")) as stop:
        os.kill(os.getpid(), number)
        assert stop.requested() and stop.signals == [number]


def test_repeated_signals_are_one_request_within_ten_seconds(monkeypatch):
    """Within some seconds it is one; then it ends the process."""
    clock, ended = [100.0], []
    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "_exit", ended.append)
    with signals.stop_signals(torch.device("cpu")) as stop:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
            clock[0] += 2
        assert stop.signals[0] == signal.SIGUSR1 and not ended
        clock[0] += 10
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [128 + signal.SIGTERM]


def test_the_flags_that_a_run_must_keep():
    args = vars(trainSyncNet.parse_args([]))
    assert trainingState.binding_settings(args, {}).keys() == {
        "allow_resize", "alphaC", "alphaD", "alphaI", "augment_prob", "compile", "crop", "deterministic", "distance",
        "flip", "lr", "lr_decay", "maxFrames", "model", "nBatchSize", "nOut", "nTestPerEpoch", "nTrainPerEpoch",
        "precision", "seed", "temporal_stride", "untrained",
    }  # fmt: skip


def test_free_settings_may_change(clip_list, short_run, tmp_path, capsys):
    copy = tmp_path / "copy.txt"
    copy.write_text(clip_list.read_text())
    free = ("--nDataLoaderThread", 1, "--train_list", copy, "--max_epoch", 2, "--keep", 1)
    assert run(capsys, *flags(clip_list, short_run, *free))[0] == 0
    assert list(epoch_checkpoints(str(short_run / "model"))) == [2]


def test_clips_that_hung_in_any_process_stay_in_the_state(clip_list, short_run, capsys, monkeypatch):
    """Those of both lists; one in another process."""
    theirs = ("other.mp4", 0, 2)
    monkeypatch.setattr(distributed, "union", lambda values: sorted({*values, theirs}))
    path = short_run / "training_state.pt"
    state = torch.load(path, weights_only=True)
    hung = {name: [(f"{name}.mp4", 0, 1)] for name in ("verify_list", "train_list")}
    torch.save(state | {"hung": hung}, path)
    assert run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))[0] == 0
    found = torch.load(path, weights_only=True)["hung"]
    assert found == {name: [theirs, *clips] for name, clips in hung.items()}


def test_the_state_is_saved_every_so_many_steps(clip_list, tmp_path, capsys, stopped_at):
    with stopped_at(6):
        assert run(capsys, *flags(clip_list, tmp_path, "--save_steps", 3))[0] == 1
    assert "Resuming in epoch 1 after step 3" in run(capsys, *flags(clip_list, tmp_path, "--max_epoch", 1))[1]


@pytest.mark.parametrize("lost", [None, "training_state.pt"])
def test_settings_are_those_of_the_run_and_not_of_the_initial_model(clip_list, tmp_path, capsys, lost):
    other = str(tmp_path / "other.model")
    for name, more in (("run", ()), ("other", ("--crop", "mouth"))):
        assert run(capsys, *flags(clip_list, tmp_path / name, "--max_epoch", 1, *more))[0] == 0
    shutil.copy(tmp_path / "other/model/model000000001.model", other)
    if lost:
        (tmp_path / "run" / lost).unlink()
    command = flags(clip_list, tmp_path / "run", "--max_epoch", 2, "--initial_model", other)
    for flag in ("--maxFrames", "--nOut"):  # which the run's checkpoint and state have, too
        at = command.index(flag)
        del command[at : at + 2]
    status, out, err = run(capsys, *command)
    assert status == 0 and f"--initial_model {other} is not used" in out and "crop mouth" not in out, err
    assert trained_with(read_checkpoint(str(tmp_path / "run/model/model000000002.model")))["crop"] == "face"


def test_a_run_does_not_resume_with_defaults_in_place_of_its_flags(clip_list, short_run, capsys):
    command = flags(clip_list, short_run, "--max_epoch", 2)
    at = command.index("--nOut")
    del command[at : at + 2]
    status, _, err = run(capsys, *command)
    assert status == 1 and "nOut: 8 then, 1024 now" in err


def test_settings_of_an_older_state_were_the_defaults(clip_list, short_run, capsys):
    """A state from before a flag existed resumes without it, and not with another value of it."""
    path = short_run / "training_state.pt"
    state = torch.load(path, weights_only=True)
    for name in ("alphaD", "distance"):
        del state["settings"][name]
    torch.save(state, path)
    changed = ("--alphaD", 0.5, "--max_epoch", 2)
    status, _, err = run(capsys, *flags(clip_list, short_run, *changed))
    assert status == 1 and "alphaD: 0.0 then, 0.5 now" in err and "distance" not in err
    status, out, _ = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 0 and "Resuming in epoch 2 after step 0" in out


def test_a_loss_that_is_switched_on_later_starts_without_momentum(clip_list, tmp_path, capsys):
    path = tmp_path / "run"
    assert run(capsys, *flags(clip_list, path, "--alphaI", 0, "--max_epoch", 1))[0] == 0
    state = torch.load(path / "training_state.pt", weights_only=True)
    steps = state["optimizer"]["state"]
    momenta = {state["parameters"][number]: step["momentum_buffer"] for number, step in steps.items()}
    assert momenta and not any("heads.1" in name or "wI" in name for name in momenta)
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    trainingState.restore(load_state(str(path / "training_state.pt"), network), network)
    for name, parameter in network.named_parameters():
        momentum = network.__optimizer__.state[parameter].get("momentum_buffer")
        assert momentum is None if name not in momenta else torch.equal(momentum, momenta[name]), name
    status, out, err = run(capsys, *flags(clip_list, path, "--alphaI", 1, "--force_resume", "--max_epoch", 2))
    assert status == 0 and "alphaI: 0.0 then, 1.0 now" in out, err
    assert "Resuming in epoch 2 after step 0" in out and len(result_lines(path)) == 2


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("training_state.pt", errno.EIO),
        ("training_state.pt", errno.ENOMEM),
        ("model", errno.EACCES),
        ("model/model000000001.model", errno.ESTALE),
    ],
)
def test_temporarily_unreadable_files_are_not_damaged(
    clip_list, short_run, capsys, monkeypatch, number, name
):
    """The run stops with the message, and its files stay as they are."""
    path = short_run / name
    if name.endswith(".model"):
        (short_run / "training_state.pt").unlink()
    before = {file: file.read_bytes() for file in short_run.rglob("*") if file.is_file()}

    def failing(real):
        def call(where, *args, **kwargs):
            if str(where) == str(path):
                raise OSError(number, os.strerror(number), str(where))
            return real(where, *args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", failing(os.listdir))
        patch.setattr(builtins, "open", failing(open))
        status, out, err = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 1 and os.strerror(number) in err and str(path) in err and "epoch 2," not in out
    assert "damaged" not in out + err and "Traceback" not in err
    assert {file: file.read_bytes() for file in short_run.rglob("*") if file.is_file()} == before
    status, out, _ = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 0 and "Resuming" in out


def test_a_state_of_another_network_is_refused(clip_list, short_run, capsys):
    other = flags(clip_list, short_run, "--nOut", 16, "--max_epoch", 2)
    status, _, err = run(capsys, *other)
    assert status == 1 and "nOut: 8 then, 16 now" in err
    before = (short_run / "training_state.pt").read_bytes()
    status, _, err = run(capsys, *other, "--force_resume")
    assert status == 1 and "does not fit" in err and "another --save_path" in err
    assert (short_run / "training_state.pt").read_bytes() == before


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_signal_is_obeyed_at_the_end_of_an_epoch_at_the_latest(
    clip_list, whole_run, tmp_path, capsys, monkeypatch, part
):
    """On a GPU, an epoch may have fewer steps than there are between two checks for signals."""
    torch.set_num_threads(1)
    real_init, real_forward, sent = SyncNet.__init__, SyncNet.forward, []

    def init(self, *args, **kwargs):
        real_init(self, *args, **kwargs)
        self.steps_per_fetch = 1000

    def forward(self, *args):
        if not sent and self.training == (part == "train"):
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        return real_forward(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(SyncNet, "__init__", init)
        patch.setattr(SyncNet, "forward", forward)
        status, out, _ = run(capsys, *flags(clip_list, tmp_path / "run", "--save_steps", 0))
    assert status == 128 + signal.SIGTERM and "the state is saved" in out and "IT 1" not in out
    status, out, _ = run(capsys, *flags(clip_list, tmp_path / "run"))
    assert status == 0 and "Resuming in epoch 1 after step 6" in out
    assert same(final_weights(tmp_path / "run"), final_weights(whole_run))


def test_a_damaged_state_or_checkpoint_is_replaced_by_an_earlier_one(clip_list, short_run, capsys):
    assert run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))[0] == 0
    for damaged in (short_run / "training_state.pt", short_run / "model/model000000002.model"):
        damaged.write_bytes(damaged.read_bytes()[:-100])
    status, out, _ = run(capsys, *flags(clip_list, short_run))
    assert status == 0
    assert "WARNING" in out and "training_state.pt: not loaded" in out and "without the momentum" in out
    assert "model000000002.model: not loaded" in out and "Resuming after epoch 1" in out
    rates = [line.split(", T")[0] for line in result_lines(short_run)]
    assert rates == ["IT 1, LR 0.010000", "IT 2, LR 0.009500", "IT 3, LR 0.009025"]


def test_a_state_older_than_the_newest_checkpoint_is_not_used(clip_list, short_run, capsys):
    old = (short_run / "training_state.pt").read_bytes()
    assert run(capsys, *flags(clip_list, short_run))[0] == 0
    (short_run / "training_state.pt").write_bytes(old)
    status, out, _ = run(capsys, *flags(clip_list, short_run, "--max_epoch", 4))
    assert status == 0 and "Resuming after epoch 3" in out and len(result_lines(short_run)) == 4


@pytest.mark.parametrize("content", [b"", b"PK damaged"])
def test_damaged_checkpoints_are_skipped_unless_all_are(clip_list, short_run, capsys, content):
    assert run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))[0] == 0
    (short_run / "training_state.pt").unlink()
    (short_run / "model/model000000002.model").write_bytes(content)
    status, out, _ = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 0 and "model000000002.model: not loaded" in out and "Resuming after epoch 1" in out
    (short_run / "training_state.pt").unlink()
    for path in epoch_checkpoints(str(short_run / "model")).values():
        Path(path).write_bytes(content)
    for more in ((), ("--eval",)):  # neither a new run over the old one nor an untrained network
        status, out, err = run(capsys, *flags(clip_list, short_run), *more)
        assert status == 1 and "model000000001.model: not loaded" in err and "epoch 1," not in out


def test_a_full_disk_is_reported_before_training(tmp_path, monkeypatch):
    """There must be room for a checkpoint and two states, weights and momenta each."""
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda _: Namespace(free=5 * size))
    with run_folder.run_folder(str(tmp_path), network):
        pass
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda _: Namespace(free=5 * size - 1))
    with pytest.raises(OSError, match="Free some space"), run_folder.run_folder(str(tmp_path), network):
        pass


def test_an_unwritable_folder_is_reported_before_training(clip_list, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status, out, err = run(capsys, *flags(clip_list, tmp_path / "file/run"))
    assert status == 1 and "file" in err and "epoch 1," not in out


def test_a_second_run_in_the_same_folder_is_refused(clip_list, tmp_path, capsys):
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    with run_folder.run_folder(str(tmp_path / "run"), network):
        status, _, err = run(capsys, *flags(clip_list, tmp_path / "run"))
    assert status == 1 and "another run is using it" in err


def test_a_state_that_runs_code_is_refused(clip_list, short_run, tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/it-ran",)

    torch.save({"version": 1, "epoch": Trap()}, short_run / "training_state.pt")
    status, out, _ = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 0 and "which could run code" in out and "Resuming after epoch 1" in out
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("rows"), "not a training state"),
        (lambda s: s.update(version=99), "version 99"),
        (lambda s: s.update(epoch="1"), "epoch is a str"),
        (lambda s: s.update(epoch=-1), "position"),
        (lambda s: s.update(rows=torch.zeros(2, len(PARTS) + 1, dtype=torch.float64)), "position"),
        (lambda s: s.update(random=torch.zeros(3)), "random state"),
        (lambda s: s["network"].pop("__L__.wI"), "network __L__.wI does not fit"),
        (lambda s: s["network"].update({"__L__.wI": torch.zeros(2)}), "network __L__.wI does not fit"),
        (lambda s: s["parameters"].reverse(), "parameters of another network"),
        (lambda s: s["optimizer"]["param_groups"][0]["params"].pop(), "parameter groups of"),
        (lambda s: s["optimizer"].update(state=[]), "parameter groups of"),
    ],
)
def test_states_that_do_not_fit(short_run, change, message):
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    path = str(short_run / "training_state.pt")
    state = torch.load(path, weights_only=True)
    load_state(path, network)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_state(path, network)


def test_rows_from_before_a_figure_was_added_are_filled_with_nan(short_run):
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    path = str(short_run / "training_state.pt")
    state = torch.load(path, weights_only=True)
    state["rows"] = torch.ones(2, len(PARTS) - 1, dtype=torch.float64)
    torch.save(state, path)
    rows = trainingState.restore(load_state(path, network), network).rows
    np.testing.assert_array_equal(rows, [[1.0] * (len(PARTS) - 1) + [math.nan]] * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update({"__L__.wI": torch.zeros((), dtype=torch.int8)}), "momentum __L__.wI"),
        (lambda m: m.update({"x": torch.zeros(2)}), "another network"),
    ],
)
def test_states_of_version_1_that_do_not_fit(short_run, change, message):
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    path = short_run / "training_state.pt"
    state = as_version_1(path)
    change(state["momentum"])
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_state(str(path), network)


def test_a_few_broken_clips_are_replaced_and_noted(clip_list, tmp_path, capsys):
    lines = clip_list.read_text().splitlines(keepends=True)
    video, listed = tmp_path / "broken.mp4", tmp_path / "list.txt"
    video.write_bytes(b"nothing")
    listed.write_text("".join([*lines, *lines[:6], f"{video} {lines[0].split()[1]} 0 12\n"]))
    once = ("--max_epoch", 1, "--verify_list", clip_list, "--max_bad")
    status, _, err = run(capsys, *flags(listed, tmp_path / "run", *once, 0.3))
    assert status == 0 and len(result_lines(tmp_path / "run")) == 1, err
    noted = (tmp_path / "run/result/bad_clips.txt").read_text()
    assert noted.startswith(f"{video}\t") and "(7 bytes)" in noted
    status, _, err = run(capsys, *flags(listed, tmp_path / "other", *once, 0.01))
    assert status == 1 and "more than --max_bad 0.01" in err and "broken.mp4" in err


def test_a_loss_that_is_not_finite_stops_the_run(clip_list, short_run, capsys, monkeypatch):
    before = (short_run / "training_state.pt").read_bytes()
    real = SyncNet.forward

    def broken(self, video, audio, *weights):
        total, row = real(self, video, audio, *weights)
        return total * float("nan"), row * float("nan")

    monkeypatch.setattr(SyncNet, "forward", broken)
    status, _, err = run(capsys, *flags(clip_list, short_run))
    assert status == 1 and "step 1: the loss is nan" in err and "learning rate 0.0095" in err
    assert len([line for line in err.splitlines() if line.endswith(".wav")]) == 2
    assert (short_run / "training_state.pt").read_bytes() == before
