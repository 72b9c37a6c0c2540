"""A run that is killed, stopped or starved of disk goes on to exactly the same weights."""

import builtins
import errno
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clipMaker import make_list

import trainSyncNet
from models.checkpoints import CheckpointError, epoch_checkpoints
from SyncNetDist import SyncNet
from training import state as trainingState

TESTS = Path(__file__).parent
EPOCHS = 3
FLAGS = ["--maxFrames", 6, "--nBatchSize", 2, "--nOut", 8, "--model", "tinyModel", "--device", "cpu"]
FLAGS += ["--nDataLoaderThread", 2, "--lr", 0.01]


@pytest.fixture(scope="module")
def clip_list(tmp_path_factory) -> Path:
    return make_list(tmp_path_factory.mktemp("clips"), 13, 12)


def flags(clip_list: Path, save_path: Path, *more) -> list[str]:
    lists = ("--train_list", clip_list, "--verify_list", clip_list, "--nTestPerEpoch", 4)
    fixed = [*FLAGS, *lists, "--save_path", save_path, "--max_epoch", EPOCHS, "--save_steps", 2]
    return [str(x) for x in (*fixed, *more)]


def runs(tmp_path: Path, commands: list) -> tuple[list[int], list[int]]:
    """Run commands (flags, when to send the signal, signal) one after the other in fresh processes; see runs.py.

    Returns their exit statuses, and how many times each turned to a file of its own.
    """
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent)))
    result = subprocess.run(
        [sys.executable, TESTS / "runs.py", tmp_path / "commands.json"],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300 + 60 * len(commands),  # each takes some 5 s, and much longer beside other work
    )
    assert result.returncode == 0, result.stderr
    return tuple(json.loads(result.stdout))


def final_weights(save_path: Path) -> dict[str, torch.Tensor]:
    return torch.load(save_path / f"model/model{EPOCHS:09d}.model", weights_only=True)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def result_lines(save_path: Path) -> list[str]:
    lines = (save_path / "result/scores.txt").read_text().splitlines()
    return [line for line in lines if line.startswith("IT")]


@pytest.fixture(scope="module")
def whole_run(clip_list, tmp_path_factory) -> tuple[Path, int]:
    """An uninterrupted run, and how many times it turns to a file of its own."""
    folder = tmp_path_factory.mktemp("whole")
    commands = [[flags(clip_list, folder / str(i)), None, 0] for i in range(2)]
    statuses, turns = runs(folder, commands)
    assert statuses == [0, 0], (folder / "0.log").read_text()
    assert turns[0] == turns[1]
    assert same(final_weights(folder / "0"), final_weights(folder / "1"))
    return folder / "0", turns[0]


@pytest.mark.parametrize("kills", [6, pytest.param(28, marks=pytest.mark.slow)])
def test_killed_at_random_moments(clip_list, whole_run, tmp_path, kills):
    whole, turns = whole_run
    draws = random.Random(kills)
    commands = []
    for i in range(kills):
        command = flags(clip_list, tmp_path / str(i))
        # Between two turns to a file nothing changes on the disk; a little later, it may be half written.
        moment = [draws.randint(1, round(0.9 * turns)), draws.choice((0, 0.001, 0.003))]
        commands.append([command, moment, signal.SIGKILL])
        commands.append([command, None, 0])
    statuses, _ = runs(tmp_path, commands)
    assert statuses == [-signal.SIGKILL, 0] * kills
    for i in range(kills):
        assert same(final_weights(tmp_path / str(i)), final_weights(whole)), i
        assert result_lines(tmp_path / str(i)) == result_lines(whole)
        assert not list((tmp_path / str(i)).rglob("*.part"))
    logs = [(tmp_path / f"{i}.log").read_text() for i in range(kills)]
    assert sum("Going on in epoch" in log for log in logs) >= kills // 4  # the others had not saved yet


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state(clip_list, whole_run, tmp_path, number):
    whole, _ = whole_run
    command = flags(clip_list, tmp_path / "run", "--save_steps", 0)
    statuses, _ = runs(tmp_path, [[command, "IT 1,", number], [command, None, 0]])
    assert statuses == [128 + number, 0]
    said = (tmp_path / "run.log").read_text()
    assert "The same command goes on from here" in said and "Going on in epoch" in said
    assert same(final_weights(tmp_path / "run"), final_weights(whole))


def run(capsys, *args) -> tuple[int, str, str]:
    status = trainSyncNet.main([str(a) for a in args])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture
