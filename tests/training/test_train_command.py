"""The command: training resumes where it stopped, evaluation prints its EER, bad input is reported in one line."""

import contextlib
import csv
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from clipMaker import make_list
from scipy.io import wavfile

import trainSyncNet
from syncnet.compute import distributed
from syncnet.loading.sizes import sizes_that_fit
from syncnet.media.clips import MARGIN, Clip, format_list_line, read_list
from syncnet.support.errors import UserError
from syncnet.training.preflight import check_batch_share, check_newest_state
from syncnet.training.resume import SavedRun
from SyncNetDist import SyncNet

T = 8
SMALL = (
    f"--maxFrames {T} --temporal_stride 2 --nOut 16 --nBatchSize 2 --device cpu --nDataLoaderThread 2".split()
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Six tiny clips in a list, four utterances in a trial list."""
    folder = tmp_path_factory.mktemp("corpus")
    make_list(folder, 6, 20)
    draws = np.random.RandomState(0)
    names = []
    for k in range(4):
        names.append(f"spk{k // 2}/{k}.wav")
        os.makedirs(folder / f"spk{k // 2}", exist_ok=True)
        wavfile.write(folder / names[-1], 16000, (3000 * draws.randn(9000)).astype(np.int16))
    trials = [f"{int(a[:4] == b[:4])} {a} {b}\n" for i, a in enumerate(names) for b in names[i + 1 :]]
    (folder / "trials.txt").write_text("".join(trials))
    return folder


def run(capsys, *args) -> tuple[int, str, str]:
    """The command in this process: exit status, output, errors."""
    status = trainSyncNet.main([str(a) for a in args])
    said = capsys.readouterr()
    return status, said.out, said.err


def data_flags(corpus: Path, save_path: Path) -> list:
    return [
        *SMALL,
        *("--train_list", corpus / "list.txt", "--verify_list", corpus / "list.txt"),
        *("--test_list", corpus / "trials.txt", "--test_path", corpus, "--save_path", save_path),
        *("--model", "tinyModel"),
    ]


def test_train_resume_and_evaluate(corpus, tmp_path, capsys):
    flags = data_flags(corpus, tmp_path / "exp")
    status, out, _ = run(capsys, *flags, "--max_epoch", 2, "--lr", 0.002)
    assert status == 0
    assert sorted(os.listdir(tmp_path / "exp/model")) == ["model000000001.model", "model000000002.model"]

    status, out, _ = run(
        capsys, *flags, "--max_epoch", 3, "--lr", 0.002, "--initial_model", "elsewhere.model"
    )
    assert status == 0
    assert "Resuming in epoch 3 after step 0" in out and "--initial_model elsewhere.model is not used" in out
    scores = (tmp_path / "exp/result/scores.txt").read_text().splitlines()
    assert "maxFrames 8" in scores and "lr 0.002" in scores
    epochs = [line for line in scores if line.startswith("IT")]
    number = r"\d+\.\d+"
    pattern = rf"IT (\d), LR ({number}), TACC {number}, TLOSS {number}, VACC {number}, VLOSS {number}"
    found = [re.fullmatch(pattern, line) for line in epochs]
    assert [m[1] for m in found] == ["1", "2", "3"]
    assert [float(m[2]) for m in found] == pytest.approx([0.002, 0.0019, 0.001805], abs=1e-6)

    status, out, _ = run(capsys, *flags, "--eval")
    assert status == 0 and "Evaluating" in out and "model000000003.model" in out
    assert re.fullmatch(rf"EER {number}", out.splitlines()[-1]) and "6 trials, 2 of them" in out

    given = tmp_path / "exp/model/model000000001.model"
    status, out, _ = run(capsys, *flags, "--eval", "--initial_model", given)
    assert status == 0 and f"Evaluating {given}" in out


def test_a_run_prints_settings_that_are_not_the_defaults(corpus, tmp_path, capsys):
    """Settings that are not the defaults, clips that validation leaves out, which top-1 the line of scores has."""
    flags = [*data_flags(corpus, tmp_path / "exp")]
    status, out, _ = run(capsys, *flags, "--max_epoch", 1, "--nTestPerEpoch", 5)
    assert status == 0
    lines = out.splitlines()
    assert "nOut 16" in lines and "nTestPerEpoch 5" in lines and "maxFrames 8" in lines
    assert not [line for line in lines if line.startswith(("lr ", "alphaC ", "save_steps "))]
    assert (
        f"{corpus}/list.txt: validation is on 4 clips; the other 1 do not fill a batch of 2 (--nBatchSize)"
        in lines
    )
    scores = (tmp_path / "exp/result/scores.txt").read_text().splitlines()
    assert "lr 0.0001" in scores and "alphaC 1.0" in scores and "nOut 16" in scores
    assert f"{scores[-1]} (TACC, VACC: identity top-1 in percent)" in lines
    assert out.count("(chance 50.00%)") == 4  # two moments, two voices; training and validation
    status, out, _ = run(capsys, *flags, "--max_epoch", 2, "--nTestPerEpoch", 4, "--force_resume")
    assert status == 0 and "do not fill" not in out


def test_the_folder_of_trials_that_is_one_level_off_is_named(corpus, tmp_path, capsys):
    wavs = tmp_path / "all/wavs"
    for speaker in ("spk0", "spk1"):
        shutil.copytree(corpus / speaker, wavs / speaker)
    flags = [*data_flags(corpus, tmp_path / "exp"), "--eval", "--untrained"]
    for wrong in (wavs.parent, wavs / "spk0", f"{wavs}/spk0/"):
        status, _, err = run(capsys, *flags, "--test_path", wrong)
        assert status == 1 and f"are relative to: --test_path {wavs}\n" in err
    assert run(capsys, *flags, "--test_path", wavs)[0] == 0
    status, _, err = run(capsys, *flags, "--test_path", corpus / "none")
    assert status == 1 and "none: no such folder" in err


def test_same_seed_same_run(corpus, tmp_path, capsys):
    states = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        flags = data_flags(corpus, tmp_path / name)
        assert run(capsys, *flags, "--max_epoch", 1, "--seed", seed)[0] == 0
        states.append(torch.load(tmp_path / name / "model/model000000001.model", weights_only=True))
    a, b, c = states
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_evaluation_needs_all_weights_and_training_reports_those_that_it_lacks(corpus, tmp_path, capsys):
    weights = SyncNet("tinyModel", nOut=16, maxFrames=T, temporal_stride=2, device="cpu").state_dict()
    del weights["__S__.heads.0.weight"]
    torch.save(weights, tmp_path / "x.model")
    flags = [*data_flags(corpus, tmp_path / "exp"), "--initial_model", tmp_path / "x.model", "--max_epoch", 1]
    status, _, err = run(capsys, *flags, "--eval")
    assert status == 1 and "1 weights of the network do not fit" in err and "heads.0.weight" in err
    status, out, _ = run(capsys, *flags)
    assert status == 0 and "WARNING" in out and "heads.0.weight is not in the checkpoint" in out


def test_the_sizes_proposed_for_a_small_corpus_work(corpus, tmp_path, capsys):
    """Clips that are too short, and a list that is smaller than a batch: one message for both lists."""
    clips = read_list(str(corpus / "list.txt"))
    shorter = [replace(clip, offset=0, frames=17 + number) for number, clip in enumerate(clips[:4])]
    write(tmp_path, "train.txt", "".join(format_list_line(clip) + "\n" for clip in shorter))
    write(tmp_path, "val.txt", "".join(format_list_line(clip) + "\n" for clip in shorter[1:]))
    lists = ("--train_list", tmp_path / "train.txt", "--verify_list", tmp_path / "val.txt")
    flags = (*data_flags(corpus, tmp_path / "exp"), *lists, "--max_epoch", 1)
    status, _, err = run(capsys, *flags, "--maxFrames", 15, "--nBatchSize", 5)
    assert status == 1 and "--train_list" in err and "2 of 4 clips have the 19 frames" in err
    advice = re.search(r"\(such as (--[^()]*)\)", err)[1].split()
    assert advice == ["--maxFrames", "13", "--nBatchSize", "3"]
    status, out, _ = run(capsys, *flags, *advice)
    assert status == 0 and "IT 1," in out
    checkpoint = out.splitlines()[-1].removeprefix("Done: ").split("; ")[0]
    status, out, _ = run(capsys, *flags, "--eval", "--initial_model", checkpoint)
    assert status == 0 and "EER" in out


def test_sizes_that_fit():
    def clips(*lengths):
        return [Clip("v", "a", 0, length + MARGIN) for length in lengths]

    long, short = clips(*[50] * 40), clips(20, 30, 25)
    assert sizes_that_fit([long], 30, 30) == (30, 30)
    assert sizes_that_fit([long, short], 30, 30) == (20, 3)
    assert sizes_that_fit([long, short], 30, 2) == (25, 2)
    assert sizes_that_fit([long], 30, 100, multiple=16) == (30, 32)
    assert sizes_that_fit([long, short[:1]], 30, 30) is None and sizes_that_fit([[]], 30, 30) is None
    assert sizes_that_fit([clips(4, 4)], 30, 2) is None


def bad_list(text):
    return lambda folder: {"--train_list": write(folder, "bad.txt", text)}


def bad_trials(text, wav=None):
    def change(folder):
        if wav is not None:
            wavfile.write(folder / "bad.wav", *wav)
        return {"--test_list": write(folder, "bad.txt", text), "--eval": None}

    return change


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {"--train_list": "none.txt"}, r"--train_list none.txt: no such file"),
        (lambda _: {"--verify_list": "none.txt"}, r"--verify_list none.txt: no such file"),
        (bad_list("a.mp4 a.wav 0\n"), r"bad.txt, line 1: found 3 fields"),
        (bad_list(""), r"bad.txt: the list is empty"),
        (
            bad_list("a.mp4 a.wav 0 50\n"),
            r"less than one batch of 2\. Use a longer list: .* 2 clips of 9 frames",
        ),
        (
            lambda _: {"--nTestPerEpoch": 1},
            r"1 clips per epoch \(.*--nTestPerEpoch\) are less than .* use 2 or more",
        ),
        (lambda _: {"--nTrainPerEpoch": 1}, r"1 clips per epoch \(.*--nTrainPerEpoch\) are less than"),
        (bad_list("a.mp4 a.wav 0 50\nb.mp4 b.wav 0 50\n"), r"[ab].wav: no such wav file"),
        (
            lambda _: {"--model": "models.Nothing"},
            r"model 'models.Nothing' has no SyncNetModel.*SyncNetModelFBank",
        ),
        (lambda _: {"--initial_model": "none.model"}, r"none.model: no such checkpoint"),
        (
            lambda _: {"--device": "cuda:7"} if not torch.cuda.is_available() else {"--maxFrames": 4},
            r"device|maxFrames",
        ),
        (bad_trials("1 none.wav spk0/0.wav\n0 spk0/0.wav spk1/2.wav\n"), r"none.wav: no such wav file"),
        (
            bad_trials("1 bad.wav spk0/0.wav\n0 spk0/0.wav spk1/2.wav\n", (8000, np.zeros(9000, np.int16))),
            r"bad.wav: 8000 Hz",
        ),
        (
            bad_trials(
                "1 bad.wav spk0/0.wav\n0 spk0/0.wav spk1/2.wav\n", (16000, np.zeros((9000, 2), np.int16))
            ),
            r"bad.wav: .*2 channel",
        ),
        (
            bad_trials("1 bad.wav spk0/0.wav\n0 spk0/0.wav spk1/2.wav\n", (16000, np.zeros(900, np.int16))),
            r"bad.wav: .*too short: 900",
        ),
        (
            bad_trials("1 u/0.wav u/1.wav\n0 u/0.wav u/2.wav\n"),
            r"has none of the wavs.*u/0.wav: no such wav file",
        ),
        (bad_trials("2 spk0/0.wav spk0/1.wav\n"), r"bad.txt, line 1: label '2'"),
        (bad_trials("1 spk0/0.wav spk0/1.wav\n"), r"bad.txt: an EER needs"),
    ],
)
def test_bad_input_is_reported_in_one_line(corpus, tmp_path, capsys, monkeypatch, change, message):
    embedded = []
    monkeypatch.setattr(trainSyncNet.SyncNet, "forward", lambda *_: embedded.append(1))
    flags = data_flags(corpus, tmp_path / "exp")
    for flag, value in change(corpus).items():
        flags += [flag] if value is None else [flag, value]
    status, _, err = run(capsys, *flags)
    assert status == 1 and not embedded
    assert re.search(message, err.splitlines()[-1]) and "Traceback" not in err, err


def test_a_share_too_small_for_batch_norm_is_refused(monkeypatch):
    """Two processes on a CPU with a clip each: its batch norms would have nothing to normalise by."""
    monkeypatch.setattr(distributed, "processes", lambda: 2)

    def check(batch: int, **settings) -> None:
        check_batch_share(SyncNet(**{"model": "tinyModel", "nOut": 4, "device": "cpu"} | settings), batch)

    with pytest.raises(UserError, match="use --nBatchSize 4, or --maxFrames 8"):
        check(2, maxFrames=7, temporal_stride=3)
    check(2, maxFrames=8, temporal_stride=3)
    check(4, maxFrames=7, temporal_stride=3)
    check(2, maxFrames=5, model="plainModel")
    with pytest.raises(UserError, match="the nearest sizes that fit: 2 or 4"):
        check(3)


@pytest.mark.parametrize(
    ("theirs", "newer"), [((1, 9), False), ((2, 0), False), ((2, 1), False), ((2, 2), True), ((3, 0), True)]
)
def test_a_newer_state_on_another_machine_is_refused(tmp_path, monkeypatch, theirs, newer):
    """Epoch and finished steps there; here the run is in epoch 2 after step 1."""
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    monkeypatch.setattr(distributed, "union", lambda own: sorted([*own, (*theirs, -1, "other")]))
    saved = SavedRun(str(tmp_path))
    saved.state = {"epoch": 2, "rows": [[0.0]]}
    with pytest.raises(UserError, match="on other") if newer else contextlib.nullcontext():
        check_newest_state(saved)


@pytest.mark.parametrize("flags", ["--maxFrame 5", "--lr -1", "--nBatchSize 1", "--seed x"])
def test_wrong_flags_are_refused(flags, capsys):
    with pytest.raises(SystemExit) as end:
        trainSyncNet.main(flags.split())
    assert end.value.code == 2 and "usage:" in capsys.readouterr().err


def test_defaults_are_the_original_ones():
    args = vars(trainSyncNet.parse_args([]))
    expected = {
        "maxFrames": 30, "nBatchSize": 30, "nTrainPerEpoch": 100000, "nTestPerEpoch": 10000,
        "nDataLoaderThread": 4, "max_epoch": 500, "temporal_stride": 1, "nOut": 1024, "lr": 0.0001,
        "lr_decay": 0.95, "alphaC": 1.0, "alphaI": 1.0, "initial_model": "", "save_path": "./data/exp01",
        "train_list": "data/dev.txt", "verify_list": "data/test.txt", "test_list": "voxceleb/test_list.txt",
        "test_path": "voxceleb/voxceleb1", "eval": False, "model": "models.SyncNetModelFBank",
    }  # fmt: skip
    assert {name: args[name] for name in expected} == expected


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile writes C++")
def test_compiled_training(corpus, tmp_path, capsys):
    results = []
    for extra in ((), ("--compile",)):
        flags = data_flags(corpus, tmp_path / f"exp{len(extra)}")
        status, _, errors = run(capsys, *flags, "--max_epoch", 1, *extra)
        assert status == 0, errors
        metrics = (tmp_path / f"exp{len(extra)}/result/metrics.csv").read_text().splitlines()
        results.append(next(csv.DictReader(metrics)))
    for name in ("train_content_loss", "train_identity_loss", "val_content_loss", "val_identity_loss"):
        assert float(results[1][name]) == pytest.approx(float(results[0][name]), rel=1e-4)


@pytest.mark.slow
def test_compile_without_a_compiler(corpus, tmp_path):
    flags = data_flags(corpus, tmp_path / "exp")
    without = {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = processes.run("trainSyncNet.py", *flags, "--compile", **without)
    assert done.returncode == 1
    assert "trainSyncNet.py: --compile: InvalidCxxCompiler" in done.stderr
    assert "apt install g++" in done.stderr and "Traceback" not in done.stderr