def short_run(clip_list, tmp_path, capsys) -> Path:
    """A run of one epoch of three."""
    assert run(capsys, *flags(clip_list, tmp_path / "run", "--max_epoch", 1))[0] == 0
    return tmp_path / "run"


@pytest.mark.usefixtures("one_thread")
def test_a_network_that_draws_goes_on_with_its_draws(clip_list, tmp_path, capsys, stopped_at):
    dropping = ("--model", "dropModel", "--max_epoch", 2, "--save_steps", 1)
    assert run(capsys, *flags(clip_list, tmp_path / "whole", *dropping))[0] == 0
    for step in (3, 11):  # six steps of training, two of validation
        halves = flags(clip_list, tmp_path / str(step), *dropping)
        with stopped_at(step):
            assert run(capsys, *halves)[0] == 1
        assert run(capsys, *halves)[0] == 0
        a, b = (
            torch.load(tmp_path / name / "model/model000000002.model", weights_only=True)
            for name in ("whole", str(step))
        )
        assert same(a, b)


@pytest.mark.usefixtures("one_thread")
def test_validation_and_training_draw_apart(clip_list, tmp_path, capsys):
    """A longer validation trains the same; without training, every epoch validates the same."""
    for clips in (2, 6):
        short = flags(clip_list, tmp_path / str(clips), "--max_epoch", 2, "--nTestPerEpoch", clips)
        assert run(capsys, *short)[0] == 0
    a, b = (
        torch.load(tmp_path / name / "model/model000000002.model", weights_only=True) for name in ("2", "6")
    )
    assert same(a, b)
    still = ("--lr", 0, "--model", "plainModel", "--max_epoch", 3, "--maxFrames", 8)
    assert run(capsys, *flags(clip_list, tmp_path / "still", *still))[0] == 0
    lines = result_lines(tmp_path / "still")
    assert len(lines) == 3 and len({line[line.index("VACC") :] for line in lines}) == 1


def test_a_state_of_an_earlier_version_goes_on(clip_list, short_run, capsys):
    """Earlier ones did not keep where torch's generators were."""
    path = short_run / "training_state.pt"
    state = torch.load(path, weights_only=True)
    del state["torch_random"], state["gpu_random"]
    torch.save(state, path)
    status, out, err = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 0 and "Going on in epoch 2 after step 0" in out, err


def test_changed_settings_are_named_and_refused(clip_list, short_run, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("".join(reversed(clip_list.read_text().splitlines(keepends=True))))
    changed = flags(clip_list, short_run, "--lr", 0.02, "--train_list", other)
    status, _, err = run(capsys, *changed)
    assert status == 1 and "lr: 0.01 then, 0.02 now" in err and "content of --train_list" in err
    assert "maxFrames" not in err
    status, out, _ = run(capsys, *changed, "--force_resume", "--max_epoch", 2)
    assert status == 0 and "going on with other settings" in out and "Going on in epoch 2" in out
    assert "LR 0.019000" in result_lines(short_run)[-1]


def test_free_settings_may_change(clip_list, short_run, tmp_path, capsys):
    copy = tmp_path / "copy.txt"
    copy.write_text(clip_list.read_text())
    free = ("--nDataLoaderThread", 1, "--train_list", copy, "--max_epoch", 2, "--keep", 1)
    assert run(capsys, *flags(clip_list, short_run, *free))[0] == 0
    assert list(epoch_checkpoints(str(short_run / "model"))) == [2]


def test_settings_of_an_older_state_were_the_defaults(clip_list, short_run, capsys):
    """A state from before a flag existed goes on without it, and not with another value of it."""
    path = short_run / "training_state.pt"
    state = torch.load(path, weights_only=True)
    for name in ("alphaD", "distance"):
        del state["settings"][name]
    torch.save(state, path)
    changed = ("--alphaD", 0.5, "--max_epoch", 2)
    status, _, err = run(capsys, *flags(clip_list, short_run, *changed))
    assert status == 1 and "alphaD: 0.0 then, 0.5 now" in err and "distance" not in err
    status, out, _ = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 0 and "Going on in epoch 2 after step 0" in out


def test_a_loss_that_is_switched_on_later_starts_without_momentum(clip_list, tmp_path, capsys):
    path = tmp_path / "run"
    assert run(capsys, *flags(clip_list, path, "--alphaI", 0, "--max_epoch", 1))[0] == 0
    state = torch.load(path / "training_state.pt", weights_only=True)
    momenta = state["momentum"]
    assert momenta and not any("heads.1" in name or "wI" in name for name in momenta)
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    trainingState.restore(trainingState.load_state(str(path / "training_state.pt"), network), network)
    for name, parameter in network.named_parameters():
        momentum = network.__optimizer__.state[parameter].get("momentum_buffer")
        assert momentum is None if name not in momenta else torch.equal(momentum, momenta[name]), name
    status, out, err = run(capsys, *flags(clip_list, path, "--alphaI", 1, "--force_resume", "--max_epoch", 2))
    assert status == 0 and "alphaI: 0.0 then, 1.0 now" in out, err
    assert "Going on in epoch 2 after step 0" in out and len(result_lines(path)) == 2


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("training_state.pt", errno.EIO),
        ("training_state.pt", errno.ENOMEM),
        ("model", errno.EACCES),
        ("model/model000000001.model", errno.ESTALE),
    ],
)
def test_what_cannot_be_read_now_is_not_damaged(clip_list, short_run, capsys, monkeypatch, number, name):
    """The run stops with the message, and what it would have gone on from stays as it is."""
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
    assert status == 0 and "Going on" in out


def test_a_state_of_another_network_is_not_gone_on_from(clip_list, short_run, capsys):
    other = flags(clip_list, short_run, "--nOut", 16, "--max_epoch", 2)
    status, _, err = run(capsys, *other)
    assert status == 1 and "nOut: 8 then, 16 now" in err
    before = (short_run / "training_state.pt").read_bytes()
    status, _, err = run(capsys, *other, "--force_resume")
    assert status == 1 and "does not fit" in err and "another --save_path" in err
    assert (short_run / "training_state.pt").read_bytes() == before


@pytest.mark.parametrize(("pass_", "said"), [("train", "after step 6"), ("validation", "after step 6")])
def test_a_signal_is_obeyed_although_nothing_is_looked_up(
    clip_list, whole_run, tmp_path, capsys, monkeypatch, pass_, said
):
    """As on a GPU, where an epoch may have fewer steps than are queued between two looks."""
    whole, _ = whole_run
    torch.set_num_threads(1)
    real_init, real_forward, sent = SyncNet.__init__, SyncNet.forward, []

    def init(self, *args, **kwargs):
        real_init(self, *args, **kwargs)
        self.steps_per_look = 1000

    def forward(self, *args):
        if not sent and self.training == (pass_ == "train"):
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        return real_forward(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(SyncNet, "__init__", init)
        patch.setattr(SyncNet, "forward", forward)
        status, out, _ = run(capsys, *flags(clip_list, tmp_path / "run", "--save_steps", 0))
    assert status == 128 + signal.SIGTERM and "the state is saved" in out and "IT 1" not in out
    status, out, _ = run(capsys, *flags(clip_list, tmp_path / "run"))
    assert status == 0 and f"Going on in epoch 1 {said}" in out
    assert same(final_weights(tmp_path / "run"), final_weights(whole))


def test_damaged_files_fall_back(clip_list, short_run, capsys):
    assert run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))[0] == 0
    for damaged in (short_run / "training_state.pt", short_run / "model/model000000002.model"):
        damaged.write_bytes(damaged.read_bytes()[:-100])
    status, out, _ = run(capsys, *flags(clip_list, short_run))
    assert status == 0
    assert "WARNING" in out and "training_state.pt: not loaded" in out and "without the momentum" in out
    assert "model000000002.model: not loaded" in out and "Going on after epoch 1" in out
    assert [line[:4] for line in result_lines(short_run)] == ["IT 1", "IT 2", "IT 3"]


@pytest.mark.parametrize("content", [b"", b"PK damaged"])
def test_unreadable_checkpoints_are_skipped_and_never_all(clip_list, short_run, capsys, content):
    assert run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))[0] == 0
    (short_run / "training_state.pt").unlink()
    (short_run / "model/model000000002.model").write_bytes(content)
    status, out, _ = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 0 and "model000000002.model: not loaded" in out and "Going on after epoch 1" in out
    (short_run / "training_state.pt").unlink()
    for path in epoch_checkpoints(str(short_run / "model")).values():
        Path(path).write_bytes(content)
    for more in ((), ("--eval",)):  # neither a new run over the old one nor an untrained network
        status, out, err = run(capsys, *flags(clip_list, short_run), *more)
        assert status == 1 and "model000000001.model: not loaded" in err and "epoch 1," not in out


def test_a_full_disk_leaves_the_last_good_state(clip_list, whole_run, tmp_path, capsys, monkeypatch):
    whole, _ = whole_run
    torch.set_num_threads(1)
    real_save, saves = torch.save, []

    def full(state, file):
        saves.append(1)
        if len(saves) == 6:
            file.write(b"half a state")
            raise OSError(errno.ENOSPC, "No space left on device")
        real_save(state, file)

    monkeypatch.setattr(torch, "save", full)
    status, _, err = run(capsys, *flags(clip_list, tmp_path / "run"))
    assert status == 1 and "No space left" in err
    assert not list((tmp_path / "run").rglob("*.part"))
    status, out, _ = run(capsys, *flags(clip_list, tmp_path / "run"))
    assert status == 0 and "Going on in epoch" in out
    assert same(final_weights(tmp_path / "run"), final_weights(whole))


def test_no_room_is_told_before_training(clip_list, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainingState.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    status, out, err = run(capsys, *flags(clip_list, tmp_path / "run"))
    assert status == 1 and "Make room" in err and "epoch 1," not in out


def test_an_unwritable_place_is_told_before_training(clip_list, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status, out, err = run(capsys, *flags(clip_list, tmp_path / "file/run"))
    assert status == 1 and "file" in err and "epoch 1," not in out


def test_a_second_run_in_the_same_place_stops(clip_list, tmp_path, capsys):
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    with trainingState.run_folder(str(tmp_path / "run"), network):
        status, _, err = run(capsys, *flags(clip_list, tmp_path / "run"))
    assert status == 1 and "another run is using it" in err


def test_a_state_that_runs_code_is_refused(clip_list, short_run, tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/it-ran",)

    torch.save({"version": 1, "epoch": Trap()}, short_run / "training_state.pt")
    status, out, _ = run(capsys, *flags(clip_list, short_run, "--max_epoch", 2))
    assert status == 0 and "which could run code" in out and "Going on after epoch 1" in out
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("rows"), "not a training state"),
        (lambda s: s.update(version=99), "version 99"),
        (lambda s: s.update(epoch="1"), "epoch is a str"),
        (lambda s: s.update(epoch=-1), "position"),
        (lambda s: s.update(random=torch.zeros(3)), "random state"),
        (lambda s: s["network"].pop("__L__.wI"), "network __L__.wI does not fit"),
        (lambda s: s["network"].update({"__L__.wI": torch.zeros(2)}), "network __L__.wI does not fit"),
        (
            lambda s: s["momentum"].update({"__L__.wI": torch.zeros((), dtype=torch.int8)}),
            "momentum __L__.wI",
        ),
        (lambda s: s["momentum"].update({"x": torch.zeros(2)}), "another network"),
    ],
)
def test_states_that_do_not_fit(short_run, change, message):
    network = SyncNet(model="tinyModel", nOut=8, device="cpu")
    path = str(short_run / "training_state.pt")
    state = torch.load(path, weights_only=True)
    trainingState.load_state(path, network)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        trainingState.load_state(path, network)


def test_a_few_broken_clips_are_replaced_and_noted(clip_list, tmp_path, capsys):
    lines = clip_list.read_text().splitlines(keepends=True)
    wav = lines[0].split()[1]
    videos = [tmp_path / f"broken{k}.mp4" for k in range(2)]
    for video in videos:
        video.write_bytes(b"nothing")
    broken = tmp_path / "list.txt"
    broken.write_text("".join([*lines * 7, *(f"{video} {wav} 0 12\n" for video in videos), *lines[:7]]))
    status, _, _ = run(capsys, *flags(broken, tmp_path / "run", "--max_epoch", 1), "--max_bad", 0.03)
    assert status == 0 and len(result_lines(tmp_path / "run")) == 1  # 100 clips, 2 % of them broken
    noted = (tmp_path / "run/result/bad_clips.txt").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in noted) == [str(video) for video in videos]
    assert all("cannot be opened as a video (7 bytes)" in line for line in noted)
    refused = flags(broken, tmp_path / "other", "--max_epoch", 1)
    status, _, err = run(capsys, *refused, "--max_bad", 0.01)
    assert status == 1 and "2 clips of this epoch of 100 cannot be read, more than --max_bad 0.01" in err
    assert "broken0.mp4: cannot be opened" in err and "bad_clips.txt" in err


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
